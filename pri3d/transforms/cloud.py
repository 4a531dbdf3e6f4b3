"""Random changes of a cloud: where its points are, and which colours they have.

Points keep their rows, so that whatever matches them goes on matching. z is up.

Shapes: N points.
"""

from collections.abc import Collection

import numpy as np
from scipy.ndimage import map_coordinates, uniform_filter

TILT = np.pi / 64  # largest, about x and about y
SCALES = (0.9, 1.1)
ELASTIC = ((0.2, 0.4), (0.8, 1.6))  # metres: distance of the grid's knots, size of the shifts
CONTRAST_SHARE, TRANSLATION, JITTER = 0.2, 0.1, 0.05  # of colours


def augment_points(
    points_N3: np.ndarray, ways: Collection[str], rng: np.random.Generator
) -> np.ndarray:
    """Points after a random change, float64 [N, 3] metres.

    ways: of "rotate" (any angle about z, then tilted by at most 2.8 degrees about x and y), "scale"
    (0.9 to 1.1), "flip" (x and y, each one time in two) and "elastic" (two smooth random
    distortions, as in SpatioTemporalSegmentation: Choy et al., CVPR 2019). What is not asked for
    draws nothing less: the same generator gives the others the same.
    """
    points_N3 = np.asarray(points_N3, np.float64)
    draws = rng.spawn(4)
    if "elastic" in ways:
        for spacing_m, size_m in ELASTIC:
            points_N3 = distort(points_N3, spacing_m, size_m, draws[0])
    matrix = np.eye(3)
    if "rotate" in ways:
        matrix = rotation(draws[1])
    if "scale" in ways:
        matrix = draws[2].uniform(*SCALES) * matrix
    if "flip" in ways:
        matrix = np.diag([*np.where(draws[3].random(2) < 0.5, -1.0, 1.0), 1.0]) @ matrix
    return points_N3 @ matrix.T


def rotation(rng: np.random.Generator) -> np.ndarray:
    """A random rotation [3, 3]: any angle about z, then small ones about x and y."""
    matrix = np.eye(3)
    for axis, largest in ((2, np.pi), (0, TILT), (1, TILT)):
        angle = rng.uniform(-largest, largest)
        first, second = (i for i in range(3) if i != axis)
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def distort(
    points_N3: np.ndarray, spacing_m: float, size_m: float, rng: np.random.Generator
) -> np.ndarray:
    """Points moved by smooth noise: normal at the knots of a grid, averaged twice over three knots
    along each axis, linear in between, times size_m.
    """
    if not len(points_N3):
        return points_N3
    low = points_N3.min(axis=0)
    knots = np.ceil((points_N3.max(axis=0) - low) / spacing_m).astype(int) + 3
    at_3N = ((points_N3 - low) / spacing_m + 1).T
    moved = points_N3.copy()
    for axis in range(3):
        noise = rng.standard_normal(knots, np.float32)
        for _ in range(2):
            noise = uniform_filter(noise, 3, mode="constant")
        moved[:, axis] += size_m * map_coordinates(noise, at_3N, order=1, mode="nearest")
    return moved


def augment_colors(color_N3: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colours float32 [N, 3] in 0..1 after random contrast, a common shift, and noise."""
    color_N3 = np.asarray(color_N3, np.float32)
    if not len(color_N3):
        return color_N3
    if rng.random() < CONTRAST_SHARE:
        low, high = color_N3.min(axis=0), color_N3.max(axis=0)
        stretched = (color_N3 - low) / np.maximum(high - low, 1 / 255)
        blend = np.float32(rng.random())
        color_N3 = (1 - blend) * color_N3 + blend * stretched
    if rng.random() < 0.95:
        color_N3 = color_N3 + (rng.random(3, np.float32) - np.float32(0.5)) * 2 * TRANSLATION
    if rng.random() < 0.95:
        color_N3 = color_N3 + JITTER * rng.standard_normal(color_N3.shape, np.float32)
    return np.clip(color_N3, 0, 1).astype(np.float32)
