"""Weights in and out: what other libraries and the published checkpoints call the same tensors."""
