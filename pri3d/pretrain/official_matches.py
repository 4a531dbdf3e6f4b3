"""Correspondences as the published code of Pri3D (2021) finds them, for `match_rule: official`.

A point is projected into the other image, the pixel is truncated toward zero, and depths along the
camera's axis are compared. As published, and unlike `matches`: a pixel without depth takes part
with depth 0, points behind a camera are not excluded, a voxel is represented by its lowest corner,
and several matches may share a cell, whose one feature is then its own negative.

Shapes: N matches, V voxels.
"""

import numpy as np
from numba import njit

from pri3d.geometry import View
from pri3d.pretrain.matches import CELL, VoxelMatches

PIXEL_M = 0.05  # meters; depths of two matching pixels differ by less
VOXEL_M = 0.2  # meters; depths of a pixel and its voxel differ by less


def view_matches(
    a: View, b: View, max_matches: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cells int64 [N], [N] of two input images, of matches drawn uniformly, in random order.

    a, b: depth of the input images, with the cameras of the input images.
    """
    pixel_a_N2, pixel_b_N2 = pixel_matches(a, b)
    chosen = rng.permutation(len(pixel_a_N2))[:max_matches]
    return _cells(a, pixel_a_N2[chosen]), _cells(b, pixel_b_N2[chosen])


def geo_matches(
    view: View,
    voxel_V3: np.ndarray,
    color_V3: np.ndarray,
    voxel_m: float,
    max_matches: int,
    rng: np.random.Generator,
) -> VoxelMatches:
    """Cells of an input image and voxels of its chunk, of matches drawn uniformly."""
    pixel_N2, row_N = voxel_matches(view, voxel_V3, voxel_m)
    chosen = rng.permutation(len(row_N))[:max_matches]
    return VoxelMatches(voxel_V3, color_V3, _cells(view, pixel_N2[chosen]), row_N[chosen])


def pixel_matches(a: View, b: View, threshold: float = PIXEL_M) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (row, column) of A and of B, int64 [N, 2] each, in row order of A.

    A pixel's point, projected into B, falls into a pixel whose depth differs by less than the
    threshold (meters) from the depth of the point in B. The images have the same size.
    """
    match = np.empty(a.depth.shape, np.int64)
    b_from_a = np.linalg.inv(b.world_from_camera) @ a.world_from_camera
    _warp(
        a.depth,
        np.asarray(a.K, np.float64),
        b.depth,
        np.asarray(b.K, np.float64),
        b_from_a,
        threshold,
        match,
    )
    pixel_a_N2 = np.argwhere(match >= 0)
    pixel_b_N2 = np.stack(np.divmod(match[match >= 0], b.depth.shape[1]), axis=1)
    return pixel_a_N2, pixel_b_N2


def voxel_matches(
    view: View, voxel_V3: np.ndarray, voxel_m: float, threshold: float = VOXEL_M
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (row, column) int64 [N, 2] and rows int64 [N] of voxels, in the order of the voxels.

    A voxel's corner voxel * voxel_m is projected; it must be inside the image before truncation.
    """
    match_V = np.empty(len(voxel_V3), np.int64)
    camera_from_world = np.linalg.inv(view.world_from_camera)
    K = np.asarray(view.K, np.float64)
    _project(view.depth, K, camera_from_world, voxel_V3, voxel_m, threshold, match_V)
    row_N = np.flatnonzero(match_V >= 0)
    return np.stack(np.divmod(match_V[row_N], view.depth.shape[1]), axis=1), row_N


def _cells(view: View, pixel_N2: np.ndarray) -> np.ndarray:
    return pixel_N2[:, 0] // CELL * (view.depth.shape[1] // CELL) + pixel_N2[:, 1] // CELL


@njit(cache=True, nogil=True, error_model="numpy")
def _warp(
    a_depth: np.ndarray,
    a_K: np.ndarray,
    b_depth: np.ndarray,
    b_K: np.ndarray,
    m: np.ndarray,
    threshold: float,
    match: np.ndarray,
) -> None:
    height, width = b_depth.shape
    for row in range(a_depth.shape[0]):
        for column in range(a_depth.shape[1]):
            match[row, column] = -1
            d = a_depth[row, column]
            px, py = (column - a_K[0, 2]) / a_K[0, 0] * d, (row - a_K[1, 2]) / a_K[1, 1] * d
            x = m[0, 0] * px + m[0, 1] * py + m[0, 2] * d + m[0, 3]
            y = m[1, 0] * px + m[1, 1] * py + m[1, 2] * d + m[1, 3]
            z = m[2, 0] * px + m[2, 1] * py + m[2, 2] * d + m[2, 3]
            u, v = x / z * b_K[0, 0] + b_K[0, 2], y / z * b_K[1, 1] + b_K[1, 2]
            if u > -1 and u < width and v > -1 and v < height:  # no NaN of 0 / 0
                across, down = np.int64(u), np.int64(v)  # toward zero
                if abs(z - b_depth[down, across]) < threshold:
                    match[row, column] = down * width + across


@njit(cache=True, nogil=True, error_model="numpy")
def _project(
    depth: np.ndarray,
    K: np.ndarray,
    m: np.ndarray,
    voxel_V3: np.ndarray,
    voxel_m: float,
    threshold: float,
    match: np.ndarray,
) -> None:
    height, width = depth.shape
    for row in range(len(voxel_V3)):
        match[row] = -1
        wx, wy, wz = voxel_V3[row, 0], voxel_V3[row, 1], voxel_V3[row, 2]
        wx, wy, wz = wx * voxel_m, wy * voxel_m, wz * voxel_m
        x = m[0, 0] * wx + m[0, 1] * wy + m[0, 2] * wz + m[0, 3]
        y = m[1, 0] * wx + m[1, 1] * wy + m[1, 2] * wz + m[1, 3]
        z = m[2, 0] * wx + m[2, 1] * wy + m[2, 2] * wz + m[2, 3]
        u, v = x / z * K[0, 0] + K[0, 2], y / z * K[1, 1] + K[1, 2]
        if u >= 0 and u < width and v >= 0 and v < height:
            across, down = np.int64(u), np.int64(v)
            if abs(z - depth[down, across]) < threshold:
                match[row] = down * width + across
