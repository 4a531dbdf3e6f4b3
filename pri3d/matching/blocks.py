"""Preparation of a posed depth image for the overlap: as query blocks and as target image."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64
from numba import njit

from pri3d.geometry import View
from pri3d.matching.kernel import COARSEST, FINEST, LANES, ROWS

_BLOCK = 32  # pixels, edge of a root block
_FAR = np.float32(1e9)  # meters; an invalid pixel is a point this far away
_CELL = 1 << FINEST


class Queries(NamedTuple):
    """A frame as blocks of 32, 4, 2 and 1 pixels, level by level, siblings adjacent.

    Node n is lane n % 4 of group n // 4. A block without points has its ball far behind the
    camera, where every test rejects it.

    Attributes:
        balls: x, y, z (own camera) and radii of each group's four siblings, meters.
        points: number of valid pixels of each node.
        start: first node of each level, then the first of a group of empty nodes.
        pixel: row * width + column of each leaf.
        reach: L1 norm of the farthest point, meters.
    """

    balls: Float32[np.ndarray, " 16*groups"]
    points: Int32[np.ndarray, " nodes"]
    start: Int64[np.ndarray, "5"]
    pixel: Int32[np.ndarray, " leaves"]
    reach: float


class Target(NamedTuple):
    """A frame as an image that is searched.

    Attributes:
        depth: [ROWS + H + ROWS, W + LANES], padded with far points.
        ray_x, ray_y: viewing rays of the padded columns and rows.
        pyramid: min and max depth over 2 x 2 cells, see `_pyramid`.
        near, far: depth range, meters; 0 and 0 without points.
        camera_from_world: inverse of the pose.
        stretch: singular values of the pose's rotation, descending.
    """

    depth: Float32[np.ndarray, "rows columns"]
    ray_x: Float32[np.ndarray, " columns"]
    ray_y: Float32[np.ndarray, " rows"]
    pyramid: Float32[np.ndarray, "cell_rows cell_columns 2"]
    near: float
    far: float
    camera_from_world: Float64[np.ndarray, "4 4"]
    stretch: Float64[np.ndarray, "3"]


def queries(view: View) -> Queries:
    """Build the tree of pixel blocks of a posed depth image."""
    height, width = view.depth.shape
    rows, columns = -(-height // _BLOCK), -(-width // _BLOCK)
    roots = rows * columns + (-rows * columns) % 4
    start = np.cumsum([0, roots, roots * 64, roots * 256, roots * 1024]).astype(np.int64)
    balls = _aligned(4 * (int(start[4]) + 4)).reshape(-1, 4, 4)
    balls[...] = np.array([0, 0, -_FAR, 0], np.float32)[:, None]
    points = np.zeros(start[4] + 4, np.int32)
    pixel = np.zeros(roots * 1024, np.int32)
    reach = _fill_blocks(view.depth, view.K, rows, columns, balls, points, pixel, start)
    return Queries(balls.ravel(), points, start, pixel, reach)


def _aligned(size: int) -> np.ndarray:
    """Uninitialized float32 [size] that begins a cache line, so that siblings share one."""
    spare = np.empty(size + 16, np.float32)
    return spare[(-spare.ctypes.data // 4) % 16 :][:size]


def target(view: View) -> Target:
    """Build the searched image of a posed depth image: rays and a pyramid of depth ranges."""
    height, width = view.depth.shape
    depth = np.full((height + 2 * ROWS, width + LANES), _FAR, np.float32)
    columns, rows = np.arange(width + LANES), np.arange(-ROWS, height + ROWS)
    ray_x = ((columns - view.K[0, 2]) / view.K[0, 0]).astype(np.float32)
    ray_y = ((rows - view.K[1, 2]) / view.K[1, 1]).astype(np.float32)
    cells = (-(-height // _CELL), -(-width // _CELL))
    low, high = np.full(cells, np.inf, np.float32), np.zeros(cells, np.float32)
    _fill_target(view.depth, depth, low, high)
    pyramid = _pyramid(low, high)
    far = float(high.max())
    near = float(low.min()) if far > 0 else 0.0
    camera_from_world = np.linalg.inv(view.world_from_camera)
    stretch = np.linalg.svd(view.world_from_camera[:3, :3], compute_uv=False)
    return Target(depth, ray_x, ray_y, pyramid, near, far, camera_from_world, stretch)


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


def _pyramid(
    low: Float32[np.ndarray, "rows columns"], high: Float32[np.ndarray, "rows columns"]
) -> Float32[np.ndarray, "T columns 2"]:
    """Min and max depth over 2 x 2 neighboring cells of 4, 8, ... 128 pixels.

    The levels are stacked along the first axis: cells of 4 * 2^k pixels begin at row T - (T >> k),
    T being a power of two. After the coarsest level come infinite ranges, for windows wider than
    every cell.

    Args:
        low, high: depth ranges of the cells of 4 pixels.
    """
    rows, columns = low.shape
    tall = 2 << max(COARSEST, (rows - 1).bit_length())
    pyramid = np.empty((tall, columns, 2), np.float32)
    pyramid[...] = -np.inf, np.inf
    for k in range(COARSEST - FINEST + 1):
        rows, columns = low.shape
        # One more row and column for the neighbor of the last cell, and an even number of both.
        pad = ((0, 2 - rows % 2), (0, 2 - columns % 2))
        low = np.pad(low, pad, constant_values=np.inf)
        high = np.pad(high, pad, constant_values=0)
        first = tall - (tall >> k)
        for part, (side, pick) in enumerate(((low, np.minimum), (high, np.maximum))):
            pair = pick(side[:rows], side[1 : rows + 1])
            ranges = pick(pair[:, :columns], pair[:, 1 : columns + 1])
            pyramid[first : first + rows, :columns, part] = ranges
        low, high = (
            pick(pick(side[::2, ::2], side[1::2, ::2]), pick(side[::2, 1::2], side[1::2, 1::2]))[
                : (rows + 1) // 2, : (columns + 1) // 2
            ]
            for side, pick in ((low, np.minimum), (high, np.maximum))
        )
    return pyramid


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_blocks(depth, K, rows, columns, balls, points, pixel, start):
    """Unproject into Z-order and bound every block; returns the L1 norm of the farthest point.

    A block's ball encloses its bounding box.
    """
    height, width = depth.shape
    flat = balls.ravel()
    reach = 0.0
    ray_x = (np.arange(width) - K[0, 2]) / K[0, 0]
    ray_y = (np.arange(height) - K[1, 2]) / K[1, 1]
    x, y, z = np.zeros(1024, np.float32), np.zeros(1024, np.float32), np.zeros(1024, np.float32)
    for block in range(rows * columns):
        top, left = (block // columns) * 32, (block % columns) * 32
        for cell in range(64):
            for q in range(16):
                p = cell * 16 + q
                row = top + ((cell >> 3) << 2) + ((q >> 3) << 1) + ((q >> 1) & 1)
                column = left + ((cell & 7) << 2) + (((q >> 2) & 1) << 1) + (q & 1)
                d = 0.0
                if row < height and column < width:
                    pixel[block * 1024 + p] = row * width + column
                    d = depth[row, column]
                if d > 0 and d < np.inf:
                    px, py = ray_x[column] * d, ray_y[row] * d
                    reach = max(reach, abs(px) + abs(py) + d)
                    x[p], y[p], z[p] = px, py, d
                    leaf = start[3] + block * 1024 + p
                    at = (leaf >> 2) * 16 + (leaf & 3)
                    flat[at], flat[at + 4], flat[at + 8] = px, py, d
                    points[leaf] = 1
                else:
                    z[p] = 0
            for quad in range(4):
                _bound(
                    x,
                    y,
                    z,
                    cell * 16 + quad * 4,
                    4,
                    start[2] + block * 256 + cell * 4 + quad,
                    flat,
                    points,
                )
            _bound(x, y, z, cell * 16, 16, start[1] + block * 64 + cell, flat, points)
        _bound(x, y, z, 0, 1024, start[0] + block, flat, points)
    return reach


@njit(cache=True, nogil=True, error_model="numpy")
def _bound(x, y, z, first, size, node, flat, points):
    n = 0
    big = np.float32(1e30)
    x0 = y0 = z0 = big
    x1 = y1 = z1 = -big
    for p in range(first, first + size):
        if z[p] > 0:
            n += 1
            x0 = x[p] if x[p] < x0 else x0
            x1 = x[p] if x[p] > x1 else x1
            y0 = y[p] if y[p] < y0 else y0
            y1 = y[p] if y[p] > y1 else y1
            z0 = z[p] if z[p] < z0 else z0
            z1 = z[p] if z[p] > z1 else z1
    if n == 0:
        return
    half = np.float32(0.5)
    cx, cy, cz = (x0 + x1) * half, (y0 + y1) * half, (z0 + z1) * half
    dx, dy, dz = x1 - cx, y1 - cy, z1 - cz
    far = dx * dx + dy * dy + dz * dz
    at = (node >> 2) * 16 + (node & 3)
    flat[at], flat[at + 4], flat[at + 8], flat[at + 12] = cx, cy, cz, np.sqrt(far)
    points[node] = n
