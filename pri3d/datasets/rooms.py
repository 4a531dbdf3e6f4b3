"""Labelled clouds: ScanNet's surfaces and S3DIS's rooms, read from the files that are published.

A split has `frames` (name and scene of each cloud), `classes`, `problems` (what was left out or
repaired, and why), and reads one cloud by its position:

    cloud(i)               `Cloud`

Reading one that is damaged raises Pri3DError with one sentence; the others stay usable.

Shapes: N points.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pri3d.errors import Pri3DError


class Cloud(NamedTuple):
    """points float64 [N, 3] metres, z up; color u8 [N, 3]; label u8 [N]: 0 where nothing is
    annotated, k for the k-th class. notes: what was repaired, dropped or counted as nothing, a
    sentence each.
    """

    points: np.ndarray
    color: np.ndarray
    label: np.ndarray
    notes: list[str]


MOST_M = 500.0  # from end to end; larger clouds are of damaged numbers


def check_extent(points_N3: np.ndarray, where: str) -> None:
    """Pri3DError where a cloud has no finite point, or reaches too far for voxels to be counted."""
    finite = points_N3[np.isfinite(points_N3).all(axis=1)]
    if not len(finite):
        raise Pri3DError(f"{where}: has no point; fetch it again")
    extent = (finite.max(axis=0) - finite.min(axis=0)).max()
    if extent > MOST_M or np.abs(finite).max() > 1e6:
        raise Pri3DError(
            f"{where}: reaches over {extent:.0f} m, more than {MOST_M:.0f}; fetch it again"
        )


def open_rooms(name: str, root: str | Path, split: str):
    """A split ("train", "val", of ScanNet "test") of the data set in the folder `root`.

    scannet3d: scans with `_vh_clean_2.ply` and their labels; s3dis: the folder with Area_1 to
    Area_6. Raises Pri3DError when it is not there.
    """
    from pri3d.datasets.s3dis import S3DIS
    from pri3d.datasets.scannet3d import ScanNet3D

    root = Path(root)
    if not root.is_dir():
        raise Pri3DError(f"{root}: no such folder; set datasets.{name} to where the data set is")
    return S3DIS(root, split) if name == "s3dis" else ScanNet3D(root, split)
