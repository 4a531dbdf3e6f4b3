"""Pinhole geometry in numpy, float64 throughout.

Conventions of the whole project:

- A transform is named `target_from_source`, is a 4x4 matrix and reads right to left:
  ``p_world = world_from_camera @ p_camera``.
- The camera looks along +z, x points right and y points down, all in meters.
- An integer pixel coordinate is the *center* of that pixel: the image covers
  ``[-0.5, width - 0.5] x [-0.5, height - 0.5]``, and the pixel that holds (u, v) is
  ``(floor(u + 0.5), floor(v + 0.5))``. `u` counts columns, `v` rows.
- `K` is the 3x3 intrinsic matrix. Skew is not supported; no source of RGB-D scans uses it.
- A function that can fail for single points returns ``(values, valid)``.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num, Real


class ColorCamera(NamedTuple):
    """The color camera beside a depth camera; shape: (height, width) of its images."""

    K: Real[np.ndarray, "3 3"]
    shape: tuple[int, int]
    color_from_depth: Real[np.ndarray, "4 4"]


class View(NamedTuple):
    """One posed depth image.

    Attributes:
        depth: meters along the optical axis, 0 = no measurement.
        K: intrinsic matrix.
        world_from_camera: pose, used as given.
        color: the color camera, if it is known.
    """

    depth: Real[np.ndarray, "height width"]
    K: Real[np.ndarray, "3 3"]
    world_from_camera: Real[np.ndarray, "4 4"]
    color: ColorCamera | None = None


# Rotations in real scans have seven digits, and singular values that differ from 1 by up to 4e-4,
# which is 8e-4 in R^T R. With a scale or a shear, the difference is ten times as large or more.
ORTHONORMAL_TOLERANCE = 5e-3


def pose_problem(world_from_camera: Num[np.ndarray, "4 4"]) -> str | None:
    """The reason why a 4x4 matrix is not a camera pose, or None if it is one.

    A valid pose is used as given; it is never made orthonormal.

    Returns:
        "pose_not_finite" (lost tracking is stored as -inf), "pose_zero" (all zeros), or
        "pose_not_rigid" (rotation not orthonormal within `ORTHONORMAL_TOLERANCE`, a reflection, or
        a last row other than 0 0 0 1).
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


def transform(
    target_from_source: Real[np.ndarray, "4 4"], points: Real[np.ndarray, "*batch 3"]
) -> Float[np.ndarray, "*batch 3"]:
    """Apply a transform to points; the result is float64."""
    matrix = np.asarray(target_from_source, np.float64)
    return np.asarray(points, np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def pixel_rays(
    shape: tuple[int, int], K: Real[np.ndarray, "3 3"]
) -> Float[np.ndarray, "height width 3"]:
    """Viewing rays with z = 1 through all pixel centers, in the camera frame; float64."""
    height, width = shape
    rays = np.ones((height, width, 3))
    rays[..., 0] = (np.arange(width) - K[0, 2]) / K[0, 0]
    rays[..., 1] = ((np.arange(height) - K[1, 2]) / K[1, 1])[:, None]
    return rays


def unproject(
    depth: Real[np.ndarray, "height width"], K: Real[np.ndarray, "3 3"]
) -> tuple[Float[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
    """Convert a depth image to points in the camera frame.

    Args:
        depth: meters along the optical axis; 0, negative and non-finite values are no measurement.
        K: intrinsic matrix.

    Returns:
        points (float64, meters) and valid; invalid points are (0, 0, 0).
    """
    depth = np.asarray(depth, np.float64)
    valid = np.isfinite(depth) & (depth > 0)
    depth = np.where(valid, depth, 0.0)
    return pixel_rays(depth.shape, K) * depth[..., None], valid


def project(
    points: Real[np.ndarray, "*batch 3"], K: Real[np.ndarray, "3 3"], shape: tuple[int, int]
) -> tuple[Float[np.ndarray, "*batch 2"], Bool[np.ndarray, "*batch"]]:
    """Project points in the camera frame to pixel coordinates.

    Args:
        points: meters.
        K: intrinsic matrix.
        shape: height and width of the image.

    Returns:
        uv (float64; column, row) and valid: in front of the camera and inside the image.
        Coordinates of invalid points are meaningless.
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
    K: Real[np.ndarray, "rows columns"],
    from_shape: tuple[int | float, int | float],
    to_shape: tuple[int, int],
) -> Float[np.ndarray, "rows columns"]:
    """Intrinsics (3x3 or 4x4) of the same camera for an image resampled to another height, width.

    Sizes may be fractional, such as those of a crop.

    With pixel centers at integers, the image edges (-0.5 and size - 0.5) stay where they are:
    ``c' = (c + 0.5) * scale - 0.5``.
    """
    scale_x, scale_y = to_shape[1] / from_shape[1], to_shape[0] / from_shape[0]
    scaled = np.array(K, np.float64, copy=True)
    scaled[0, 0] *= scale_x
    scaled[1, 1] *= scale_y
    scaled[0, 2] = (K[0, 2] + 0.5) * scale_x - 0.5
    scaled[1, 2] = (K[1, 2] + 0.5) * scale_y - 0.5
    return scaled


def frustum_corners(
    K: Real[np.ndarray, "3 3"], shape: tuple[int, int], near: float, far: float
) -> Float[np.ndarray, "8 3"]:
    """Corners (camera frame, meters) of the view frustum between the depths `near` and `far`.

    The frustum is bounded by the image's edges, not by the outermost pixel centers.
    """
    height, width = shape
    u = np.array([-0.5, width - 0.5])
    v = np.array([-0.5, height - 0.5])
    x = (u - K[0, 2]) / K[0, 0]
    y = (v - K[1, 2]) / K[1, 1]
    corners = [(cx * z, cy * z, z) for z in (near, far) for cy in y for cx in x]
    return np.array(corners, np.float64)
