"""Correspondences: cells of two images that see the same point, cells and voxels of a surface.

Feature maps have half the size of the input image; one position in them is a *cell*, numbered row
by row. A depth pixel belongs to the cell into which its point falls in the color image. Of each
cell at most one pixel is matched, and on the other side each cell (or voxel) is used once, so that
no two matches of a loss share a feature and become each other's negatives. Pixels are drawn in
small lots until there are enough matches: most of an image is never looked at.

Shapes: N matches, V voxels, P pixels. This module is numpy and numba only.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit

from pri3d import geometry
from pri3d.matching.correspondences import nearest_of_each
from pri3d.matching.voxels import build_table, nearest_voxel

CELL = 2  # edge of a cell in input pixels
MIN_MATCHES = 2  # with one match there is no negative, and so no loss


class Frame(NamedTuple):
    """One posed depth image, and the color camera of the network's input.

    color_K: intrinsics [3, 3] of the input image; a negative focal length is a mirrored image.
    color_from_depth: [4, 4] meters. input_shape: (height, width) of the input image.
    """

    view: geometry.View
    color_K: np.ndarray
    color_from_depth: np.ndarray
    input_shape: tuple[int, int]

    @property
    def number_of_cells(self) -> int:
        return (self.input_shape[0] // CELL) * (self.input_shape[1] // CELL)


class VoxelMatches(NamedTuple):
    """Voxels with colors, and which of them match what.

    voxel_V3: integers, sorted. color_V3: u8, or float32 in 0..1. id_N: int64, cells, pixels or
    points. row_N: int64, the row of voxel_V3 that each id matches.
    """

    voxel_V3: np.ndarray
    color_V3: np.ndarray
    id_N: np.ndarray
    row_N: np.ndarray


def make_frame(
    view: geometry.View,
    color_K: np.ndarray,
    color_from_depth: np.ndarray,
    input_shape: tuple[int, int],
) -> Frame:
    """A frame whose matrices are float64, as the compiled functions need them."""
    return Frame(
        view=view,
        color_K=np.asarray(color_K, np.float64),
        color_from_depth=np.asarray(color_from_depth, np.float64),
        input_shape=(input_shape[0], input_shape[1]),
    )


def cells_of(frame: Frame, pixel_P: np.ndarray) -> np.ndarray:
    """The cells that show depth pixels.

    Args:
        frame: the frame.
        pixel_P: depth pixels, numbered row by row; a number below 0 is no pixel.

    Returns:
        int64 [P]; -1: no cell, because the pixel has no depth, or its point is outside the input.
    """
    cell_P = np.empty(len(pixel_P), np.int64)
    view = frame.view
    height, width = (size // CELL * CELL for size in frame.input_shape)
    K = np.asarray(view.K, np.float64)
    _project_cells(
        view.depth,
        K,
        frame.color_from_depth,
        frame.color_K,
        height,
        width,
        pixel_P,
        cell_P,
    )
    return cell_P


def view_matches(
    frame_a: Frame, frame_b: Frame, radius: float, max_matches: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cells of A and of B (int64 [N], [N]) that see the same point of the world.

    The point of a pixel of A matches the nearest point of B if that is closer than the radius
    (meters; Pri3D section 3.1: 0.02).
    """
    width_a, width_b = (frame.view.depth.shape[1] for frame in (frame_a, frame_b))

    def match(pixel_P: np.ndarray) -> np.ndarray:
        position_P2 = np.stack(np.divmod(pixel_P, width_a), axis=1)
        nearest_P2, _ = nearest_of_each(frame_a.view, frame_b.view, radius, position_P2)
        return cells_of(frame_b, nearest_P2[:, 0] * width_b + nearest_P2[:, 1])

    return _draw(frame_a, match, frame_b.number_of_cells, max_matches, rng)


def geo_matches(
    frame: Frame,
    voxel_V3: np.ndarray,
    color_V3: np.ndarray,
    voxel_m: float,
    radius: float,
    max_matches: int,
    rng: np.random.Generator,
) -> VoxelMatches:
    """Cells of a frame and the voxels of its chunk whose centers are nearest.

    The distance of a pixel's world point and the center is less than the radius (meters; Pri3D
    section 3.2: 0.02).
    """
    view, table = frame.view, build_table(voxel_V3)

    def match(pixel_P: np.ndarray) -> np.ndarray:
        row, column = np.divmod(pixel_P, view.depth.shape[1])
        z = view.depth[row, column]
        x = (column - view.K[0, 2]) / view.K[0, 0] * z
        y = (row - view.K[1, 2]) / view.K[1, 1] * z
        world_P3 = geometry.transform(view.world_from_camera, np.stack([x, y, z], axis=1))
        return nearest_voxel(table, world_P3, voxel_m, radius)[0]

    cell_N, row_N = _draw(frame, match, len(voxel_V3), max_matches, rng)
    return VoxelMatches(voxel_V3, color_V3, cell_N, row_N)


def _draw(
    frame: Frame,
    match: Callable[[np.ndarray], np.ndarray],
    candidates: int,
    max_matches: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Cells of a frame and their matches, int64 [N] each: both distinct, in random order.

    match: from pixels [P] to the match of each, int64 [P] in 0..candidates - 1, or -1.
    """
    matched_cell = np.zeros(frame.number_of_cells, np.bool_)
    matched_candidate = np.zeros(candidates, np.bool_)
    lots = [np.zeros((2, 0), np.int64)]
    pixels, drawn, lot, missing = frame.view.depth.size, 0, max_matches, max_matches
    while missing and drawn < pixels:
        if drawn + lot < pixels // 4:
            pixel_P = rng.integers(pixels, size=lot)  # repeated pixels do no harm
        else:
            pixel_P = rng.permutation(pixels)  # all of them: the last lot
        cell_P = cells_of(frame, pixel_P)
        first = _first_of_each(cell_P, matched_cell)
        cell_P, candidate_P = cell_P[first], match(pixel_P[first])
        first = _first_of_each(candidate_P, matched_candidate)[:missing]
        lots.append(np.stack([cell_P[first], candidate_P[first]]))
        missing -= len(first)
        drawn += len(pixel_P)
        # Pixels that should be enough, at the share that matched so far, and a few to spare.
        lot = int(1.2 * missing * drawn / max(1, max_matches - missing)) + 32
    cell_N, candidate_N = np.concatenate(lots, axis=1)
    return cell_N, candidate_N


@njit(cache=True, nogil=True)
def _first_of_each(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Positions at which a value of 0 or more comes first; `seen` is shared by all calls."""
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
def _project_cells(
    depth: np.ndarray,
    K: np.ndarray,
    color_from_depth: np.ndarray,
    color_K: np.ndarray,
    height: int,
    width: int,
    pixels: np.ndarray,
    cells: np.ndarray,
) -> None:
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
