"""Random changes of training samples: crops, color, clouds."""
