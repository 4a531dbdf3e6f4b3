"""Sparse 3D convolution: coordinates, kernel maps, layers, and engines that compute them."""
