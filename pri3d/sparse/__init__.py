"""Sparse 3D convolution: coordinates, kernel maps, layers and their engines."""
