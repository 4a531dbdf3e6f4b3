"""What the tasks on point clouds share."""

import torch
from torch import Tensor

COARSEST_VOXELS = 16  # edge of the coarsest cells of the sparse UNet, in voxels


def trainable_grid(voxel_V3: Tensor, counts: list[int]) -> bool:
    """Whether the coarsest grid has at least two cells, which batch norm needs in training.

    Args:
        voxel_V3: voxels of all clouds of a batch, one cloud after another.
        counts: number of voxels of each cloud.
    """
    if len(counts) != 1:
        return bool(counts)
    cells = torch.div(voxel_V3, COARSEST_VOXELS, rounding_mode="floor")
    return bool((cells != cells[:1]).any())
