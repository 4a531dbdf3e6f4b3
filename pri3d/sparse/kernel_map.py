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

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from pri3d.sparse.coordinates import MAX_OFFSET, Cache, Level, coarser_level, key_of

# On a CPU, pairs are worked off in blocks that keep all that is gathered and added up in its
# caches: those of so many cells next to each other, cut into parts of so many pairs.
BLOCK_CELLS = 2048
BLOCK_PAIRS = 4096


class Block(NamedTuple):
    """Pairs of rows for some offsets, one after the other; each has as many as `counts` says."""

    offsets: list[int]
    counts: list[int]
    near: Tensor
    far: Tensor


@dataclass
class KernelMap:
    """Rows that meet, one int32 tensor per kernel offset.

    Within one offset every row occurs at most once in `inputs[k]` and at most once in
    `outputs[k]`; both are in the order of their cells' keys. `identity` is the offset under which
    row i meets row i, or None; its tensors are left empty, for it needs no gathering. `mirrored`:
    the pairs of offset k are those of offset K - 1 - k, swapped.
    """

    inputs: list[Tensor]
    outputs: list[Tensor]
    n_inputs: int
    n_outputs: int
    identity: int | None
    mirrored: bool
    # Per offset, the number of pairs in every block; blocks, which are made when they are wanted.
    input_counts: list[list[int]]
    output_counts: list[list[int]]
    input_blocks: list[Block] = field(default_factory=list)
    output_blocks: list[Block] = field(default_factory=list)

    def transposed(self) -> KernelMap:
        """The map of the transposed convolution; both have the same blocks."""
        return KernelMap(
            self.outputs,
            self.inputs,
            self.n_outputs,
            self.n_inputs,
            self.identity,
            self.mirrored,
            self.output_counts,
            self.input_counts,
            self.output_blocks,
            self.input_blocks,
        )

    def blocks(self) -> list[Block]:
        """All pairs but those of `identity`: near are output rows, far are input rows."""
        if not self.output_blocks:
            if self.mirrored and self.input_blocks:
                last = len(self.inputs) - 1
                self.output_blocks += [
                    block._replace(offsets=[last - k for k in block.offsets])
                    for block in self.input_blocks
                ]
            else:
                self.output_blocks += self._new_blocks()
        return self.output_blocks

    def _new_blocks(self) -> Iterator[Block]:
        pairs = list(zip(self.outputs, self.inputs))
        if pairs[0][0].device.type != "cpu":  # there, few and large products are what is fast
            yield from (Block([k], [len(o)], o, i) for k, (o, i) in enumerate(pairs) if len(o))
            return
        near = zip(*(o.split(counts) for o, counts in zip(self.outputs, self.output_counts)))
        far = zip(*(i.split(counts) for i, counts in zip(self.inputs, self.output_counts)))
        for counts, near_K, far_K in zip(zip(*self.output_counts), near, far):
            offsets: list[int] = []
            total = 0
            for k, count in enumerate([*counts, BLOCK_PAIRS]):
                if offsets and total + count > BLOCK_PAIRS:
                    yield Block(
                        offsets,
                        [counts[i] for i in offsets],
                        torch.cat([near_K[i] for i in offsets]),
                        torch.cat([far_K[i] for i in offsets]),
                    )
                    offsets, total = [], 0
                if count:
                    offsets.append(k)
                    total += count


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
    source = cache.levels[in_stride]
    target = coarser_level(cache, in_stride, factor)
    offsets_K3 = kernel_offsets(size, dilation * in_stride)
    if int(offsets_K3.abs().max()) > MAX_OFFSET:
        raise ValueError(
            f"kernel map: size {size} and dilation {dilation} at stride {in_stride} reach beyond "
            f"{MAX_OFFSET} cells"
        )
    differences = key_of(torch.nn.functional.pad(offsets_K3, (1, 0))).tolist()

    n_offsets = len(differences)
    same_level = factor == 1
    mirrored = same_level and size % 2 == 1
    none = _pairs(source, target, source.rows[:0], source.rows[:0])
    pairs = [none] * n_offsets
    starts: dict[int, Tensor] = {}
    for k, difference in enumerate(differences):
        if same_level and difference == 0:
            continue
        if mirrored and k > n_offsets - 1 - k:
            inputs, outputs, input_counts, output_counts = pairs[n_offsets - 1 - k]
            pairs[k] = outputs, inputs, output_counts, input_counts
            continue
        start = starts.pop(k, None)
        inputs, outputs, following = _meetings(source, target, difference, start)
        pairs[k] = _pairs(source, target, inputs, outputs)
        if dilation == 1:
            # The next offset of this column of z is the next cell: nothing can lie in between.
            starts[k + size * size] = following
    inputs, outputs, input_counts, output_counts = map(list, zip(*pairs))
    return KernelMap(
        inputs,
        outputs,
        len(source.keys),
        len(target.keys),
        differences.index(0) if same_level else None,
        mirrored,
        input_counts,
        output_counts,
    )


def _meetings(
    source: Level, target: Level, difference: int, start: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, ascending, in the sorted keys: ``source key = target key + difference``.

    start: where each sought key would stand in the source, if that is known. Third: where the
    next larger ones stand.
    """
    if len(source.keys) == 0:
        return source.rows, source.rows, source.rows
    wanted = target.keys + difference
    if start is None:
        start = torch.searchsorted(source.keys, wanted)
    found = source.keys[start.clamp(max=len(source.keys) - 1)] == wanted
    hits = found.nonzero().squeeze(1)
    return start[hits], hits, start + found


def _pairs(
    source: Level, target: Level, inputs: Tensor, outputs: Tensor
) -> tuple[Tensor, Tensor, list[int], list[int]]:
    """Rows of positions, and how many of them lie in every block of the source and the target."""
    return (
        source.rows[inputs].int(),
        target.rows[outputs].int(),
        _count(inputs, len(source.keys)),
        _count(outputs, len(target.keys)),
    )


def _count(positions: Tensor, cells: int) -> list[int]:
    if positions.device.type != "cpu":
        return []
    ends = torch.arange(0, cells + BLOCK_CELLS, BLOCK_CELLS)
    return torch.searchsorted(positions, ends).diff().tolist()
