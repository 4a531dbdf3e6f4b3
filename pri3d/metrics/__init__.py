"""Measures of predictions, by the published rules."""
