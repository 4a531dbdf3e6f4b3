"""A hand-held RGB-D sensor: its color and depth cameras, and their errors."""

from typing import NamedTuple

import numpy as np

MAX_DEPTH_M = 8.0
LOST_STRETCHES = 2  # number of stretches of lost tracking in a scan

# ScanNet's sensor at 640x480 (depth) and 1296x968 (color).
_DEPTH_FOCAL, _DEPTH_HEIGHT = 577.6, 480
_COLOR_FOCAL, _COLOR_HEIGHT = 1168.0, 968


class Rig(NamedTuple):
    """Both cameras of a scan: shapes (height, width), intrinsics [4, 4] and extrinsics [4, 4].

    The pose of a frame is the pose of its depth camera.
    """

    color_shape: tuple[int, int]
    depth_shape: tuple[int, int]
    color_intrinsic: np.ndarray
    depth_intrinsic: np.ndarray
    color_from_depth: np.ndarray


def make_rig(height: int, color_height: int, rng: np.random.Generator) -> Rig:
    """The cameras of one scan, with values exact in float32 as they are stored.

    Args:
        height: of depth images; their width is 4/3 of it.
        color_height: of color images.
        rng: of the small differences from scan to scan.
    """

    def camera(rows: int, focal: float) -> tuple[tuple[int, int], np.ndarray]:
        shape = (rows, round(rows * 4 / 3))
        K = np.eye(4)
        K[0, 0] = K[1, 1] = focal * rng.uniform(0.995, 1.005)
        K[1, 1] *= rng.uniform(0.998, 1.002)
        K[:2, 2] = (np.array(shape[::-1]) - 1) / 2 + rng.uniform(-0.006, 0.006, 2) * rows
        return shape, K.astype(np.float32).astype(np.float64)

    depth = camera(height, _DEPTH_FOCAL * height / _DEPTH_HEIGHT)
    color = camera(color_height, _COLOR_FOCAL * color_height / _COLOR_HEIGHT)
    turn = rng.normal(0, 0.004, 3)
    color_from_depth = np.eye(4)
    color_from_depth[:3, :3] = _rotation_vector(turn)
    color_from_depth[:3, 3] = rng.uniform((-0.03, -0.004, -0.004), (-0.02, 0.004, 0.004))
    color_from_depth = color_from_depth.astype(np.float32).astype(np.float64)
    return Rig(color[0], depth[0], color[1], depth[1], color_from_depth)


def _rotation_vector(turn: np.ndarray) -> np.ndarray:
    """The rotation [3, 3] of a rotation vector [3] in radians."""
    angle = np.linalg.norm(turn)
    x, y, z = turn / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def expose(radiance: np.ndarray, target: float = 0.3) -> float:
    """The gain that moves the mean of linear RGB most of the way to `target`, as cameras do."""
    return float((target / max(float(radiance.mean()), 1e-6)) ** 0.85)


def develop(radiance: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Linear RGB float32 [..., 3] to u8 with a gamma of 2.

    With `rng`, exposure and white balance vary from frame to frame, and pixels are noisy.
    """
    gain = np.full(3, expose(radiance))
    if rng is not None:
        gain = gain * np.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.05, 3))
    values = np.sqrt(np.clip(radiance * gain.astype(np.float32), 0, 1)) * np.float32(255)
    if rng is not None:
        values += np.float32(2) * rng.standard_normal(values.shape, np.float32)
    return np.clip(values + np.float32(0.5), 0, 255).astype(np.uint8)


def quantize(depth: np.ndarray) -> np.ndarray:
    """Depth in meters to u16 millimeters, 0 for no measurement."""
    return np.clip(np.rint(depth * 1000), 0, 65535).astype(np.uint16)


def measure(depth: np.ndarray, focal: float, rng: np.random.Generator) -> np.ndarray:
    """Simulate the measurement of a structured-light sensor.

    Noise grows with the squared distance. Pixels are lost on surfaces at a grazing angle and at
    depth edges (steep slopes of the image in both cases), in a few random patches, at random single
    pixels, and beyond `MAX_DEPTH_M`.

    Args:
        depth: true depth [H, W] in meters, 0 where nothing is.
        focal: focal length in pixels.
        rng: of the noise.

    Returns:
        Measured depth [H, W] in meters, 0 for no measurement.
    """
    height, width = depth.shape
    noise = (0.0005 + 0.001 * depth**2) * rng.standard_normal(depth.shape, np.float32)
    slope = np.zeros(depth.shape)
    for axis in (0, 1):
        step = np.abs(np.diff(depth, axis=axis))
        for side in (slice(None, -1), slice(1, None)):
            part = (side, slice(None)) if axis == 0 else (slice(None), side)
            slope[part] = np.maximum(slope[part], step)
    slope *= focal / np.maximum(depth, 1e-6)
    lost = rng.random(depth.shape, np.float32) * 8 + 4 < slope
    lost |= rng.random(depth.shape, np.float32) < 0.003
    rows, columns = np.arange(height)[:, None], np.arange(width)
    for _ in range(rng.poisson(3)):
        center = rng.random(2) * depth.shape
        radii = rng.uniform(0.01, 0.07, 2) * width
        patch = ((rows - center[0]) / radii[0]) ** 2 + ((columns - center[1]) / radii[1]) ** 2
        lost |= patch < 1
    lost |= (depth <= 0) | (depth > MAX_DEPTH_M)
    return np.where(lost, 0, depth + noise)


def lost_frames(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Mask bool [frames] of the frames without a pose; the first frame always has one.

    Tracking is lost in `LOST_STRETCHES` stretches of 2.5 % of the scan each.
    """
    lost = np.zeros(frames, bool)
    length = max(1, frames // 40)
    if frames >= 10:
        for start in rng.integers(1, frames - length + 1, LOST_STRETCHES):
            lost[start : start + length] = True
    return lost
