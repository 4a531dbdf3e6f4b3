"""Overlap and correspondences: points of two frames, or of a frame and a surface, that coincide."""
