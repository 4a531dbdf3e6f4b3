"""Augmentation of clouds: the positions of the points, and their colors.

Points keep their rows, so that matches stay valid. z is up.

Shapes: N points.
"""

from collections.abc import Collection

import numpy as np
from scipy.ndimage import map_coordinates, uniform_filter

MAX_TILT = np.pi / 64  # about x and about y
SCALES = (0.9, 1.1)
ELASTIC = ((0.2, 0.4), (0.8, 1.6))  # meters: spacing of the grid's knots, size of the shifts
CONTRAST_PROBABILITY = 0.2
SHIFT_PROBABILITY, MAX_SHIFT = 0.95, 0.1  # of all colors together
NOISE_PROBABILITY, NOISE_STD = 0.95, 0.05  # of each color


def augment_points(
    points_N3: np.ndarray, transforms: Collection[str], rng: np.random.Generator
) -> np.ndarray:
    """Transform the points of a cloud at random.

    Each transform has its own generator, so that leaving one out does not change the others.

    Args:
        points_N3: meters.
        transforms: some of "rotate" (by any angle about z, then by at most 2.8 degrees about x and
            y), "scale" (by 0.9 to 1.1), "flip" (x and y, each with probability 0.5) and "elastic"
            (two smooth random distortions, as in SpatioTemporalSegmentation: Choy et al., CVPR
            2019).
        rng: of all of them.

    Returns:
        Points float64 [N, 3] in meters.
    """
    points_N3 = np.asarray(points_N3, np.float64)
    elastic_rng, rotate_rng, scale_rng, flip_rng = rng.spawn(4)
    if "elastic" in transforms:
        for spacing_m, size_m in ELASTIC:
            points_N3 = distort(points_N3, spacing_m, size_m, elastic_rng)
    matrix = np.eye(3)
    if "rotate" in transforms:
        matrix = random_rotation(rotate_rng)
    if "scale" in transforms:
        matrix = scale_rng.uniform(*SCALES) * matrix
    if "flip" in transforms:
        matrix = np.diag([*np.where(flip_rng.random(2) < 0.5, -1.0, 1.0), 1.0]) @ matrix
    return points_N3 @ matrix.T


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """A random rotation [3, 3]: by any angle about z, then by small angles about x and y."""
    matrix = np.eye(3)
    for axis, max_angle in ((2, np.pi), (0, MAX_TILT), (1, MAX_TILT)):
        angle = rng.uniform(-max_angle, max_angle)
        first, second = (i for i in range(3) if i != axis)
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def distort(
    points_N3: np.ndarray, spacing_m: float, size_m: float, rng: np.random.Generator
) -> np.ndarray:
    """Move the points of a cloud by smooth noise.

    The noise is normal at the knots of a grid, averaged twice over three knots along each axis, and
    interpolated linearly.

    Args:
        points_N3: meters.
        spacing_m: of the knots.
        size_m: factor of the noise.
        rng: of the noise.
    """
    if not len(points_N3):
        return points_N3
    low = points_N3.min(axis=0)
    knots = np.ceil((points_N3.max(axis=0) - low) / spacing_m).astype(int) + 3
    position_3N = ((points_N3 - low) / spacing_m + 1).T
    moved_N3 = points_N3.copy()
    for axis in range(3):
        noise = rng.standard_normal(knots, np.float32)
        for _ in range(2):
            noise = uniform_filter(noise, 3, mode="constant")
        moved_N3[:, axis] += size_m * map_coordinates(noise, position_3N, order=1, mode="nearest")
    return moved_N3


def augment_colors(color_N3: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colors float32 [N, 3] in 0..1 with random contrast, a common shift, and noise."""
    color_N3 = np.asarray(color_N3, np.float32)
    if not len(color_N3):
        return color_N3
    if rng.random() < CONTRAST_PROBABILITY:
        low, high = color_N3.min(axis=0), color_N3.max(axis=0)
        stretched = (color_N3 - low) / np.maximum(high - low, 1 / 255)
        blend = np.float32(rng.random())
        color_N3 = (1 - blend) * color_N3 + blend * stretched
    if rng.random() < SHIFT_PROBABILITY:
        color_N3 = color_N3 + (rng.random(3, np.float32) - np.float32(0.5)) * 2 * MAX_SHIFT
    if rng.random() < NOISE_PROBABILITY:
        color_N3 = color_N3 + NOISE_STD * rng.standard_normal(color_N3.shape, np.float32)
    return np.clip(color_N3, 0, 1).astype(np.float32)
