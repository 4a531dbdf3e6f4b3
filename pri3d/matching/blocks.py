"""A posed depth image prepared for the overlap: as blocks to ask about, and as image to search."""

from typing import NamedTuple

import numpy as np
from numba import njit

from pri3d.geometry import View
from pri3d.matching.kernel import COARSEST, FINEST, LANES, ROWS

_BLOCK = 32  # pixels, edge of a root block
_FAR = np.float32(1e9)  # metres; an invalid pixel is a point that nothing is near to
_CELL = 1 << FINEST


class Queries(NamedTuple):
    """A frame as blocks of 32, 4, 2 and 1 pixels, level after level, siblings adjacent.

    Node n is lane n % 4 of group n // 4. A block without points has its ball far behind the
    camera, where every test rejects it.
    """

    balls: np.ndarray  # float32 [groups * 16]: four siblings' x, y, z (own camera) and radii, m
    count: np.ndarray  # int32 [nodes]: valid pixels inside
    start: np.ndarray  # int64 [5]: first node of each level, then a group of empty nodes
    pixel: np.ndarray  # int32 [leaves]: row * width + column of a leaf
    reach: float  # metres, L1 norm of the farthest point


class Target(NamedTuple):
    """A frame as the image that is searched."""

    depth: np.ndarray  # float32 [ROWS + H + ROWS, W + LANES], padded with far points
    ray_x: np.ndarray  # float32 [W + LANES]
    ray_y: np.ndarray  # float32 [ROWS + H + ROWS]
    pyramid: np.ndarray  # float32 [cells * 2]: lowest, highest depth over 2 x 2 cells
    level: np.ndarray  # int32 [levels * 2]: first cell, cells a row
    near: float  # metres, depth range; 0 and 0 without points
    far: float
    camera_from_world: np.ndarray  # float64 [4, 4]
    stretch: np.ndarray  # float64 [3]: singular values of the pose's rotation, descending


def queries(view: View) -> Queries:
    """The tree of pixel blocks of a posed depth image."""
    height, width = view.depth.shape
    rows, columns = -(-height // _BLOCK), -(-width // _BLOCK)
    roots = rows * columns + (-rows * columns) % 4
    start = np.cumsum([0, roots, roots * 64, roots * 256, roots * 1024]).astype(np.int64)
    balls = _aligned(4 * (start[4] + 4)).reshape(-1, 4, 4)
    balls[...] = np.array([0, 0, -_FAR, 0], np.float32)[:, None]
    count = np.zeros(start[4] + 4, np.int32)
    pixel = np.zeros(roots * 1024, np.int32)
    reach = _fill_blocks(view.depth, view.K, rows, columns, balls, count, pixel, start)
    return Queries(balls.ravel(), count, start, pixel, reach)


def _aligned(size: int) -> np.ndarray:
    """Uninitialised float32 [size] from the start of a cache line, so that siblings share one."""
    spare = np.empty(size + 16, np.float32)
    return spare[(-spare.ctypes.data // 4) % 16 :][:size]


def target(view: View) -> Target:
    """A posed depth image with its rays and its pyramid of depth ranges."""
    height, width = view.depth.shape
    depth = np.full((height + 2 * ROWS, width + LANES), _FAR, np.float32)
    columns, rows = np.arange(width + LANES), np.arange(-ROWS, height + ROWS)
    ray_x = ((columns - view.K[0, 2]) / view.K[0, 0]).astype(np.float32)
    ray_y = ((rows - view.K[1, 2]) / view.K[1, 1]).astype(np.float32)
    cells = (-(-height // _CELL), -(-width // _CELL))
    low, high = np.full(cells, np.inf, np.float32), np.zeros(cells, np.float32)
    _fill_target(view.depth, depth, low, high)
    pyramid, level = _pyramid(low, high, width)
    far = float(high.max())
    near = float(low.min()) if far > 0 else 0.0
    camera_from_world = np.linalg.inv(view.world_from_camera)
    stretch = np.linalg.svd(view.world_from_camera[:3, :3], compute_uv=False)
    return Target(depth, ray_x, ray_y, pyramid, level, near, far, camera_from_world, stretch)


@njit(cache=True, nogil=True)
def _fill_target(depth, padded, low, high):
    for row in range(depth.shape[0]):
        for column in range(depth.shape[1]):
            z = np.float32(depth[row, column])
            if z > 0 and z < np.inf:
                padded[row + ROWS, column] = z
                a, b = row >> FINEST, column >> FINEST
                low[a, b] = min(low[a, b], z)
                high[a, b] = max(high[a, b], z)


def _pyramid(low, high, width) -> tuple[np.ndarray, np.ndarray]:
    """Depth range of every 2 x 2 neighbouring cells of 4, 8, ... 128 pixels."""
    tables, level, first = [], [], 0
    for _ in range(FINEST, COARSEST + 1):
        rows, columns = low.shape
        level.append((first, columns))
        first += rows * columns
        # One row and column more for the neighbour of the last cell, and an even number of them.
        pad = ((0, 2 - rows % 2), (0, 2 - columns % 2))
        low = np.pad(low, pad, constant_values=np.inf)
        high = np.pad(high, pad, constant_values=0)
        table = np.empty((rows, columns, 2), np.float32)
        for part, (side, pick) in enumerate(((low, np.minimum), (high, np.maximum))):
            pair = pick(side[:rows], side[1 : rows + 1])
            table[..., part] = pick(pair[:, :columns], pair[:, 1 : columns + 1])
        tables.append(table.reshape(-1, 2))
        low, high = (
            pick(pick(side[::2, ::2], side[1::2, ::2]), pick(side[::2, 1::2], side[1::2, 1::2]))
            for side, pick in ((low, np.minimum), (high, np.maximum))
        )
    # The level beyond the last never rejects: a row of "anything" for its cells of 256 pixels.
    level.append((first, 0))
    tables.append(np.tile(np.array([-np.inf, np.inf], np.float32), (width // 256 + 1, 1)))
    return np.concatenate(tables).ravel(), np.array(level, np.int32).ravel()


@njit(cache=True, nogil=True)
def _fill_blocks(depth, K, rows, columns, balls, count, pixel, start):
    """Unproject into Z-order and bound every block; returns the farthest point's L1 norm."""
    height, width = depth.shape
    reach = 0.0
    points = np.empty((3, 1024), np.float32)
    full = np.empty(1024, np.bool_)
    for block in range(rows * columns):
        top, left = (block // columns) * 32, (block % columns) * 32
        for p in range(1024):  # 4 x 4 cells row by row, inside them 2 x 2 cells, then pixels
            cell, q = p >> 4, p & 15
            row = top + ((cell >> 3) << 2) + ((q >> 3) << 1) + ((q >> 1) & 1)
            column = left + ((cell & 7) << 2) + (((q >> 2) & 1) << 1) + (q & 1)
            full[p] = False
            if row < height and column < width:
                pixel[block * 1024 + p] = row * width + column
                z = depth[row, column]
                if z > 0 and z < np.inf:
                    x, y = (column - K[0, 2]) / K[0, 0] * z, (row - K[1, 2]) / K[1, 1] * z
                    reach = max(reach, abs(x) + abs(y) + z)
                    points[0, p], points[1, p], points[2, p] = x, y, z
                    full[p] = True
                    leaf = start[3] + block * 1024 + p
                    group, lane = leaf >> 2, leaf & 3
                    balls[group, 0, lane], balls[group, 1, lane], balls[group, 2, lane] = x, y, z
                    count[leaf] = 1
        for level, size in ((2, 4), (1, 16), (0, 1024)):
            node = start[level] + block * (1024 // size)
            for first in range(0, 1024, size):
                _bound(points, full, first, first + size, node, balls, count)
                node += 1
    return reach


@njit(cache=True, nogil=True)
def _bound(points, full, first, last, node, balls, count):
    n = 0
    low_x = low_y = low_z = np.float32(np.inf)
    high_x = high_y = high_z = np.float32(-np.inf)
    for p in range(first, last):
        if full[p]:
            n += 1
            low_x, high_x = min(low_x, points[0, p]), max(high_x, points[0, p])
            low_y, high_y = min(low_y, points[1, p]), max(high_y, points[1, p])
            low_z, high_z = min(low_z, points[2, p]), max(high_z, points[2, p])
    if n == 0:
        return
    x, y, z = (low_x + high_x) / 2, (low_y + high_y) / 2, (low_z + high_z) / 2
    far = np.float32(0)
    for p in range(first, last):
        if full[p]:
            dx, dy, dz = points[0, p] - x, points[1, p] - y, points[2, p] - z
            far = max(far, dx * dx + dy * dy + dz * dz)
    group, lane = node >> 2, node & 3
    balls[group, 0, lane], balls[group, 1, lane], balls[group, 2, lane] = x, y, z
    balls[group, 3, lane] = np.sqrt(far)
    count[node] = n
