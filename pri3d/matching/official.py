"""The overlap of the published preprocessing script, for comparison with published pair lists.

Each cloud is thinned to the mean point of every 5 cm voxel, and a point counts when the other
thinned cloud has one within 7.5 cm. Pri3D's release then takes the larger of the two directions;
the paper defines overlap otherwise (see `overlap`).
"""

import numpy as np
from scipy.spatial import cKDTree

VOXEL_M = 0.05
RADIUS_M = 0.075


def thin(points: np.ndarray, voxel: float = VOXEL_M) -> np.ndarray:
    """Mean point of every occupied voxel: float64 [M, 3] from [N, 3], metres.

    The grid starts half a voxel below the cloud's lowest corner, as open3d's down-sampling does.
    """
    points = np.asarray(points, np.float64)
    if len(points) == 0:
        return np.zeros((0, 3))
    cells = np.floor((points - (points.min(axis=0) - voxel / 2)) / voxel).astype(np.int64)
    extent = cells.max(axis=0) + 1
    keys = (cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]
    _, group, count = np.unique(keys, return_inverse=True, return_counts=True)
    sums = [np.bincount(group, weights=points[:, axis]) for axis in range(3)]
    return np.stack(sums, axis=1) / count[:, None]


def count_thinned_matches(
    clouds: list[np.ndarray], radius: float = RADIUS_M
) -> tuple[np.ndarray, np.ndarray]:
    """Points of each thinned cloud and, for all ordered pairs, those with a point of the other.

    clouds: world points [N, 3] of each frame, metres. Returns points u32 [F], matches u32 [F, F].
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
