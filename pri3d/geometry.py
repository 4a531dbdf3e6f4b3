"""Pinhole geometry in numpy, float64 throughout.

Conventions, stated once for the whole project:

- A transform is named `target_from_source`, is a 4x4 matrix and reads right to left:
  ``p_world = world_from_camera @ p_camera``.
- The camera looks along +z, x points right and y points down, all in metres.
- An integer pixel coordinate is the *centre* of that pixel: the image covers
  ``[-0.5, width - 0.5] x [-0.5, height - 0.5]``, and the pixel that holds (u, v) is
  ``(floor(u + 0.5), floor(v + 0.5))``. `u` counts columns, `v` rows.
- `K` is the 3x3 intrinsic matrix. Skew is not supported; no source of RGB-D scans uses it.
- Validity masks travel beside points: a function that can fail for single points returns
  ``(values, valid)``.
"""

from typing import NamedTuple

import numpy as np


class ColorCamera(NamedTuple):
    """The color camera beside a depth camera: K [3, 3], shape (height, width) of its images, and
    color_from_depth [4, 4].
    """

    K: np.ndarray
    shape: tuple[int, int]
    color_from_depth: np.ndarray


class View(NamedTuple):
    """One posed depth image.

    depth: float64 [H, W] meters along the optical axis, 0 = no measurement; K: [3, 3];
    world_from_camera: [4, 4], used as given. color: the color camera, if it is known.
    """

    depth: np.ndarray
    K: np.ndarray
    world_from_camera: np.ndarray
    color: ColorCamera | None = None


# Poses in real scans are printed with seven digits and are off orthonormal by up to 4e-4 (singular
# values), which is 8e-4 in R^T R. A pose with a scale or a shear is an order of magnitude further.
ORTHONORMAL_TOLERANCE = 5e-3


def pose_problem(world_from_camera: np.ndarray) -> str | None:
    """Why a 4x4 matrix is no camera pose, or None if it is one.

    Returns one of "pose_not_finite" (lost tracking is stored as -inf), "pose_zero" (all zeros),
    "pose_not_rigid" (rotation block not orthonormal within `ORTHONORMAL_TOLERANCE`, a reflection,
    or a last row other than 0 0 0 1). A good pose is used as given, never orthonormalised.
    """
    pose = np.asarray(world_from_camera, np.float64)
    if not np.isfinite(pose).all():
        return "pose_not_finite"
    if not pose.any():
        return "pose_zero"
    rotation = pose[:3, :3]
    if np.abs(rotation).max() > 2 or np.abs(pose[3] - (0, 0, 0, 1)).max() > 1e-6:
        return "pose_not_rigid"
    off = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if off > ORTHONORMAL_TOLERANCE or np.linalg.det(rotation) < 0:
        return "pose_not_rigid"
    return None


def transform(target_from_source: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a 4x4 transform to points [..., 3]; float64 [..., 3]."""
    matrix = np.asarray(target_from_source, np.float64)
    return np.asarray(points, np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def pixel_rays(shape: tuple[int, int], K: np.ndarray) -> np.ndarray:
    """Viewing rays with z = 1 through every pixel centre: float64 [H, W, 3], camera frame."""
    height, width = shape
    rays = np.ones((height, width, 3))
    rays[..., 0] = (np.arange(width) - K[0, 2]) / K[0, 0]
    rays[..., 1] = ((np.arange(height) - K[1, 2]) / K[1, 1])[:, None]
    return rays


def unproject(depth: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth image to points in the camera frame.

    depth: [H, W] metres along the optical axis; 0 (and anything not finite) is no measurement.
    Returns points float64 [H, W, 3] in metres and valid bool [H, W]; invalid points are (0, 0, 0).
    """
    depth = np.asarray(depth, np.float64)
    valid = np.isfinite(depth) & (depth > 0)
    depth = np.where(valid, depth, 0.0)
    return pixel_rays(depth.shape, K) * depth[..., None], valid


def project(
    points: np.ndarray, K: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Camera-frame points [..., 3] to pixel coordinates.

    Returns uv float64 [..., 2] (column, row) and valid bool [...]: in front of the camera and
    inside the image of `shape` (height, width). Coordinates of invalid points are meaningless.
    """
    points = np.asarray(points, np.float64)
    z = points[..., 2]
    in_front = z > 0
    safe_z = np.where(in_front, z, 1.0)
    u = points[..., 0] / safe_z * K[0, 0] + K[0, 2]
    v = points[..., 1] / safe_z * K[1, 1] + K[1, 2]
    height, width = shape
    valid = in_front & (u >= -0.5) & (u < width - 0.5) & (v >= -0.5) & (v < height - 0.5)
    return np.stack([u, v], axis=-1), valid


def scale_intrinsics(
    K: np.ndarray, from_shape: tuple[int, int], to_shape: tuple[int, int]
) -> np.ndarray:
    """Intrinsics of the same camera for an image resampled to another (height, width).

    With pixel centres at integers, the image edges (-0.5 and size - 0.5) stay where they are:
    ``c' = (c + 0.5) * scale - 0.5``.
    """
    scale_x, scale_y = to_shape[1] / from_shape[1], to_shape[0] / from_shape[0]
    scaled = np.array(K, np.float64, copy=True)
    scaled[0, 0] *= scale_x
    scaled[1, 1] *= scale_y
    scaled[0, 2] = (K[0, 2] + 0.5) * scale_x - 0.5
    scaled[1, 2] = (K[1, 2] + 0.5) * scale_y - 0.5
    return scaled


def frustum_corners(K: np.ndarray, shape: tuple[int, int], near: float, far: float) -> np.ndarray:
    """The eight corners [8, 3] (camera frame, metres) of the view frustum between two depths.

    The frustum is bounded by the image's edges, not by the outermost pixel centres.
    """
    height, width = shape
    u = np.array([-0.5, width - 0.5])
    v = np.array([-0.5, height - 0.5])
    x = (u - K[0, 2]) / K[0, 0]
    y = (v - K[1, 2]) / K[1, 1]
    corners = [(cx * z, cy * z, z) for z in (near, far) for cy in y for cx in x]
    return np.array(corners, np.float64)
