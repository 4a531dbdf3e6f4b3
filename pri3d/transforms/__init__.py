"""Augmentation of training samples: crops, colors and clouds."""
