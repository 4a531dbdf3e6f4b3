"""Features of the voxels of a batch of clouds or chunks.

Shapes: V voxels, C channels.
"""

from torch import Tensor, nn

from pri3d.pretrain.batches import VoxelBatch
from pri3d.sparse.coordinates import SparseTensor, collate_counted


def sparse_tensor(voxels: VoxelBatch) -> SparseTensor:
    """The voxels and their colors, with a batch index for each cloud."""
    return collate_counted(voxels.voxel_V3, voxels.color_V3, voxels.counts)


def voxel_features(backbone3d: nn.Module, voxels: VoxelBatch) -> Tensor:
    """Features of every voxel, float32 [V, C], in the given order."""
    return backbone3d(sparse_tensor(voxels)).features
