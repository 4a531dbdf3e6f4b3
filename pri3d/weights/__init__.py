"""Weights of other libraries and of published checkpoints: reading, loading, converting."""
