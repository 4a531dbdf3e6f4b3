"""Matches as the published code of Pri3D (2021) finds them, for `match_rule: official`.

A place is projected into the other image, the pixel is cut off toward zero, and depths along the
camera's axis are compared. As published, and unlike `matches`: a pixel without depth takes part
with depth 0, places behind a camera are not refused, a voxel stands for its lowest corner, and
several matches may share a cell, whose one feature is then its own negative.

Shapes: N matches, V voxels.
"""

import numpy as np
from numba import njit

from pri3d.geometry import View
from pri3d.pretrain.matches import CELL, Chunk

PIXEL_M, VOXEL_M = 0.05, 0.2  # metres; depths differ by less, of two pixels, of pixel and voxel


def view_matches(
    a: View, b: View, at_most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cells int64 [n], [n] of two input images, of matches drawn evenly, in random order.

    a, b: the input images' depth, with the cameras of the input images.
    """
    pixels_a, pixels_b = pixel_matches(a, b)
    drawn = rng.permutation(len(pixels_a))[:at_most]
    return _cells(a, pixels_a[drawn]), _cells(b, pixels_b[drawn])


def geo_matches(
    view: View,
    voxel_V3: np.ndarray,
    color_V3: np.ndarray,
    voxel_m: float,
    at_most: int,
    rng: np.random.Generator,
) -> Chunk:
    """Cells of an input image and voxels of its chunk, of matches drawn evenly."""
    pixels, rows = voxel_matches(view, voxel_V3, voxel_m)
    drawn = rng.permutation(len(rows))[:at_most]
    return Chunk(voxel_V3, color_V3, _cells(view, pixels[drawn]), rows[drawn])


def pixel_matches(a: View, b: View, threshold: float = PIXEL_M) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (row, column) of A and B, int64 [n, 2] each, in row order of A.

    A pixel's place, projected into B, falls into a pixel whose depth differs by less than the
    threshold from the depth of the place as B sees it. Images have the same size.
    """
    found = np.empty(a.depth.shape, np.int64)
    b_from_a = np.linalg.inv(b.world_from_camera) @ a.world_from_camera
    _warp(a.depth, np.float64(a.K), b.depth, np.float64(b.K), b_from_a, threshold, found)
    pixels_a = np.argwhere(found >= 0)
    pixels_b = np.stack(np.divmod(found[found >= 0], b.depth.shape[1]), axis=1)
    return pixels_a, pixels_b


def voxel_matches(
    view: View, voxel_V3: np.ndarray, voxel_m: float, threshold: float = VOXEL_M
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (row, column) int64 [n, 2] and rows int64 [n] of voxels, in the order of the voxels.

    A voxel's corner voxel * voxel_m is projected; here only what is inside the image before
    anything is cut off counts.
    """
    found = np.empty(len(voxel_V3), np.int64)
    camera_from_world = np.linalg.inv(view.world_from_camera)
    _project(view.depth, np.float64(view.K), camera_from_world, voxel_V3, voxel_m, threshold, found)
    rows = np.flatnonzero(found >= 0)
    return np.stack(np.divmod(found[rows], view.depth.shape[1]), axis=1), rows


def _cells(view: View, pixels: np.ndarray) -> np.ndarray:
    return pixels[:, 0] // CELL * (view.depth.shape[1] // CELL) + pixels[:, 1] // CELL


@njit(cache=True, nogil=True, error_model="numpy")
def _warp(a_depth, a_K, b_depth, b_K, m, threshold, found):
    height, width = b_depth.shape
    for row in range(a_depth.shape[0]):
        for column in range(a_depth.shape[1]):
            found[row, column] = -1
            d = a_depth[row, column]
            px, py = (column - a_K[0, 2]) / a_K[0, 0] * d, (row - a_K[1, 2]) / a_K[1, 1] * d
            x = m[0, 0] * px + m[0, 1] * py + m[0, 2] * d + m[0, 3]
            y = m[1, 0] * px + m[1, 1] * py + m[1, 2] * d + m[1, 3]
            z = m[2, 0] * px + m[2, 1] * py + m[2, 2] * d + m[2, 3]
            u, v = x / z * b_K[0, 0] + b_K[0, 2], y / z * b_K[1, 1] + b_K[1, 2]
            if u > -1 and u < width and v > -1 and v < height:  # no NaN of 0 / 0
                across, down = np.int64(u), np.int64(v)  # toward zero
                if abs(z - b_depth[down, across]) < threshold:
                    found[row, column] = down * width + across


@njit(cache=True, nogil=True, error_model="numpy")
def _project(depth, K, m, voxel_V3, voxel_m, threshold, found):
    height, width = depth.shape
    for row in range(len(voxel_V3)):
        found[row] = -1
        wx, wy, wz = voxel_V3[row, 0], voxel_V3[row, 1], voxel_V3[row, 2]
        wx, wy, wz = wx * voxel_m, wy * voxel_m, wz * voxel_m
        x = m[0, 0] * wx + m[0, 1] * wy + m[0, 2] * wz + m[0, 3]
        y = m[1, 0] * wx + m[1, 1] * wy + m[1, 2] * wz + m[1, 3]
        z = m[2, 0] * wx + m[2, 1] * wy + m[2, 2] * wz + m[2, 3]
        u, v = x / z * K[0, 0] + K[0, 2], y / z * K[1, 1] + K[1, 2]
        if u >= 0 and u < width and v >= 0 and v < height:
            across, down = np.int64(u), np.int64(v)
            if abs(z - depth[down, across]) < threshold:
                found[row] = down * width + across
