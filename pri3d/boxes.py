"""Oriented 3D boxes: their corners, their hulls, and the points inside.

Axes are upright: x right, y forward, z up, in meters. A box has a center [3], a full size [3]
(l, w, h along its own x, y, z) and a heading in radians, measured from +x towards -y (the
convention of VoteNet, Qi et al., ICCV 2019).

Shapes: N boxes, P points.
"""

from typing import NamedTuple

import numpy as np


class Boxes(NamedTuple):
    """N boxes: center float64 [N, 3], size float64 [N, 3], heading float64 [N]."""

    center: np.ndarray
    size: np.ndarray
    heading: np.ndarray


def corners(boxes: Boxes) -> np.ndarray:
    """Corners float64 [N, 8, 3]: the lower four in order around the box, then the upper four."""
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


def inside(
    points_P3: np.ndarray, center: np.ndarray, size: np.ndarray, heading: float
) -> np.ndarray:
    """Mask bool [P] of the points in a box, its faces included."""
    x, y, z = (np.asarray(points_P3, np.float64) - center).T
    cos, sin = np.cos(heading), np.sin(heading)
    along, across = cos * x - sin * y, sin * x + cos * y
    half = np.asarray(size) / 2
    return (np.abs(along) <= half[0]) & (np.abs(across) <= half[1]) & (np.abs(z) <= half[2])


def hulls(boxes: Boxes) -> np.ndarray:
    """Axis-aligned hulls, float64 [N, 6]: min x, y, z, then max x, y, z."""
    corners_N83 = corners(boxes)
    return np.concatenate([corners_N83.min(axis=1), corners_N83.max(axis=1)], axis=1)
