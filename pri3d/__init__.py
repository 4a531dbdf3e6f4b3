"""Pri3D: raw RGB-D scans in, contrastively pretrained 2D and 3D backbones out."""

__version__ = "0.1.0"
