"""What the batches of all modes consist of: matches, and clouds or chunks one after another.

Few tensors, because worker processes share each of them through a file descriptor.

Shapes: N matches, V voxels.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pri3d.pretrain.matches import MIN_MATCHES, VoxelMatches

COARSEST_VOXELS = 16  # edge of a cell of the 3D network's coarsest grid, in voxels


class Matches(NamedTuple):
    """Rows of two tables of features that belong together, of several samples one after another.

    anchor_N, positive_N: int64. counts: number of matches of each sample; their sum is N.
    """

    anchor_N: Tensor
    positive_N: Tensor
    counts: list[int]


class VoxelBatch(NamedTuple):
    """The voxels of several clouds or chunks, one after another.

    voxel_V3: int32. color_V3: float32 in 0..1. counts: number of voxels of each, whose sum is V.
    matches: anchors are cells (or pixels) of the batch of images, positives are rows of voxel_V3.
    """

    voxel_V3: Tensor
    color_V3: Tensor
    counts: list[int]
    matches: Matches


def collate_voxels(chunks: list[tuple[VoxelMatches, int]]) -> VoxelBatch:
    """Puts chunks one after another; with each comes the number added to its ids."""
    counts = [len(chunk.voxel_V3) for chunk, _ in chunks]
    first_row = np.cumsum([0, *counts])
    matches = [
        (chunk.id_N + first_id, chunk.row_N + row)
        for (chunk, first_id), row in zip(chunks, first_row)
    ]
    empty = np.zeros((0, 3))
    voxel_V3 = np.concatenate([chunk.voxel_V3 for chunk, _ in chunks] or [empty])
    color_V3 = np.concatenate([chunk.color_V3 for chunk, _ in chunks] or [empty])
    return VoxelBatch(
        voxel_V3=torch.from_numpy(voxel_V3.astype(np.int32, copy=False)),
        color_V3=torch.from_numpy(_as_shares(color_V3)),
        counts=counts,
        matches=collate_matches(matches),
    )


def collate_matches(matches: list[tuple[np.ndarray, np.ndarray]]) -> Matches:
    """Puts matches one after another; their rows already count through the batch."""
    none = np.zeros(0, np.int64)
    anchor_N = np.concatenate([anchor for anchor, _ in matches] or [none])
    positive_N = np.concatenate([positive for _, positive in matches] or [none])
    counts = [len(anchor) for anchor, _ in matches]
    return Matches(torch.from_numpy(anchor_N), torch.from_numpy(positive_N), counts)


def unusable(chunk: VoxelMatches) -> str | None:
    """Why nothing can be learned from a chunk or a cloud; None: it can be used."""
    if _within_one_cell(chunk.voxel_V3):
        return f"chunk within one cell of {COARSEST_VOXELS} voxels"
    if len(chunk.id_N) < MIN_MATCHES:
        return f"fewer than {MIN_MATCHES} matches"
    return None


def _within_one_cell(voxel_V3: np.ndarray) -> bool:
    """Whether the coarsest grid has one voxel only: batch norm needs two."""
    if not len(voxel_V3):
        return True
    # Voxels are sorted: nearly always, the last is in another cell than the first.
    first = voxel_V3[0] // COARSEST_VOXELS
    if (voxel_V3[-1] // COARSEST_VOXELS != first).any():
        return False
    return bool((voxel_V3 // COARSEST_VOXELS == first).all())


def _as_shares(color_V3: np.ndarray) -> np.ndarray:
    """Colors float32 in 0..1, from bytes or from such."""
    share_V3 = color_V3.astype(np.float32, copy=False)
    return share_V3 / np.float32(255) if color_V3.dtype == np.uint8 else share_V3
