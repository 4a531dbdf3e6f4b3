"""A run: its folder, its training loop, and the processes that share it."""
