"""Geometric augmentation: crops, mirror images and turned chunks, with all that has to follow.

A crop or a mirror image is another colour camera that sees the same scene, so that matches and
depth are right by themselves: they go through its intrinsics.

Shapes: H x W pixels, N matches, V voxels.
"""

import numpy as np

from pri3d import geometry
from pri3d.matching.voxels import unique_voxels
from pri3d.pretrain.matches import Chunk
from pri3d.transforms.crop import Crop


def crop_intrinsics(color_K: np.ndarray, placement: Crop, shape: tuple[int, int]) -> np.ndarray:
    """Intrinsics of the network's input of (height, width); a mirror image has a negative fx."""
    K = np.array(color_K, np.float64)
    K[0, 2] -= placement.left
    K[1, 2] -= placement.top
    K = geometry.scale_intrinsics(K, (placement.height, placement.width), shape)
    if placement.mirrored:
        K[0, 0], K[0, 2] = -K[0, 0], shape[1] - 1 - K[0, 2]
    return K


def turn(chunk: Chunk, angle: float) -> Chunk:
    """A chunk turned about the world's z axis (up, in ScanNet) by an angle in radians.

    The centres of the voxels are turned and put into the grid anew. Of several in one voxel the
    first remains, and of their matches the first.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    x, y, z = (chunk.voxel_V3 + 0.5).T
    turned_V3 = np.floor(np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=1))
    first, of_row = unique_voxels(turned_V3.astype(np.int64))
    row_N = of_row[chunk.row_N]
    _, kept = np.unique(row_N, return_index=True)
    kept.sort()
    return Chunk(
        turned_V3[first].astype(np.int32),
        chunk.color_V3[first],
        chunk.cell_N[kept],
        row_N[kept],
    )
