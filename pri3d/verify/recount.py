"""Matches between two frames, counted anew and looked at one by one."""

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

_PIXELS = 2000  # asked for their correspondences in each pair


def world_points(clouds: Clouds, row: int) -> np.ndarray:
    """float64 [N, 3], in row order of the image."""
    view = clouds.view(row)
    points, valid = geometry.unproject(view.depth, view.K)
    return geometry.transform(view.world_from_camera, points[valid])


def recount(clouds: Clouds, a: int, b: int, rule: str, radius: float) -> int:
    """Points of frame row a with a point of frame row b closer than the radius, by a KD-tree."""
    if rule == "official":
        points_a, points_b = official.thin(clouds.cloud(a)), official.thin(clouds.cloud(b))
        radius = official.RADIUS_M
    else:
        points_a, points_b = world_points(clouds, a), world_points(clouds, b)
    distance, _ = cKDTree(points_b).query(points_a, distance_upper_bound=radius * 1.01)
    return int((distance < radius).sum())


def recount_all(clouds: Clouds, rule: str, radius: float) -> np.ndarray:
    """The matches of all ordered pairs of frames, [F, F]."""
    if rule == "official":
        return official.count_thinned_matches([clouds.cloud(row) for row in range(len(clouds))])[1]
    return count_matches([clouds.view(row) for row in range(len(clouds))], radius)


def agrees(matches: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Within two points or 1e-4 of the true count."""
    matches, true = np.asarray(matches, np.int64), np.asarray(true, np.int64)
    return np.abs(matches - true) <= np.maximum(2, 1e-4 * true)


def check_correspondences(
    path: Path, where: str, clouds: Clouds, a: int, b: int, radius: float
) -> int:
    """Sampled pixels and their matches are closer than the radius in the world; how many."""
    views = clouds.view(a), clouds.view(b)
    pixels = np.argwhere(views[0].depth > 0)
    pixels_a, pixels_b, distance = nearest(
        *views, radius, pixels[evenly_spaced(len(pixels), _PIXELS)]
    )
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
