"""Kernel maps: for every offset of a convolution kernel, which input row meets which output row.

Conventions (those of MinkowskiEngine, so that its weights can be used as they are):

- Offsets are numbered with x fastest: ``index = x + size * y + size * size * z``.
- Odd sizes are centred; even sizes have offsets 0 .. size - 1. Offsets are multiplied by the
  dilation and by the stride of the input.
- A strided convolution has an output cell at ``floor(c / s) * s`` for every input cell c.
- Output row o and input row i meet in offset k where ``c_i = c_o + offset_k``. A transposed
  convolution uses the map of the strided convolution that it undoes, with the roles swapped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from pri3d.sparse.coordinates import MAX_OFFSET, Cache, Level, coarser_level, key_of

# On a CPU, pairs are worked off in groups that keep all that is read and added up in its caches:
# those of so many cells next to each other.
GROUP_CELLS = 2048


class Pairs(NamedTuple):
    """Rows that meet, all but those of the identity.

    near, far: int32 [P]. blocks_B3: int64 (offset, first pair, end), in the order of pairs; a row
    of `near` and one of `far` occur at most once in a block. groups: int64 [G + 1], where each
    group of blocks begins; groups share no row of `near`.
    """

    near: Tensor
    far: Tensor
    blocks_B3: np.ndarray
    groups: np.ndarray


@dataclass
class KernelMap:
    """What a convolution reads and writes.

    differences_K: an input cell's key less that of the output cell that it meets. `identity` is the
    offset under which row i meets row i, or None; `pairs` leaves it out, for it needs no gathering.
    `mirrored`: the pairs of offset k are those of offset K - 1 - k, swapped.
    """

    inputs: Level
    outputs: Level
    differences_K: np.ndarray
    identity: int | None
    mirrored: bool
    # What engines make of the map when they first want it: `pairs`, and tables of `engine_triton`.
    by_output: dict[str, tuple] = field(default_factory=dict)
    by_input: dict[str, tuple] = field(default_factory=dict)

    @property
    def n_inputs(self) -> int:
        """Rows."""
        return len(self.inputs.keys)

    @property
    def n_outputs(self) -> int:
        """Rows."""
        return len(self.outputs.keys)

    def transposed(self) -> KernelMap:
        """The map of the transposed convolution; both share their pairs."""
        return KernelMap(
            self.outputs,
            self.inputs,
            -self.differences_K,
            self.identity,
            self.mirrored,
            self.by_input,
            self.by_output,
        )

    def pairs(self) -> Pairs:
        """`near` are output rows, `far` are input rows."""
        if "pairs" not in self.by_output:
            if self.mirrored and "pairs" in self.by_input:
                pairs = self.by_input["pairs"]
                blocks_B3 = pairs.blocks_B3.copy()
                blocks_B3[:, 0] = len(self.differences_K) - 1 - blocks_B3[:, 0]
                self.by_output["pairs"] = pairs._replace(blocks_B3=blocks_B3)
            else:
                meet = _meet_cpu if self.outputs.keys.device.type == "cpu" else _meet
                skipped = -1 if self.identity is None else self.identity
                self.by_output["pairs"] = meet(
                    self.outputs, self.inputs, self.differences_K, skipped
                )
        return self.by_output["pairs"]


def kernel_offsets(size: int, dilation: int = 1) -> Tensor:
    """Offsets of a cubic kernel, int64 [size**3, 3] (x, y, z), in the order of its weights."""
    low = -(size // 2) if size % 2 else 0
    axis = torch.arange(low, low + size) * dilation
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([x, y, z], dim=-1).reshape(-1, 3)


def kernel_map(
    cache: Cache, in_stride: int, size: int, factor: int = 1, dilation: int = 1
) -> KernelMap:
    """The map from the level `in_stride` of a cache to the level `in_stride * factor`.

    The output level is made if it is not there yet; maps are kept in the cache. Raises ValueError
    if the kernel reaches further than `MAX_OFFSET` cells.
    """
    name = (in_stride, size, factor, dilation)
    if name not in cache.kernel_maps:
        cache.kernel_maps[name] = _build(cache, in_stride, size, factor, dilation)
    return cache.kernel_maps[name]


def _build(cache: Cache, in_stride: int, size: int, factor: int, dilation: int) -> KernelMap:
    offsets_K3 = kernel_offsets(size, dilation * in_stride)
    if int(offsets_K3.abs().max()) > MAX_OFFSET:
        raise ValueError(
            f"kernel map: size {size} and dilation {dilation} at stride {in_stride} reach beyond "
            f"{MAX_OFFSET} cells"
        )
    differences_K = key_of(torch.nn.functional.pad(offsets_K3, (1, 0))).numpy()
    same_level = factor == 1
    return KernelMap(
        cache.levels[in_stride],
        coarser_level(cache, in_stride, factor),
        differences_K,
        int(np.flatnonzero(differences_K == 0)[0]) if same_level else None,
        same_level and size % 2 == 1,
    )


def _meet(near: Level, far: Level, differences_K: np.ndarray, skipped: int) -> Pairs:
    """Pairs with ``far key = near key + difference``, on any device: one block an offset, which is
    what is fast where products should be few and large."""
    near_rows, far_rows, blocks, end = [near.rows[:0].int()], [far.rows[:0].int()], [], 0
    for k, difference in enumerate(differences_K.tolist()):
        if k == skipped or not len(far.keys):
            continue
        wanted = near.keys + difference
        place = torch.searchsorted(far.keys, wanted).clamp(max=len(far.keys) - 1)
        hits = (far.keys[place] == wanted).nonzero().squeeze(1)
        if len(hits):
            near_rows.append(near.rows[hits].int())
            far_rows.append(far.rows[place[hits]].int())
            blocks.append((k, end, end + len(hits)))
            end += len(hits)
    blocks_B3 = np.array(blocks, np.int64).reshape(-1, 3)
    groups = np.array([0, len(blocks)])
    return Pairs(torch.cat(near_rows), torch.cat(far_rows), blocks_B3, groups)


def _meet_cpu(near: Level, far: Level, differences_K: np.ndarray, skipped: int) -> Pairs:
    """The same pairs as `_meet`, in groups of `GROUP_CELLS` cells that lie next to each other."""
    levels = near.keys.numpy(), far.keys.numpy(), near.rows.numpy(), far.rows.numpy()
    near_P, far_P, counts_GK = _walk(*levels, differences_K, skipped, GROUP_CELLS)
    ends = counts_GK.cumsum()
    some = counts_GK.ravel() > 0
    offset = np.tile(np.arange(counts_GK.shape[1]), len(counts_GK))
    blocks_B3 = np.stack([offset, ends - counts_GK.ravel(), ends], axis=1)[some]
    groups = np.concatenate([[0], (counts_GK > 0).sum(axis=1).cumsum()])
    return Pairs(torch.from_numpy(near_P), torch.from_numpy(far_P), blocks_B3, groups)


@njit(cache=True, nogil=True)
def _walk(near_keys, far_keys, near_rows, far_rows, differences, skipped, group_cells):
    """Rows that meet, int32 [P] near and far, and how many of them each group of cells and offset
    has, int64 [G, K]. Both keys ascend, and are walked along."""
    n_groups = -(-len(near_keys) // group_cells)
    counts_GK = np.zeros((n_groups, len(differences)), np.int64)
    pairs = np.empty((2, 8 * len(near_keys)), np.int32)  # made larger where there are more
    p = 0
    for g in range(n_groups):
        first = g * group_cells
        end = min(first + group_cells, len(near_keys))
        for k in range(len(differences)):
            if k == skipped:
                continue
            if p + end - first > pairs.shape[1]:
                larger = np.empty((2, 2 * (p + end - first)), np.int32)
                larger[:, :p] = pairs[:, :p]
                pairs = larger
            before = p
            j = np.searchsorted(far_keys, near_keys[first] + differences[k])
            for i in range(first, end):
                wanted = near_keys[i] + differences[k]
                while j < len(far_keys) and far_keys[j] < wanted:
                    j += 1
                if j == len(far_keys):
                    break
                if far_keys[j] == wanted:
                    pairs[0, p], pairs[1, p] = near_rows[i], far_rows[j]
                    p += 1
            counts_GK[g, k] = p - before
    return pairs[0, :p].copy(), pairs[1, :p].copy(), counts_GK
