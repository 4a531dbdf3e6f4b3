"""Geometric augmentation of chunks: rotation. Crops of images are in `pri3d.transforms.crop`.

Shapes: N matches, V voxels.
"""

import numpy as np

from pri3d.matching.voxels import unique_voxels
from pri3d.pretrain.matches import VoxelMatches


def rotate_chunk(chunk: VoxelMatches, angle: float) -> VoxelMatches:
    """A chunk rotated about the world's z axis (up, in ScanNet) by an angle in radians.

    The centers of the voxels are rotated and voxelized again. Of several in one voxel the first is
    kept, and of their matches the first.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    x, y, z = (chunk.voxel_V3 + 0.5).T
    rotated_V3 = np.floor(np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=1))
    first, of_row = unique_voxels(rotated_V3.astype(np.int64))
    row_N = of_row[chunk.row_N]
    _, kept = np.unique(row_N, return_index=True)
    kept.sort()
    return VoxelMatches(
        voxel_V3=rotated_V3[first].astype(np.int32),
        color_V3=chunk.color_V3[first],
        id_N=chunk.id_N[kept],
        row_N=row_N[kept],
    )
