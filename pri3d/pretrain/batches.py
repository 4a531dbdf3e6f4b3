"""Batches: the samples of a step put together, with few tensors for workers to share.

Shapes: B pairs, N matches, V voxels, C = 3 channels, H x W pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pri3d.pretrain.matches import CELL, Chunk


class Sample(NamedTuple):
    """One pair. LossTerm of the loss that cannot be formed are None, with the reason in `skipped`.

    depths: of the two images, float32 [H, W] metres, where depth is to be predicted.
    """

    name: str
    images: tuple[Tensor, Tensor] | None
    view: tuple[np.ndarray, np.ndarray] | None
    chunks: tuple[Chunk | None, Chunk | None]
    skipped: list[str]
    depths: tuple[Tensor, Tensor] | None = None


class Matches(NamedTuple):
    """Rows of two feature tables that belong together, of several samples one after another.

    counts: matches of each sample; their sum is N.
    """

    anchor_N: Tensor
    positive_N: Tensor
    counts: list[int]


class Side(NamedTuple):
    """Chunks of the first or of the second frames; counts: voxels of each chunk, their sum is V.

    matches: anchors are cells of the batch, positives are voxels of the batch.
    """

    voxel_V3: Tensor
    color_V3: Tensor
    counts: list[int]
    matches: Matches


class Batch(NamedTuple):
    """Pairs of one step. Cells are numbered through the batch: image * cells of an image + cell.

    A pair without any usable term is not among them. names, skipped: of all pairs of the step.
    depth_a_BHW, depth_b_BHW: metres in each input pixel, 0 = no value; None where not asked for.
    """

    names: list[str]
    image_a_BCHW: Tensor
    image_b_BCHW: Tensor
    view: Matches
    side_a: Side
    side_b: Side
    skipped: list[str]
    depth_a_BHW: Tensor | None = None
    depth_b_BHW: Tensor | None = None


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of the samples of a step."""
    used = [s for s in samples if s.view is not None or any(c is not None for c in s.chunks)]
    images = [
        torch.stack([s.images[side] for s in used]) if used else torch.zeros(0, 3, 0, 0)
        for side in (0, 1)
    ]
    height, width = images[0].shape[-2:]
    first_cell = [i * (height // CELL) * (width // CELL) for i in range(len(used))]
    view = [
        (s.view[0] + start, s.view[1] + start)
        for s, start in zip(used, first_cell)
        if s.view is not None
    ]
    sides = []
    for side in (0, 1):
        chunks = [(s.chunks[side], start) for s, start in zip(used, first_cell)]
        sides.append(collate_side([(c, start) for c, start in chunks if c is not None]))
    with_depth = bool(used) and used[0].depths is not None
    depths = [
        torch.stack([s.depths[side] for s in used]) if with_depth else None for side in (0, 1)
    ]
    return Batch(
        [s.name for s in samples],
        *images,
        collate_matches(view),
        *sides,
        [reason for s in samples for reason in s.skipped],
        *depths,
    )


def collate_side(chunks: list[tuple[Chunk, int]]) -> Side:
    """Chunks of several frames one after another, each with the first anchor that is its own."""
    counts = [len(chunk.voxel_V3) for chunk, _ in chunks]
    first_row = np.cumsum([0, *counts])
    matches = [
        (chunk.cell_N + first_cell, chunk.row_N + row)
        for (chunk, first_cell), row in zip(chunks, first_row)
    ]
    empty = np.zeros((0, 3))
    voxel_V3 = np.concatenate([chunk.voxel_V3 for chunk, _ in chunks] or [empty])
    color_V3 = np.concatenate([chunk.color_V3 for chunk, _ in chunks] or [empty])
    return Side(
        torch.from_numpy(voxel_V3.astype(np.int32, copy=False)),
        torch.from_numpy(_as_shares(color_V3)),
        counts,
        collate_matches(matches),
    )


def _as_shares(color_V3: np.ndarray) -> np.ndarray:
    """Colours float32 in 0..1, of bytes or of such."""
    share_V3 = color_V3.astype(np.float32, copy=False)
    return share_V3 / np.float32(255) if color_V3.dtype == np.uint8 else share_V3


def collate_matches(matches: list[tuple[np.ndarray, np.ndarray]]) -> Matches:
    """Matches of several samples one after another; their rows already count through the batch."""
    none = np.zeros(0, np.int64)
    anchor_N = np.concatenate([anchor for anchor, _ in matches] or [none])
    positive_N = np.concatenate([positive for _, positive in matches] or [none])
    counts = [len(anchor) for anchor, _ in matches]
    return Matches(torch.from_numpy(anchor_N), torch.from_numpy(positive_N), counts)
