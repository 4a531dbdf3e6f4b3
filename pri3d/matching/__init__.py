"""Which points of two frames, or of a frame and a surface, are the same place."""
