"""What matches what: cells of two images that see the same place, cells and voxels of a surface.

Features have half the size of the input image; one place in them is a *cell*, numbered row by row.
A depth pixel belongs to the cell into which its point falls in the colour image. From each cell at
most one pixel is asked for its match, and on the other side each cell (or voxel) is taken once, so
that no two matches of a loss share a feature and become each other's negatives. Pixels are drawn a
few at a time, until there are enough matches: most of an image is never looked at.

Shapes: N matches, V voxels. This module is numpy and numba only.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit

from pri3d import geometry
from pri3d.matching.correspondences import nearest_of_each
from pri3d.matching.voxels import build_table, nearest_voxel

CELL = 2  # input pixels a cell, each way


class Frame(NamedTuple):
    """One posed depth image, and the colour camera of the network's input, of (height, width)."""

    view: geometry.View
    color_K: np.ndarray
    color_from_depth: np.ndarray
    input_shape: tuple[int, int]

    @property
    def number_of_cells(self) -> int:
        return (self.input_shape[0] // CELL) * (self.input_shape[1] // CELL)


class Chunk(NamedTuple):
    """The voxels of a frame's frustum, and which of them (`row_N`) match which cells (`cell_N`)."""

    voxel_V3: np.ndarray
    color_V3: np.ndarray
    cell_N: np.ndarray
    row_N: np.ndarray


def frame(
    view: geometry.View,
    color_K: np.ndarray,
    color_from_depth: np.ndarray,
    input_shape: tuple[int, int],
) -> Frame:
    """A frame for an input image of (height, width), which the colour camera `color_K` sees.

    A negative focal length is a mirrored image. A pixel without depth, or whose point is outside
    the input image, has no cell.
    """
    color_K, color_from_depth = (np.asarray(m, np.float64) for m in (color_K, color_from_depth))
    return Frame(view, color_K, color_from_depth, tuple(input_shape))


def cells_of(frame: Frame, pixels: np.ndarray) -> np.ndarray:
    """Cells int64 [n] of depth pixels, which are numbered row by row: int [n]; -1: none.

    A pixel below 0 is none, and has none.
    """
    cells = np.empty(len(pixels), np.int64)
    view = frame.view
    height, width = (size // CELL * CELL for size in frame.input_shape)
    _project_cells(
        *(view.depth, np.asarray(view.K, np.float64), frame.color_from_depth, frame.color_K),
        *(height, width, pixels, cells),
    )
    return cells


def view_matches(
    frame_a: Frame, frame_b: Frame, radius: float, at_most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cells of A and B (int64 [n], [n]) that see the same place: world points closer than radius.

    The point of a pixel of A is matched with the nearest point of B (Pri3D section 3.1: 2 cm).
    """
    width_a, width_b = (frame.view.depth.shape[1] for frame in (frame_a, frame_b))

    def match(pixels: np.ndarray) -> np.ndarray:
        asked = np.stack(np.divmod(pixels, width_a), axis=1)
        found, _ = nearest_of_each(frame_a.view, frame_b.view, radius, asked)
        return cells_of(frame_b, found[:, 0] * width_b + found[:, 1])

    return _draw(frame_a, match, frame_b.number_of_cells, at_most, rng)


def geo_matches(
    frame: Frame,
    voxel_V3: np.ndarray,
    color_V3: np.ndarray,
    voxel_m: float,
    radius: float,
    at_most: int,
    rng: np.random.Generator,
) -> Chunk:
    """Cells of a frame and the voxels of its chunk whose centres are nearest and within radius.

    The distance is that of the pixel's world point (Pri3D section 3.2: 2 cm).
    """
    view, table = frame.view, build_table(voxel_V3)

    def match(pixels: np.ndarray) -> np.ndarray:
        row, column = np.divmod(pixels, view.depth.shape[1])
        z = view.depth[row, column]
        x = (column - view.K[0, 2]) / view.K[0, 0] * z
        y = (row - view.K[1, 2]) / view.K[1, 1] * z
        world = geometry.transform(view.world_from_camera, np.stack([x, y, z], axis=1))
        return nearest_voxel(table, world, voxel_m, radius)[0]

    return Chunk(voxel_V3, color_V3, *_draw(frame, match, len(voxel_V3), at_most, rng))


def _draw(
    frame: Frame,
    match: Callable[[np.ndarray], np.ndarray],
    candidates: int,
    at_most: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Cells int64 [n] and what each matches, int64 [n]: both distinct, in random order.

    match: of pixels [m], what each matches, int64 [m] in 0..candidates - 1, or -1.
    """
    asked = np.zeros(frame.number_of_cells, np.bool_)
    taken = np.zeros(candidates, np.bool_)
    found = [np.zeros((2, 0), np.int64)]
    number, drawn, few, missing = frame.view.depth.size, 0, at_most, at_most
    while missing and drawn < number:
        if drawn + few < number // 4:
            pixels = rng.integers(number, size=few)  # some of them again, which does no harm
        else:
            pixels = rng.permutation(number)  # all, and so the last
        cells = cells_of(frame, pixels)
        first = _first_of_each(cells, asked)
        cells, others = cells[first], match(pixels[first])
        first = _first_of_each(others, taken)[:missing]
        found.append(np.stack([cells[first], others[first]]))
        missing -= len(first)
        drawn += len(pixels)
        # So many should do, by the share that did so far, and a few to spare.
        few = int(1.2 * missing * drawn / max(1, at_most - missing)) + 32
    cells, others = np.concatenate(found, axis=1)
    return cells, others


@njit(cache=True, nogil=True)
def _first_of_each(values, seen):
    """Positions at which a value of 0 or more comes first; `seen`: those of earlier calls too."""
    first = np.empty(len(values), np.int64)
    count = 0
    for i in range(len(values)):
        value = values[i]
        if value >= 0 and not seen[value]:
            seen[value] = True
            first[count] = i
            count += 1
    return first[:count]


@njit(cache=True, nogil=True)
def _project_cells(depth, K, color_from_depth, color_K, height, width, pixels, cells):
    m = color_from_depth
    for i in range(len(pixels)):
        cells[i] = -1
        if pixels[i] < 0:
            continue
        row, column = divmod(pixels[i], depth.shape[1])
        d = depth[row, column]
        if not (d > 0 and d < np.inf):
            continue
        x, y = (column - K[0, 2]) / K[0, 0] * d, (row - K[1, 2]) / K[1, 1] * d
        z = m[2, 0] * x + m[2, 1] * y + m[2, 2] * d + m[2, 3]
        if not z > 0:
            continue
        u = (m[0, 0] * x + m[0, 1] * y + m[0, 2] * d + m[0, 3]) / z * color_K[0, 0] + color_K[0, 2]
        v = (m[1, 0] * x + m[1, 1] * y + m[1, 2] * d + m[1, 3]) / z * color_K[1, 1] + color_K[1, 2]
        if u >= -0.5 and u < width - 0.5 and v >= -0.5 and v < height - 0.5:
            across, down = np.int64((u + 0.5) / CELL), np.int64((v + 0.5) / CELL)
            cells[i] = down * (width // CELL) + across
