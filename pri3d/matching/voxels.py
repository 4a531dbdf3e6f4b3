"""Voxels of a surface, and the nearest of them to any point.

A voxel has three integer coordinates, floor(p / voxel_m); its center is (v + 0.5) * voxel_m. The
look-up is a binary search among the sorted voxels, as chunks store them: it visits the columns of
cells around a point whose centers can be closer than the radius, and compares the true distances
to their centers (Pri3D, Hou et al. 2021, section 3.2: a pixel corresponds to an occupied voxel
within 2 cm of its world point).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Int32, Int64, Integer, Real, UInt8, UInt32
from numba import njit

from pri3d.errors import Pri3DError

_BITS = 21  # bits per axis in a key
_LIMIT = 1 << (_BITS - 1)  # voxel coordinates lie in [-_LIMIT, _LIMIT): 20 km each way at 2 cm
NEAR = 1 << 15  # voxels; the limit of sparse tensors is almost twice as far


class VoxelTable(NamedTuple):
    """Voxels in order: `keys`, which sort as (x, y, z), and the row that each voxel came from."""

    keys: Int64[np.ndarray, " voxels"]
    rows: Int64[np.ndarray, " voxels"]


def voxelize(
    points: Real[np.ndarray, "n 3"], color: UInt8[np.ndarray, "n 3"], voxel_m: float
) -> tuple[Int32[np.ndarray, "voxels 3"], UInt8[np.ndarray, "voxels 3"]]:
    """Compute the occupied voxels of a point set and their mean colors.

    The order of the points does not matter.

    Args:
        points: meters, finite.
        color: RGB of the points.
        voxel_m: edge of a voxel, meters.

    Returns:
        Voxels, unique and sorted by x, then y, then z, and their mean colors, rounded to nearest
        (halves up).

    Raises:
        Pri3DError: a point is more than 2^20 voxels from the origin on an axis.
    """
    cells = np.floor(np.asarray(points, np.float64) / voxel_m)
    _check_range(cells)
    keys, inverse, count = np.unique(
        _pack(cells.astype(np.int64)), return_inverse=True, return_counts=True
    )
    mean = np.empty((len(keys), 3), np.uint8)
    for channel in range(3):  # sums of bytes are exact in float64, in any order
        total = np.bincount(inverse, color[:, channel], minlength=len(keys)).astype(np.int64)
        mean[:, channel] = (2 * total + count) // (2 * count)
    mask = (1 << _BITS) - 1
    axes = [(keys >> (_BITS * axis) & mask) - _LIMIT for axis in (2, 1, 0)]
    return np.stack(axes, axis=1).astype(np.int32), mean


def build_table(voxel: Integer[np.ndarray, "voxels 3"]) -> VoxelTable:
    """Build the look-up table of voxels; of equal voxels, the lowest row is kept.

    Raises:
        Pri3DError: a coordinate is outside [-2^20, 2^20).
    """
    voxel = np.asarray(voxel).reshape(-1, 3)
    if not _pack_all(np.ascontiguousarray(voxel), keys := np.empty(len(voxel), np.int64)):
        _check_range(voxel)
    if (keys[1:] > keys[:-1]).all():
        return VoxelTable(keys, np.arange(len(keys)))
    return VoxelTable(*np.unique(keys, return_index=True))


def nearest_voxel(
    table: VoxelTable, points: Real[np.ndarray, "n 3"], voxel_m: float, radius: float
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Find the occupied voxel whose center is nearest to each point and closer than the radius.

    Args:
        table: the voxels.
        points: meters; a point that is not finite has no voxel.
        voxel_m: edge of a voxel, meters.
        radius: meters.

    Returns:
        Rows of the voxels (-1 without a voxel; of equally near voxels, the lowest row) and
        distances in meters (inf without a voxel).
    """
    points = np.ascontiguousarray(points, np.float64).reshape(-1, 3)
    rows = np.empty(len(points), np.int64)
    distance = np.empty(len(points))
    _nearest(*table, points, float(voxel_m), float(radius), rows, distance)
    return rows, distance


def unique_voxels(
    voxel: Integer[np.ndarray, "voxels 3"],
) -> tuple[Int64[np.ndarray, " unique"], Int64[np.ndarray, " voxels"]]:
    """Find the unique voxels, sorted by x, then y, then z.

    Returns:
        The row where each unique voxel first occurs, and the position of each row among them.

    Raises:
        Pri3DError: a coordinate is outside [-2^20, 2^20).
    """
    _check_range(voxel)
    keys = _pack(np.asarray(voxel, np.int64))
    _, first, of_row = np.unique(keys, return_index=True, return_inverse=True)
    return first, of_row


def shift_to_origin(
    voxel: Int[np.ndarray, "voxels 3"], stride: int = 16
) -> Int[np.ndarray, "voxels 3"]:
    """Shift a cloud that is far from the origin (`NEAR`), such as one in site coordinates.

    The shift is a multiple of `stride`, so that voxels share the same cells at all strides that
    divide it; the lowest voxels then lie in 0 .. stride - 1.
    """
    if not len(voxel) or np.abs(voxel).max() < NEAR:
        return voxel
    return voxel - voxel.min(axis=0) // stride * stride


def rows_in_box(
    axes: list[Integer[np.ndarray, " voxels"]], box: Integer[np.ndarray, "2 3"]
) -> UInt32[np.ndarray, " rows"]:
    """Find the voxels in a box, in ascending order of rows.

    Args:
        axes: x, y and z of the voxels, which are sorted by x.
        box: min and max voxel, both inside.
    """
    x, y, z = axes
    start, stop = np.searchsorted(x, box[0, 0]), np.searchsorted(x, box[1, 0], side="right")
    y, z = y[start:stop], z[start:stop]
    inside = (y >= box[0, 1]) & (y <= box[1, 1]) & (z >= box[0, 2]) & (z <= box[1, 2])
    return (np.flatnonzero(inside) + start).astype(np.uint32)


def _check_range(cells: np.ndarray) -> None:
    outside = ~((cells >= -_LIMIT) & (cells < _LIMIT)).all(axis=1)  # not (...): NaN is outside
    if outside.any():
        row = int(outside.argmax())
        raise Pri3DError(
            f"surface point {row}: its voxel {tuple(cells[row].tolist())} is outside "
            f"+-{_LIMIT} voxels; check the surface's unit "
            "(metres) or take larger voxels"  # stored text
        )


def _pack(voxel: np.ndarray) -> np.ndarray:
    """Keys int64 of voxels, which sort as (x, y, z)."""
    x, y, z = (voxel + _LIMIT).T
    return (x << 2 * _BITS) | (y << _BITS) | z


@njit(cache=True, nogil=True)
def _pack_all(voxel, keys):
    """`_pack` without temporary arrays; false if a coordinate is out of range."""
    for row in range(len(voxel)):
        x, y, z = (np.int64(voxel[row, 0]), np.int64(voxel[row, 1]), np.int64(voxel[row, 2]))
        if min(x, y, z) < -_LIMIT or max(x, y, z) >= _LIMIT:
            return False
        keys[row] = _key(x, y, z)
    return True


@njit(cache=True, nogil=True)
def _key(x, y, z):
    return ((x + _LIMIT) << 2 * _BITS) | ((y + _LIMIT) << _BITS) | (z + _LIMIT)


@njit(cache=True, nogil=True)
def _first_from(keys, start, stop, key):
    """Position of the first of keys[start:stop] that is not below key."""
    while start < stop:
        middle = (start + stop) >> 1
        if keys[middle] < key:
            start = middle + 1
        else:
            stop = middle
    return start


@njit(cache=True, nogil=True)
def _cells(u, reach):
    """First and last cell along an axis whose center is within reach of u, all in voxels."""
    low = max(np.int64(np.ceil(u - reach - 0.5)), -_LIMIT)
    high = min(np.int64(np.floor(u + reach - 0.5)), _LIMIT - 1)
    return low, high


@njit(cache=True, nogil=True)
def _nearest(keys, row_of, points, voxel_m, radius, rows, distance):
    # The slack keeps candidates that rounding might exclude; the test itself is exact.
    slack = 1 + 1e-12
    reach = radius / voxel_m * slack + 1e-9
    for i in range(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        u, v, w = x / voxel_m, y / voxel_m, z / voxel_m
        rows[i], distance[i] = -1, np.inf
        far = _LIMIT + reach
        if not (abs(u) < far and abs(v) < far and abs(w) < far):
            continue
        x_low, x_high = _cells(u, reach)
        y_low, y_high = _cells(v, reach)
        z_low, z_high = _cells(w, reach)
        best_row, best = np.int64(-1), np.inf
        bound = radius * radius * slack
        for cx in range(x_low, x_high + 1):
            dx = x - (cx + 0.5) * voxel_m
            # A slab of voxels with this x, in which each column is a run.
            position, end = np.int64(-1), np.int64(len(keys))
            for cy in range(y_low, y_high + 1):
                dy = y - (cy + 0.5) * voxel_m
                if dx * dx + dy * dy > bound:
                    continue
                if position < 0:
                    position = _first_from(keys, 0, end, _key(cx, cy, z_low))
                    end = _first_from(keys, position, end, _key(cx, y_high, z_high) + 1)
                else:
                    position = _first_from(keys, position, end, _key(cx, cy, z_low))
                last = _key(cx, cy, z_high)
                while position < end and keys[position] <= last:
                    cz = (keys[position] & ((1 << _BITS) - 1)) - _LIMIT
                    dz = z - (cz + 0.5) * voxel_m
                    square = dx * dx + dy * dy + dz * dz
                    if square <= bound:
                        row, d = row_of[position], np.sqrt(square)
                        if d < radius and (d < best or (d == best and row < best_row)):
                            best_row, best, bound = row, d, square * slack
                    position += 1
        rows[i], distance[i] = best_row, best
