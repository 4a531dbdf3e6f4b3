"""Boxes in space: where their corners are, and what lies in them.

Axes are upright: x right, y forward, z up, in metres. A box is its centre [3], its full size [3]
(l, w, h: along its own x, y, z) and its heading in radians, measured from +x towards -y, as VoteNet
has it (Qi et al., ICCV 2019).

Shapes: N boxes, P points.
"""

from typing import NamedTuple

import numpy as np


class Boxes(NamedTuple):
    """center float64 [N, 3], size float64 [N, 3], heading float64 [N]."""

    center: np.ndarray
    size: np.ndarray
    heading: np.ndarray


def corners(boxes: Boxes) -> np.ndarray:
    """float64 [N, 8, 3]: the lower four in order around the box, then the upper four above them."""
    signs = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)], float) / 2
    footprint = signs[None] * boxes.size[:, None, :2]
    cos, sin = np.cos(boxes.heading)[:, None], np.sin(boxes.heading)[:, None]
    x = cos * footprint[..., 0] + sin * footprint[..., 1] + boxes.center[:, None, 0]
    y = -sin * footprint[..., 0] + cos * footprint[..., 1] + boxes.center[:, None, 1]
    out = np.empty((len(x), 8, 3))
    for part, sign in ((slice(0, 4), -0.5), (slice(4, 8), 0.5)):
        out[:, part, 0], out[:, part, 1] = x, y
        out[:, part, 2] = (boxes.center[:, 2] + sign * boxes.size[:, 2])[:, None]
    return out


def inside(points_P3: np.ndarray, center: np.ndarray, size: np.ndarray, heading: float):
    """bool [P]: which points lie in a box, its faces included."""
    x, y, z = (np.asarray(points_P3, np.float64) - center).T
    cos, sin = np.cos(heading), np.sin(heading)
    along, across = cos * x - sin * y, sin * x + cos * y
    half = np.asarray(size) / 2
    return (np.abs(along) <= half[0]) & (np.abs(across) <= half[1]) & (np.abs(z) <= half[2])


def hulls(boxes: Boxes) -> np.ndarray:
    """Axis-aligned hulls, float64 [N, 6]: lowest x, y, z, highest x, y, z."""
    eight = corners(boxes)
    return np.concatenate([eight.min(axis=1), eight.max(axis=1)], axis=1)
