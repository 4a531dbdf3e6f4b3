"""Sparse tensors: features on the occupied cells of an integer grid.

Shapes: N rows (occupied cells), C channels, 4 = batch index, x, y, z.

A cell is identified by its *key*, a number that is linear in the coordinates: the key of a neighbor
is the cell's key plus a constant, and sorted keys can be searched without a hash table.
Coordinates at stride s are multiples of s; finer ones, also negative ones, are rounded down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, Shaped
from torch import Tensor

AXIS_BITS = 17
# The largest offset that may be added to a coordinate: with a larger one, the key of a cell outside
# the grid could equal the key of another cell.
MAX_OFFSET = 2**12
MAX_COORDINATE = 2 ** (AXIS_BITS - 1) - MAX_OFFSET - 1
MAX_BATCH = 2**11


def key_of(coordinates_N4: Int[Tensor, "n 4"]) -> Int64[Tensor, " n"]:
    """Keys of (batch, x, y, z) rows, or key differences of offsets."""
    batch, x, y, z = coordinates_N4.long().unbind(1)
    return ((batch * 2**AXIS_BITS + x) * 2**AXIS_BITS + y) * 2**AXIS_BITS + z


def coordinates_of(keys_N: Int64[Tensor, " n"]) -> Int64[Tensor, "n 4"]:
    """Rows (batch, x, y, z) of keys; the inverse of `key_of`."""
    half, size = 2 ** (AXIS_BITS - 1), 2**AXIS_BITS
    columns = []
    for _ in range(3):
        column = (keys_N + half) % size - half
        columns.append(column)
        keys_N = (keys_N - column) // size
    x_y_z = columns[::-1]
    return torch.stack([keys_N, *x_y_z], dim=1)


@dataclass
class Level:
    """The cells of one stride. `keys` are sorted; `rows[i]` is the row of the cell `keys[i]`."""

    coordinates_N4: Int[Tensor, "n 4"]
    keys: Int64[Tensor, " n"]
    rows: Int64[Tensor, " n"]


@dataclass
class Cache:
    """Shared by all sparse tensors of one forward pass: levels by stride, and kernel maps."""

    levels: dict[int, Level] = field(default_factory=dict)
    # KernelMap by (stride, size, factor, dilation); engines add objects of their own.
    kernel_maps: dict[tuple[int | str, ...], Any] = field(default_factory=dict)


@dataclass
class SparseTensor:
    """Features on the occupied cells of an integer grid, in any order of rows.

    Layers pass the cache to their output, so that coordinates are sorted once and kernel maps are
    built once per forward pass.

    Attributes:
        coordinates: integers [N, 4]: batch index, x, y, z; multiples of the stride.
        features: [N, C].
        stride: of the grid, in cells of the finest grid.
        cache: levels and kernel maps.

    Raises:
        ValueError: shapes or types do not fit, a cell occurs twice (see `merge_duplicates`), a
            coordinate is beyond +-61,439 cells (1.2 km at 2 cm), or a batch index is outside
            0..2047.
    """

    coordinates: Tensor
    features: Tensor
    stride: int = 1
    cache: Cache = field(default_factory=Cache, repr=False)

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.coordinates.shape != (len(self.features), 4):
            raise ValueError(
                f"sparse tensor: coordinates {list(self.coordinates.shape)} and features "
                f"{list(self.features.shape)}; expected [N, 4] and [N, C]"
            )
        if self.stride not in self.cache.levels:
            self.cache.levels[self.stride] = _checked_level(self.coordinates, self.stride)

    def with_features(self, features_NC: Tensor) -> SparseTensor:
        """The same cells with other features."""
        return SparseTensor(self.coordinates, features_NC, self.stride, self.cache)

    def at_stride(self, stride: int, features_NC: Tensor) -> SparseTensor:
        """Features on another level of the same cache."""
        coordinates = self.cache.levels[stride].coordinates_N4
        return SparseTensor(coordinates, features_NC, stride, self.cache)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SparseTensor:
        """The tensor on a device; kernel maps are built there again."""
        cache = Cache()
        level = self.cache.levels[self.stride]
        cache.levels[self.stride] = Level(
            coordinates_N4=level.coordinates_N4.to(device, non_blocking=non_blocking),
            keys=level.keys.to(device, non_blocking=non_blocking),
            rows=level.rows.to(device, non_blocking=non_blocking),
        )
        return SparseTensor(
            cache.levels[self.stride].coordinates_N4,
            self.features.to(device, non_blocking=non_blocking),
            self.stride,
            cache,
        )


def collate(clouds: Sequence[tuple[Tensor | np.ndarray, Tensor | np.ndarray]]) -> SparseTensor:
    """Make one batch from several clouds.

    The order of rows is kept: the rows of cloud b follow those of cloud b - 1 and have batch index
    b.

    Args:
        clouds: (integer coordinates [N, 3], features [N, C]) of each cloud.

    Raises:
        ValueError: there are no clouds, or `SparseTensor` refuses the coordinates.
    """
    if not clouds:
        raise ValueError("collate: no clouds")
    coordinates, features = [], []
    for batch, (cells, features_NC) in enumerate(clouds):
        coordinates_N3 = torch.as_tensor(cells)
        if coordinates_N3.ndim != 2 or coordinates_N3.shape[1] != 3:
            raise ValueError(
                f"collate: cloud {batch} has coordinates of shape {list(coordinates_N3.shape)}; "
                "expected [N, 3]"
            )
        index_N1 = torch.full_like(coordinates_N3[:, :1], batch)
        coordinates.append(torch.cat([index_N1, coordinates_N3], dim=1))
        features.append(torch.as_tensor(features_NC))
    return SparseTensor(torch.cat(coordinates), torch.cat(features))


def collate_counted(
    voxel_V3: Int[Tensor, "voxels 3"],
    features_VC: Float[Tensor, "voxels channels"],
    counts: Sequence[int],
) -> SparseTensor:
    """Make one batch from concatenated clouds; counts: number of rows of each.

    Raises:
        ValueError: as `collate`.
    """
    sizes = list(counts)
    return collate(list(zip(voxel_V3.split(sizes), features_VC.split(sizes))))


def merge_duplicates(
    coordinates_N4: Int[Tensor, "n 4"], features_NC: Float[Tensor, "n channels"]
) -> tuple[
    Int[Tensor, "cells 4"],
    Float[Tensor, "cells channels"],
    Int64[Tensor, " cells"],
    Int64[Tensor, " n"],
]:
    """Average the features of rows that share a cell.

    Returns:
        coordinates of the cells, in the order in which they first occur; their mean features; the
        row where each cell first occurs; and the cell of each row.

    Raises:
        ValueError: the coordinates are not integers or out of range.
    """
    keys, sorted_cell = torch.unique(_checked_keys(coordinates_N4), return_inverse=True)
    n_rows, n_cells = len(sorted_cell), len(keys)
    rows = torch.arange(n_rows, device=keys.device)
    first = torch.full((n_cells,), n_rows, device=keys.device)
    first = first.scatter_reduce(0, sorted_cell, rows, "amin")
    first, order = first.sort()
    position = torch.empty_like(order)
    position[order] = torch.arange(n_cells, device=keys.device)
    cell = position[sorted_cell]
    total = features_NC.new_zeros(n_cells, features_NC.shape[1]).index_add_(0, cell, features_NC)
    count = torch.bincount(cell, minlength=n_cells).to(features_NC.dtype)
    return coordinates_N4[first], total / count[:, None], first, cell


def coarser_level(cache: Cache, stride: int, factor: int) -> Level:
    """The level at `stride * factor`; if it is new, its rows are in the order of their keys."""
    coarse = stride * factor
    if coarse not in cache.levels:
        fine_N4 = cache.levels[stride].coordinates_N4
        rounded_N4 = torch.div(fine_N4, coarse, rounding_mode="floor") * coarse
        rounded_N4[:, 0] = fine_N4[:, 0]
        keys = torch.unique(key_of(rounded_N4))
        coordinates_N4 = coordinates_of(keys).to(fine_N4.dtype)
        rows = torch.arange(len(keys), device=keys.device)
        cache.levels[coarse] = Level(coordinates_N4, keys, rows)
    return cache.levels[coarse]


def _checked_keys(coordinates_N4: Shaped[Tensor, "n 4"]) -> Int64[Tensor, " n"]:
    if coordinates_N4.dtype not in (torch.int16, torch.int32, torch.int64):
        raise ValueError(f"sparse tensor: {coordinates_N4.dtype} coordinates; expected integers")
    if len(coordinates_N4):
        batch, cells = coordinates_N4[:, 0], coordinates_N4[:, 1:]
        low, high = int(cells.min()), int(cells.max())
        if low < -MAX_COORDINATE or high > MAX_COORDINATE:
            raise ValueError(
                f"sparse tensor: coordinates reach from {low} to {high}; the limit is "
                f"+-{MAX_COORDINATE}"
            )
        low, high = int(batch.min()), int(batch.max())
        if low < 0 or high >= MAX_BATCH:
            raise ValueError(
                f"sparse tensor: batch indices reach from {low} to {high}; the limits are 0 and "
                f"{MAX_BATCH - 1}"
            )
    return key_of(coordinates_N4)


def _checked_level(coordinates_N4: Shaped[Tensor, "n 4"], stride: int) -> Level:
    if stride < 1 or bool((coordinates_N4[:, 1:] % stride).any()):
        raise ValueError(f"sparse tensor: coordinates are no multiples of the stride {stride}")
    keys, rows = _checked_keys(coordinates_N4).sort()
    twice = (keys[1:] == keys[:-1]).nonzero()
    if len(twice):
        row_a, row_b = sorted(int(row) for row in rows[int(twice[0]) : int(twice[0]) + 2])
        raise ValueError(
            f"sparse tensor: rows {row_a} and {row_b} are the same cell "
            f"{coordinates_N4[row_a].tolist()} ({len(twice)} such rows); merge them first"
        )
    return Level(coordinates_N4, keys, rows)
