"""Kernel maps: for every offset of a convolution kernel, the pairs of input and output rows.

Conventions (those of MinkowskiEngine, so that its weights can be used unchanged):

- Offsets are numbered with x fastest: ``index = x + size * y + size * size * z``.
- Odd sizes are centered; even sizes have offsets 0 .. size - 1. Offsets are multiplied by the
  dilation and by the stride of the input.
- A strided convolution has an output cell at ``floor(c / s) * s`` for every input cell c.
- Output row o and input row i are a pair of offset k if ``c_i = c_o + offset_k``. A transposed
  convolution uses the map of the strided convolution that it inverts, with the roles swapped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int32, Int64
from numba import njit
from torch import Tensor

from pri3d.sparse.coordinates import MAX_OFFSET, Cache, Level, coarser_level, key_of

# On a CPU, pairs are processed in groups of this number of adjacent cells, whose features and sums
# stay in its caches.
GROUP_CELLS = 2048


class Pairs(NamedTuple):
    """The pairs of a kernel map, except those of the identity.

    Attributes:
        near, far: rows of each pair, in the level that is written and the one that is read.
        blocks_B3: offset, first pair and end of each block, in the order of pairs; a row of `near`
            and a row of `far` occur at most once per block.
        groups: first block of each group, and the end; groups share no row of `near`.
    """

    near: Int32[Tensor, " pairs"]
    far: Int32[Tensor, " pairs"]
    blocks_B3: Int64[np.ndarray, "blocks 3"]
    groups: Int64[np.ndarray, " groups+1"]


@dataclass
class KernelMap:
    """The pairs of rows that a convolution reads and writes.

    Attributes:
        inputs, outputs: cells.
        differences_K: key of the input cell minus key of the output cell, for each offset.
        identity: the offset that pairs row i with row i, or None; `pairs` omits it because it needs
            no gathering.
        mirrored: the pairs of offset k are those of offset K - 1 - k, swapped.
        by_output, by_input: `pairs`, and tables of `engine_triton`, computed at first use.
    """

    inputs: Level
    outputs: Level
    differences_K: np.ndarray
    identity: int | None
    mirrored: bool
    by_output: dict[str, Any] = field(default_factory=dict)
    by_input: dict[str, Any] = field(default_factory=dict)

    @property
    def n_inputs(self) -> int:
        """Number of input rows."""
        return len(self.inputs.keys)

    @property
    def n_outputs(self) -> int:
        """Number of output rows."""
        return len(self.outputs.keys)

    def transposed(self) -> KernelMap:
        """The map of the transposed convolution; both share their pairs."""
        return KernelMap(
            inputs=self.outputs,
            outputs=self.inputs,
            differences_K=-self.differences_K,
            identity=self.identity,
            mirrored=self.mirrored,
            by_output=self.by_input,
            by_input=self.by_output,
        )

    def pairs(self) -> Pairs:
        """Pairs whose `near` rows are outputs and whose `far` rows are inputs."""
        if "pairs" not in self.by_output:
            if self.mirrored and "pairs" in self.by_input:
                pairs = self.by_input["pairs"]
                blocks_B3 = pairs.blocks_B3.copy()
                blocks_B3[:, 0] = len(self.differences_K) - 1 - blocks_B3[:, 0]
                self.by_output["pairs"] = pairs._replace(blocks_B3=blocks_B3)
            else:
                on_cpu = self.outputs.keys.device.type == "cpu"
                find = _find_pairs_cpu if on_cpu else _find_pairs
                skipped = -1 if self.identity is None else self.identity
                self.by_output["pairs"] = find(
                    self.outputs, self.inputs, self.differences_K, skipped
                )
        pairs_by_output: Pairs = self.by_output["pairs"]
        return pairs_by_output


def kernel_offsets(size: int, dilation: int = 1) -> Int64[Tensor, "{size}**3 3"]:
    """Offsets (x, y, z) of a cubic kernel, in the order of its weights."""
    low = -(size // 2) if size % 2 else 0
    axis = torch.arange(low, low + size) * dilation
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([x, y, z], dim=-1).reshape(-1, 3)


def kernel_map(
    cache: Cache, in_stride: int, size: int, factor: int = 1, dilation: int = 1
) -> KernelMap:
    """The map from the level `in_stride` of a cache to the level `in_stride * factor`.

    The output level and the map are added to the cache if they are new.

    Raises:
        ValueError: the kernel extends beyond `MAX_OFFSET` cells.
    """
    name = (in_stride, size, factor, dilation)
    if name not in cache.kernel_maps:
        cache.kernel_maps[name] = _build(cache, in_stride, size, factor, dilation)
    cached: KernelMap = cache.kernel_maps[name]
    return cached


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
        inputs=cache.levels[in_stride],
        outputs=coarser_level(cache, in_stride, factor),
        differences_K=differences_K,
        identity=int(np.flatnonzero(differences_K == 0)[0]) if same_level else None,
        mirrored=same_level and size % 2 == 1,
    )


def _find_pairs(
    near: Level, far: Level, differences_K: Int64[np.ndarray, " offsets"], skipped: int
) -> Pairs:
    """Pairs with ``far key = near key + difference``, on any device.

    One block per offset: few, large products are fast on a GPU.
    """
    near_rows, far_rows, blocks, end = [near.rows[:0].int()], [far.rows[:0].int()], [], 0
    for k, difference in enumerate(differences_K.tolist()):
        if k == skipped or not len(far.keys):
            continue
        wanted = near.keys + difference
        position = torch.searchsorted(far.keys, wanted).clamp(max=len(far.keys) - 1)
        hits = (far.keys[position] == wanted).nonzero().squeeze(1)
        if len(hits):
            near_rows.append(near.rows[hits].int())
            far_rows.append(far.rows[position[hits]].int())
            blocks.append((k, end, end + len(hits)))
            end += len(hits)
    blocks_B3 = np.array(blocks, np.int64).reshape(-1, 3)
    groups = np.array([0, len(blocks)])
    return Pairs(torch.cat(near_rows), torch.cat(far_rows), blocks_B3, groups)


def _find_pairs_cpu(
    near: Level, far: Level, differences_K: Int64[np.ndarray, " offsets"], skipped: int
) -> Pairs:
    """The same pairs as `_find_pairs`, in groups of `GROUP_CELLS` adjacent cells."""
    near_P, far_P, counts_GK = _walk(
        near.keys.numpy(),
        far.keys.numpy(),
        near.rows.numpy(),
        far.rows.numpy(),
        differences_K,
        skipped,
        GROUP_CELLS,
    )
    ends = counts_GK.cumsum()
    some = counts_GK.ravel() > 0
    offset = np.tile(np.arange(counts_GK.shape[1]), len(counts_GK))
    blocks_B3 = np.stack([offset, ends - counts_GK.ravel(), ends], axis=1)[some]
    groups = np.concatenate([[0], (counts_GK > 0).sum(axis=1).cumsum()])
    return Pairs(torch.from_numpy(near_P), torch.from_numpy(far_P), blocks_B3, groups)


@njit(cache=True, nogil=True)
def _walk(near_keys, far_keys, near_rows, far_rows, differences, skipped, group_cells):
    """Walk along both ascending lists of keys to find pairs.

    Returns near and far rows, int32 [P], and the number of pairs per group of cells and offset,
    int64 [G, K].
    """
    n_groups = -(-len(near_keys) // group_cells)
    counts_GK = np.zeros((n_groups, len(differences)), np.int64)
    pairs = np.empty((2, 8 * len(near_keys)), np.int32)  # enlarged if there are more
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
