"""Recomputed matches between two frames."""

from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from pri3d import geometry
from pri3d.artefacts import Clouds
from pri3d.matching import official
from pri3d.matching.correspondences import nearest
from pri3d.matching.overlap import count_matches
from pri3d.selection import evenly_spaced
from pri3d.verify.checks import check

_PIXELS = 2000  # sampled pixels per pair


def world_points(clouds: Clouds, row: int) -> np.ndarray:
    """World points of a frame, float64 [N, 3], meters, in row order of the image."""
    view = clouds.view(row)
    points, valid = geometry.unproject(view.depth, view.K)
    return geometry.transform(view.world_from_camera, points[valid])


def recount(clouds: Clouds, a: int, b: int, rule: str, radius: float) -> int:
    """Count the points of frame row a with a point of row b within the radius, with a KD-tree."""
    if rule == "official":
        points_a, points_b = official.thin(clouds.cloud(a)), official.thin(clouds.cloud(b))
        radius = official.RADIUS_M
    else:
        points_a, points_b = world_points(clouds, a), world_points(clouds, b)
    distance, _ = cKDTree(points_b).query(points_a, distance_upper_bound=radius * 1.01)
    return int((distance < radius).sum())


def recount_all(clouds: Clouds, rule: str, radius: float) -> np.ndarray:
    """Count the matches of all ordered pairs of frames, [F, F]."""
    if rule == "official":
        return official.count_thinned_matches([clouds.cloud(row) for row in range(len(clouds))])[1]
    return count_matches([clouds.view(row) for row in range(len(clouds))], radius)


def agrees(matches: np.ndarray | int, expected: np.ndarray | int) -> np.ndarray:
    """Mask of the counts within two points or 1e-4 of the expected count."""
    matches, expected = np.asarray(matches, np.int64), np.asarray(expected, np.int64)
    return np.abs(matches - expected) <= np.maximum(2, 1e-4 * expected)


def check_correspondences(
    path: Path, where: str, clouds: Clouds, a: int, b: int, radius: float
) -> int:
    """Check that sampled pixels and their matches are closer than the radius in the world.

    Returns:
        The number of matches.

    Raises:
        Pri3DError: a match is wrong.
    """
    views = clouds.view(a), clouds.view(b)
    pixels = np.argwhere(views[0].depth > 0)
    sampled = pixels[evenly_spaced(len(pixels), _PIXELS)]
    pixels_a, pixels_b, distance = nearest(views[0], views[1], radius, sampled)
    ends = []
    for view, pixel in zip(views, (pixels_a, pixels_b)):
        points, valid = geometry.unproject(view.depth, view.K)
        at = tuple(np.asarray(pixel).T)
        check(path, where, valid[at].all(), "has a correspondence with a pixel without depth")
        ends.append(geometry.transform(view.world_from_camera, points[at]))
    apart = np.linalg.norm(ends[0] - ends[1], axis=1)
    good = (apart < radius).all() and np.allclose(apart, distance, rtol=0, atol=1e-9)
    check(path, where, good, f"has correspondences {apart.max(initial=0):.4f} m apart")
    return len(apart)
