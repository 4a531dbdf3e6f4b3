"""Readers of scans: `.sens` files, their images, surfaces, and folders of scans."""
