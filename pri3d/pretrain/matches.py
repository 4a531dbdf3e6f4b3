"""What matches what: cells of two images that see the same place, cells and voxels of a surface.

Features have half the size of the input image; one place in them is a *cell*, numbered row by row.
A depth pixel belongs to the cell into which its point falls in the colour image. From each cell at
most one pixel is asked for its match, and on the other side each cell (or voxel) is taken once, so
that no two matches of a loss share a feature and become each other's negatives.

Shapes: N matches, V voxels. This module is numpy only.
"""

from typing import NamedTuple

import numpy as np

from pri3d import geometry
from pri3d.matching.correspondences import nearest
from pri3d.matching.voxels import build_table, nearest_voxel

CELL = 2  # input pixels a cell, each way


class Frame(NamedTuple):
    """One posed depth image, and the cell int64 [H, W] of each of its pixels (-1: none)."""

    view: geometry.View
    cells: np.ndarray
    number_of_cells: int


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

    A pixel without depth, or whose point is outside the input image, has no cell.
    """
    points, valid = geometry.unproject(view.depth, view.K)
    uv, inside = geometry.project(
        geometry.transform(color_from_depth, points), color_K, input_shape
    )
    column, row = np.moveaxis(np.floor((uv + 0.5) / CELL), -1, 0)
    height, width = (size // CELL for size in input_shape)
    cells = np.where(valid & inside, row * width + column, -1).astype(np.int64)
    return Frame(view, cells, height * width)


def pixel_of_each_cell(frame: Frame, rng: np.random.Generator) -> np.ndarray:
    """One depth pixel of each cell that has any, drawn evenly: int64 [n, 2] (row, column)."""
    cells = frame.cells.ravel()
    pixels = rng.permutation(np.flatnonzero(cells >= 0))
    chosen = np.full(frame.number_of_cells, -1)
    chosen[cells[pixels]] = pixels  # of several pixels the last one of the random order stays
    return np.stack(np.divmod(chosen[chosen >= 0], frame.cells.shape[1]), axis=1)


def view_matches(
    frame_a: Frame, frame_b: Frame, radius: float, at_most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cells of A and B (int64 [n], [n]) that see the same place: world points closer than radius.

    The point of a pixel of A is matched with the nearest point of B (Pri3D section 3.1: 2 cm).
    """
    pixels = pixel_of_each_cell(frame_a, rng)
    pixels_a, pixels_b, _ = nearest(frame_a.view, frame_b.view, radius, pixels)
    cells_a, cells_b = (
        frame.cells[tuple(pixels.T)] for frame, pixels in ((frame_a, pixels_a), (frame_b, pixels_b))
    )
    kept = np.flatnonzero(cells_b >= 0)
    kept = kept[_draw_distinct(cells_b[kept], at_most, rng)]
    return cells_a[kept], cells_b[kept]


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
    row, column = pixel_of_each_cell(frame, rng).T
    K, z = frame.view.K, frame.view.depth[row, column]
    points = [(column - K[0, 2]) / K[0, 0] * z, (row - K[1, 2]) / K[1, 1] * z, z]
    world = geometry.transform(frame.view.world_from_camera, np.stack(points, axis=1))
    rows, _ = nearest_voxel(build_table(voxel_V3), world, voxel_m, radius)
    kept = np.flatnonzero(rows >= 0)
    kept = kept[_draw_distinct(rows[kept], at_most, rng)]
    return Chunk(voxel_V3, color_V3, frame.cells[row, column][kept], rows[kept])


def _draw_distinct(values: np.ndarray, at_most: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of different values, drawn evenly, in random order."""
    order = rng.permutation(len(values))
    _, first = np.unique(values[order], return_index=True)
    return rng.permutation(order[first])[:at_most]
