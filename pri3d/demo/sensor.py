"""A hand-held RGB-D sensor: two cameras side by side, and what each gets wrong."""

from typing import NamedTuple

import numpy as np

MAX_DEPTH_M = 8.0
LOST_RUNS = 2  # stretches of lost tracking in a scan

# ScanNet's sensor at 640x480 (depth) and 1296x968 (colour).
_DEPTH_FOCAL, _DEPTH_HEIGHT = 577.6, 480
_COLOR_FOCAL, _COLOR_HEIGHT = 1168.0, 968


class Rig(NamedTuple):
    """Shapes (height, width), 4x4 intrinsics, and where the depth camera stands in the colour
    camera's frame. The pose of a frame is the depth camera's."""

    color_shape: tuple[int, int]
    depth_shape: tuple[int, int]
    color_intrinsic: np.ndarray
    depth_intrinsic: np.ndarray
    color_from_depth: np.ndarray


def make_rig(height: int, color_height: int, rng: np.random.Generator) -> Rig:
    """Cameras of one scan; values are exact in float32, as the file holds them."""

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
    angle = np.linalg.norm(turn)
    x, y, z = turn / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def expose(radiance: np.ndarray, target: float = 0.3) -> float:
    """Gain that brings the mean of linear RGB to `target`, most of the way as cameras do."""
    return float((target / max(float(radiance.mean()), 1e-6)) ** 0.85)


def develop(radiance: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Linear RGB float32 [..., 3] to u8.

    With `rng`, exposure and white balance differ from frame to frame and pixels are noisy.
    """
    gain = np.full(3, expose(radiance))
    if rng is not None:
        gain = gain * np.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.05, 3))
    values = np.sqrt(np.clip(radiance * gain.astype(np.float32), 0, 1)) * np.float32(255)
    if rng is not None:
        values += np.float32(2) * rng.standard_normal(values.shape, np.float32)
    return np.clip(values + np.float32(0.5), 0, 255).astype(np.uint8)


def quantise(depth: np.ndarray) -> np.ndarray:
    """Metres to u16 millimetres, 0 = none."""
    return np.clip(np.rint(depth * 1000), 0, 65535).astype(np.uint16)


def measure(depth: np.ndarray, focal: float, rng: np.random.Generator) -> np.ndarray:
    """What a structured-light sensor returns for a true depth image [H, W], in metres, 0 = none.

    Noise grows with the squared distance. Nothing is measured on surfaces seen at a grazing angle
    and at depth edges (both are steep slopes of the image), in a few random patches, at single
    pixels, and beyond `MAX_DEPTH_M`.
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
        middle = rng.random(2) * depth.shape
        radii = rng.uniform(0.01, 0.07, 2) * width
        patch = ((rows - middle[0]) / radii[0]) ** 2 + ((columns - middle[1]) / radii[1]) ** 2
        lost |= patch < 1
    lost |= (depth <= 0) | (depth > MAX_DEPTH_M)
    return np.where(lost, 0, depth + noise)


def lost_frames(frames: int, rng: np.random.Generator) -> np.ndarray:
    """bool [frames]: where tracking is lost, in `LOST_RUNS` stretches of 2.5 % of the scan each.

    The first frame is always tracked.
    """
    lost = np.zeros(frames, bool)
    length = max(1, frames // 40)
    if frames >= 10:
        for start in rng.integers(1, frames - length + 1, LOST_RUNS):
            lost[start : start + length] = True
    return lost
