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

from dataclasses import dataclass

import torch
from torch import Tensor

from pri3d.sparse.coordinates import MAX_OFFSET, Cache, Level, coarser_level, key_of


@dataclass
class KernelMap:
    """Rows that meet, one int64 tensor per kernel offset.

    Within one offset every row occurs at most once in `inputs[k]` and at most once in
    `outputs[k]`. `identity` is the offset under which row i meets row i, or None; its tensors are
    left empty, for it needs no gathering.
    """

    inputs: list[Tensor]
    outputs: list[Tensor]
    n_inputs: int
    n_outputs: int
    identity: int | None

    def transposed(self) -> KernelMap:
        """The map of the transposed convolution."""
        return KernelMap(self.outputs, self.inputs, self.n_outputs, self.n_inputs, self.identity)


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
    none = source.rows[:0]
    inputs, outputs = [none] * n_offsets, [none] * n_offsets
    same_level = factor == 1
    for k, difference in enumerate(differences):
        mirror = n_offsets - 1 - k
        if same_level and difference == 0:
            continue
        if same_level and size % 2 and k > mirror:
            inputs[k], outputs[k] = outputs[mirror], inputs[mirror]
            continue
        inputs[k], outputs[k] = _meetings(source, target, difference)
    identity = differences.index(0) if same_level else None
    return KernelMap(inputs, outputs, len(source.keys), len(target.keys), identity)


def _meetings(source: Level, target: Level, difference: int) -> tuple[Tensor, Tensor]:
    """Rows of source and target with ``source key = target key + difference``."""
    if len(source.keys) == 0:
        return source.rows, source.rows
    wanted = target.keys + difference
    position = torch.searchsorted(source.keys, wanted).clamp_(max=len(source.keys) - 1)
    hits = (source.keys[position] == wanted).nonzero().squeeze(1)
    return source.rows[position[hits]], target.rows[hits]
