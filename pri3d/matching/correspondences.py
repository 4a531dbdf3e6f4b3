"""Pixel-to-pixel correspondences of two posed depth images.

A pixel of A corresponds to the pixel of B whose world point is nearest to its own, if that lies
within the radius (Pri3D, Hou et al. 2021, section 3.1: 2 cm).
"""

import numpy as np
from jaxtyping import Float64, Int, Int64
from numba import njit

from pri3d.geometry import View


def nearest(
    a: View, b: View, radius: float, pixels: Int[np.ndarray, "queries 2"] | None = None
) -> tuple[Int64[np.ndarray, "n 2"], Int64[np.ndarray, "n 2"], Float64[np.ndarray, " n"]]:
    """Find, for pixels of A, the pixel of B with the nearest world point within the radius.

    Poses are used as given: distances are in world coordinates. Of equally near points, the first
    in row order is taken.

    Args:
        a, b: posed depth images.
        radius: meters; a match is closer than this.
        pixels: (row, column) of pixels of A, in any order; default all that have depth.

    Returns:
        Pixels of A that have a match, their matches in B (both row, column), and distances in
        meters, in the order of `pixels`. Pixels without depth or without a match are left out.
    """
    if pixels is None:
        pixels = np.argwhere(a.depth > 0)
    pixels = np.ascontiguousarray(pixels, np.int64).reshape(-1, 2)
    matches, distance = nearest_of_each(a, b, radius, pixels)
    has_match = matches[:, 0] >= 0
    return pixels[has_match], matches[has_match], distance[has_match]


def nearest_of_each(
    a: View, b: View, radius: float, pixels: Int64[np.ndarray, "n 2"]
) -> tuple[Int64[np.ndarray, "n 2"], Float64[np.ndarray, " n"]]:
    """As `nearest`, with one row per given pixel.

    Returns:
        The matches in B (row, column; -1 without a match) and distances in meters (undefined
        without a match).
    """
    matches = np.empty((len(pixels), 2), np.int64)
    distance = np.empty(len(pixels))
    rotation = b.world_from_camera[:3, :3]
    b_from_a = np.linalg.inv(b.world_from_camera) @ a.world_from_camera
    # A pose need not be exactly orthonormal: the squared length of d in B's camera is
    # d^T (R^T R) d in the world, and the length at least d times the smallest singular value.
    shrink = np.linalg.svd(rotation, compute_uv=False)[-1]
    _search(
        a.depth,
        np.asarray(a.K, np.float64),
        b.depth,
        np.asarray(b.K, np.float64),
        b_from_a,
        rotation.T @ rotation,
        radius,
        radius / shrink * (1 + 1e-9),
        pixels,
        matches,
        distance,
    )
    return matches, distance


@njit(cache=True, nogil=True)
def _search(a_depth, a_K, b_depth, b_K, m, metric, radius, reach, pixels, matches, distance):
    height, width = b_depth.shape
    camera = (b_K[0, 2], b_K[1, 2], 1 / b_K[0, 0], 1 / b_K[1, 1])
    ball = (metric[0, 0], metric[1, 1], metric[2, 2])
    mixed = (2 * metric[0, 1], 2 * metric[0, 2], 2 * metric[1, 2])
    for k in range(len(pixels)):
        matches[k, 0] = matches[k, 1] = -1
        row, column = pixels[k, 0], pixels[k, 1]
        depth = a_depth[row, column]
        if not (depth > 0 and depth < np.inf):
            continue
        px, py = (column - a_K[0, 2]) / a_K[0, 0] * depth, (row - a_K[1, 2]) / a_K[1, 1] * depth
        x = m[0, 0] * px + m[0, 1] * py + m[0, 2] * depth + m[0, 3]
        y = m[1, 0] * px + m[1, 1] * py + m[1, 2] * depth + m[1, 3]
        z = m[2, 0] * px + m[2, 1] * py + m[2, 2] * depth + m[2, 3]
        if z <= -reach:
            continue
        best, near = radius * radius, reach
        u0, u1, v0, v1 = _window(x, y, z, near, b_K, height, width)
        if z > 1.01 * reach and u0 <= u1 and v0 <= v1:
            # The pixel that the point projects to is rarely far off, and bounds the search.
            u = np.intp(x / z * b_K[0, 0] + b_K[0, 2] + 0.5)
            v = np.intp(y / z * b_K[1, 1] + b_K[1, 2] + 0.5)
            u, v = min(max(u, u0), u1), min(max(v, v0), v1)
            if b_depth[v, u] > 0:
                squared = _squared(x, y, z, u, v, b_depth[v, u], camera, ball, mixed)
                if squared < best:
                    # A little more, so that the search also finds this pixel, or one before it.
                    best = min(best, squared * (1 + 1e-9) + 1e-30)
                    near = np.sqrt(best) / radius * reach * (1 + 1e-9)
                    u0, u1, v0, v1 = _window(x, y, z, near, b_K, height, width)
        for v in range(v0, v1 + 1):
            for u in range(u0, u1 + 1):
                q = b_depth[v, u]
                if q > 0 and abs(q - z) < near:
                    squared = _squared(x, y, z, u, v, q, camera, ball, mixed)
                    if squared < best:
                        best = squared
                        matches[k, 0], matches[k, 1] = v, u
        distance[k] = np.sqrt(best)


@njit(cache=True, nogil=True)
def _window(x, y, z, reach, K, height, width):
    """First and last column and row in which a point closer than `reach` to (x, y, z) can be:
    the exact bounds of the ball's projection, or the whole image if it may contain the camera.
    """
    if not z > 1.01 * reach:
        return 0, width - 1, 0, height - 1
    span = z * z - reach * reach
    half_u = reach * np.sqrt(x * x + span) / span * K[0, 0] + 1e-6
    half_v = reach * np.sqrt(y * y + span) / span * K[1, 1] + 1e-6
    mid_u, mid_v = x * z / span * K[0, 0] + K[0, 2], y * z / span * K[1, 1] + K[1, 2]
    if mid_u + half_u < 0 or mid_u - half_u > width - 1:
        return 0, -1, 0, -1
    if mid_v + half_v < 0 or mid_v - half_v > height - 1:
        return 0, -1, 0, -1
    u0, u1 = max(0, int(np.ceil(mid_u - half_u))), min(width - 1, int(mid_u + half_u))
    v0, v1 = max(0, int(np.ceil(mid_v - half_v))), min(height - 1, int(mid_v + half_v))
    return u0, u1, v0, v1


@njit(cache=True, nogil=True)
def _squared(x, y, z, u, v, depth, camera, ball, mixed):
    """Squared world distance of (x, y, z), in the camera's coordinates, to a pixel's point."""
    cx, cy, per_fx, per_fy = camera
    dx, dy, dz = (u - cx) * per_fx * depth - x, (v - cy) * per_fy * depth - y, depth - z
    squared = dx * (ball[0] * dx + mixed[0] * dy + mixed[1] * dz)
    return squared + dy * (ball[1] * dy + mixed[2] * dz) + ball[2] * dz * dz
