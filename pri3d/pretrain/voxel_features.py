"""Features of the voxels of a batch of clouds or chunks.

Shapes: V voxels, C channels.
"""

from torch import Tensor, nn

from pri3d.pretrain.batches import Side
from pri3d.sparse.coordinates import SparseTensor, collate_counted


def sparse_tensor(side: Side) -> SparseTensor:
    """The voxels and their colors, with a batch index for each cloud."""
    return collate_counted(side.voxel_V3, side.color_V3, side.counts)


def voxel_features(backbone3d: nn.Module, side: Side) -> Tensor:
    """Features of every voxel, float32 [V, C], in the given order."""
    return backbone3d(sparse_tensor(side)).features
