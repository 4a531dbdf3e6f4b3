"""Labeled point clouds: the record of one, and a check of its extent.

Shapes: N points.
"""

from typing import NamedTuple

import numpy as np

from pri3d.errors import Pri3DError

MAX_EXTENT_M = 500.0  # a larger cloud has damaged coordinates
MAX_COORDINATE_M = 1e6


class LabeledCloud(NamedTuple):
    """A point cloud with a class for each point.

    points: float64 [N, 3], meters, z up; color: u8 [N, 3]; label: u8 [N], k for the k-th class, 0
    where nothing is annotated. notes: what was repaired, dropped or ignored, one sentence each.
    """

    points: np.ndarray
    color: np.ndarray
    label: np.ndarray
    notes: list[str]


def check_extent(points_N3: np.ndarray, source: str) -> None:
    """Check that a cloud has finite points and is small enough for its voxels to be counted.

    Args:
        points_N3: meters.
        source: where they come from, for messages.

    Raises:
        Pri3DError: no point is finite, or the cloud is too large.
    """
    finite = points_N3[np.isfinite(points_N3).all(axis=1)]
    if not len(finite):
        raise Pri3DError(f"{source}: has no points; download it again")
    extent = (finite.max(axis=0) - finite.min(axis=0)).max()
    if extent > MAX_EXTENT_M or np.abs(finite).max() > MAX_COORDINATE_M:
        raise Pri3DError(
            f"{source}: extends over {extent:.0f} m, more than {MAX_EXTENT_M:.0f} m; download it "
            "again"
        )
