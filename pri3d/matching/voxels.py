"""Voxels of a surface, and the nearest of them to any point.

A voxel is named by three integers, floor(p / voxel_m); its centre is (v + 0.5) * voxel_m. The
look-up is a binary search among the sorted voxels, as chunks store them: a point asks the columns
of cells around it whose centres can be closer than the radius, and the true distance to a centre
decides (Pri3D, Hou et al. 2021, section 3.2: a pixel corresponds to an occupied voxel within 2 cm
of its world point).
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from pri3d.errors import Pri3DError

_BITS = 21  # of each axis in a key
_LIMIT = 1 << (_BITS - 1)  # voxel coordinates lie in [-_LIMIT, _LIMIT): 20 km each way at 2 cm
NEAR = 1 << 15  # cells; sparse tensors take twice as many


class VoxelTable(NamedTuple):
    """Voxels in order: their numbers `keys` int64 [V], and where each stood, `rows` int64 [V]."""

    keys: np.ndarray
    rows: np.ndarray


def voxelize(
    points: np.ndarray, color: np.ndarray, voxel_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """Occupied voxels of a point set with their mean colours.

    points: [N, 3] metres, finite; color: u8 [N, 3]. Returns voxel int32 [V, 3], unique and sorted
    by x, then y, then z, and color u8 [V, 3], the mean rounded to nearest (halves up). The order
    of the points does not matter. Raises Pri3DError where a point is too far out to be numbered.
    """
    cells = np.floor(np.asarray(points, np.float64) / voxel_m)
    _check_range(cells)
    keys, inverse, count = np.unique(
        _pack(cells.astype(np.int64)), return_inverse=True, return_counts=True
    )
    mean = np.empty((len(keys), 3), np.uint8)
    for channel in range(3):  # sums of bytes are exact in float64, so in any order the same
        total = np.bincount(inverse, color[:, channel], minlength=len(keys)).astype(np.int64)
        mean[:, channel] = (2 * total + count) // (2 * count)
    mask = (1 << _BITS) - 1
    axes = [(keys >> (_BITS * axis) & mask) - _LIMIT for axis in (2, 1, 0)]
    return np.stack(axes, axis=1).astype(np.int32), mean


def build_table(voxel: np.ndarray) -> VoxelTable:
    """The look-up table of voxel int [V, 3]; of equal voxels the lowest row counts.

    Raises Pri3DError for coordinates outside [-2^20, 2^20).
    """
    voxel = np.asarray(voxel).reshape(-1, 3)
    if not _pack_all(np.ascontiguousarray(voxel), keys := np.empty(len(voxel), np.int64)):
        _check_range(voxel)
    if (keys[1:] > keys[:-1]).all():
        return VoxelTable(keys, np.arange(len(keys)))
    return VoxelTable(*np.unique(keys, return_index=True))


def nearest_voxel(
    table: VoxelTable, points: np.ndarray, voxel_m: float, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """The occupied voxel whose centre is nearest to each point and closer than the radius.

    points: [n, 3] metres; voxel_m, radius: metres. Returns row int64 [n] (-1 = none; equally near:
    the lowest row) and distance float64 [n] in metres (inf = none). A point that is not finite has
    none.
    """
    points = np.ascontiguousarray(points, np.float64).reshape(-1, 3)
    rows = np.empty(len(points), np.int64)
    distance = np.empty(len(points))
    _nearest(*table, points, float(voxel_m), float(radius), rows, distance)
    return rows, distance


def unique_voxels(voxel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 [M] of the first of equal voxels, sorted by x, then y, then z, and for each row of
    voxel int [V, 3] the position among them, int64 [V].

    Raises Pri3DError for coordinates outside [-2^20, 2^20).
    """
    _check_range(voxel)
    keys = _pack(np.asarray(voxel, np.int64))
    _, first, of_row = np.unique(keys, return_index=True, return_inverse=True)
    return first, of_row


def shift_to_origin(voxel: np.ndarray, stride: int = 16) -> np.ndarray:
    """Voxels int64 [V, 3]; those of a cloud far from the origin, such as in the coordinates of a
    site, are moved as one, so that the lowest lie in 0..stride-1. Cells of all strides that divide
    `stride` stay the same cells.
    """
    if not len(voxel) or np.abs(voxel).max() < NEAR:
        return voxel
    return voxel - voxel.min(axis=0) // stride * stride


def rows_in_box(axes: list[np.ndarray], box: np.ndarray) -> np.ndarray:
    """Rows u32, ascending, of the voxels in a box [2, 3] of lowest and highest voxel, both inside.

    axes: x, y and z of the voxels, each [V]; they are sorted by x, so x is a range.
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
            f"+-{_LIMIT} voxels; check the surface's unit (metres) or take larger voxels"
        )


def _pack(voxel: np.ndarray) -> np.ndarray:
    """One int64 a voxel whose order is that of (x, y, z)."""
    x, y, z = (voxel + _LIMIT).T
    return (x << 2 * _BITS) | (y << _BITS) | z


@njit(cache=True, nogil=True)
def _pack_all(voxel, keys):
    """`_pack` without temporary arrays; false where a coordinate is out of range."""
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
    """Position in keys[start:stop] of the first that is not below key."""
    while start < stop:
        middle = (start + stop) >> 1
        if keys[middle] < key:
            start = middle + 1
        else:
            stop = middle
    return start


@njit(cache=True, nogil=True)
def _cells(u, reach):
    """First and last cell along an axis whose centre is within reach of u, all in voxels."""
    low = max(np.int64(np.ceil(u - reach - 0.5)), -_LIMIT)
    high = min(np.int64(np.floor(u + reach - 0.5)), _LIMIT - 1)
    return low, high


@njit(cache=True, nogil=True)
def _nearest(keys, row_of, points, voxel_m, radius, rows, distance):
    # The slack admits to the test what rounding might keep from it; the test itself is exact.
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
            place, end = np.int64(-1), np.int64(len(keys))
            for cy in range(y_low, y_high + 1):
                dy = y - (cy + 0.5) * voxel_m
                if dx * dx + dy * dy > bound:
                    continue
                if place < 0:
                    place = _first_from(keys, 0, end, _key(cx, cy, z_low))
                    end = _first_from(keys, place, end, _key(cx, y_high, z_high) + 1)
                else:
                    place = _first_from(keys, place, end, _key(cx, cy, z_low))
                last = _key(cx, cy, z_high)
                while place < end and keys[place] <= last:
                    cz = (keys[place] & ((1 << _BITS) - 1)) - _LIMIT
                    dz = z - (cz + 0.5) * voxel_m
                    square = dx * dx + dy * dy + dz * dz
                    if square <= bound:
                        row, d = row_of[place], np.sqrt(square)
                        if d < radius and (d < best or (d == best and row < best_row)):
                            best_row, best, bound = row, d, square * slack
                    place += 1
        rows[i], distance[i] = best_row, best
