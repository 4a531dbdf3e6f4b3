"""The overlap of the published preprocessing script, for comparison with published pair lists.

Each cloud is thinned to the mean point of every 5 cm voxel. A point matches if the other thinned
cloud has a point within 7.5 cm. Pri3D's release then takes the larger of the two directions; the
paper has another definition (see `overlap`).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Real, UInt32
from scipy.spatial import cKDTree

VOXEL_M = 0.05
RADIUS_M = 0.075


def thin(
    points: Real[np.ndarray, "n 3"], voxel_m: float = VOXEL_M
) -> Float[np.ndarray, "voxels 3"]:
    """Mean point (float64, meters) of every occupied voxel.

    The grid begins half a voxel below the cloud's lowest corner, as in open3d's down-sampling.
    """
    points = np.asarray(points, np.float64)
    if len(points) == 0:
        return np.zeros((0, 3))
    cells = np.floor((points - (points.min(axis=0) - voxel_m / 2)) / voxel_m).astype(np.int64)
    extent = cells.max(axis=0) + 1
    keys = (cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]
    _, group, count = np.unique(keys, return_inverse=True, return_counts=True)
    sums = [np.bincount(group, weights=points[:, axis]) for axis in range(3)]
    return np.stack(sums, axis=1) / count[:, None]


def count_thinned_matches(
    clouds: Sequence[Real[np.ndarray, "_ 3"]], radius: float = RADIUS_M
) -> tuple[UInt32[np.ndarray, " frames"], UInt32[np.ndarray, "frames frames"]]:
    """Count the points and the matches of thinned clouds, for all ordered pairs.

    Args:
        clouds: world points of each frame, meters.
        radius: meters.

    Returns:
        points: number of points of each thinned cloud.
        matches: number of points of cloud i (row) with a point of cloud j (column) closer than the
            radius; 0 on the diagonal.
    """
    thinned = [thin(cloud) for cloud in clouds]
    frames = len(thinned)
    matches = np.zeros((frames, frames), np.uint32)
    trees = [cKDTree(cloud) for cloud in thinned]
    for i, cloud in enumerate(thinned):
        for j, tree in enumerate(trees):
            if i != j and len(cloud) and tree.n:
                distance, _ = tree.query(cloud, distance_upper_bound=radius)
                matches[i, j] = np.count_nonzero(distance < radius)
    return np.array([len(cloud) for cloud in thinned], np.uint32), matches
