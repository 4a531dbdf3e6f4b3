"""A small scan with a closed form, as clouds artefacts: cameras inside an empty box-shaped room."""

from pathlib import Path

import numpy as np
import simplejpeg

from pri3d import store

ROOM = np.array([3.0, 2.4, 2.0])  # meters; the room is [0, 3] x [0, 2.4] x [0, 2]
SHIFT = 1000.0
WALL_COLORS = np.array(
    [[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40], [200, 40, 200], [40, 200, 200]],
    np.uint8,
)


def look(eye, yaw: float, pitch: float = 0.0) -> np.ndarray:
    """world_from_camera of a level camera (world z is up) turned by yaw, then tilted down."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose


def poses(count: int) -> list[np.ndarray]:
    return [
        look((1.2 + 0.1 * k, 1.1 + 0.05 * k, 1.0), 0.35 * k - 0.3, 0.1 * np.sin(k))
        for k in range(count)
    ]


def intrinsics(shape) -> np.ndarray:
    height, width = shape
    return np.array(
        [[0.9 * width, 0, width / 2 - 0.3], [0, 0.9 * width, height / 2 + 0.2], [0, 0, 1]]
    )


def raycast(pose: np.ndarray, K: np.ndarray, shape) -> tuple[np.ndarray, np.ndarray]:
    """Depth [H, W] in meters and the wall (0..5) that each pixel sees."""
    height, width = shape
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(shape)], axis=-1)
    rays = rays @ pose[:3, :3].T
    with np.errstate(divide="ignore"):
        to_wall = np.concatenate([-pose[:3, 3] / rays, (ROOM - pose[:3, 3]) / rays], axis=-1)
    to_wall[~(to_wall > 0)] = np.inf
    return to_wall.min(axis=-1), to_wall.argmin(axis=-1)


def make_clouds(
    path: Path,
    cameras: list[np.ndarray] | None = None,
    shape: tuple[int, int] = (48, 64),
    scene: str = "room",
    dropped: tuple[tuple[int, bytes], ...] = ((3, b"pose_not_finite"), (5, b"no_depth")),
    status: str = "ok",
    depth_change=lambda depth: depth,
) -> Path:
    """Write a clouds artefact; every 7th pixel of frame 0 is a hole. Frames are 10, 12, 14 ..."""
    cameras = poses(4) if cameras is None else cameras
    K, color_shape = intrinsics(shape), (shape[0] * 2, shape[1] * 2)
    color_K = intrinsics(color_shape)
    depth = np.zeros((len(cameras), *shape), np.uint16)
    jpegs = []
    for row, pose in enumerate(cameras):
        depth[row] = np.rint(raycast(pose, K, shape)[0] * SHIFT)
        walls = raycast(pose, color_K, color_shape)[1]
        jpegs.append(simplejpeg.encode_jpeg(WALL_COLORS[walls], 95, "RGB", "444"))
    depth[:1].reshape(-1)[::7] = 0
    depth = depth_change(depth)
    intrinsic4, color4 = np.eye(4), np.eye(4)
    intrinsic4[:3, :3], color4[:3, :3] = K, color_K
    with store.publish(path, "pri3d-clouds", {"every": 2}, {"sens": "0" * 64}) as writer:
        writer.attribute("scene", scene)
        writer.attribute("status", status)
        writer.attribute("frames_in_scan", 100)
        writer.attribute("frames_in", len(cameras) + len(dropped))
        writer.attribute("depth_shift", SHIFT)
        writer.attribute("depth_intrinsic", intrinsic4)
        writer.attribute("color_intrinsic", color4)
        writer.attribute("color_shape", color_shape)
        writer.attribute("color_from_depth", np.eye(4))
        writer.dataset("frames/index", np.arange(len(cameras), dtype=np.uint32) * 2 + 10)
        writer.dataset("frames/world_from_camera", np.array(cameras).reshape(-1, 4, 4))
        writer.dataset("frames/depth", depth, compress=True, chunks=(1, *shape))
        writer.dataset("frames/points", np.count_nonzero(depth, axis=(1, 2)).astype(np.uint32))
        writer.dataset("frames/color", np.frombuffer(b"".join(jpegs), np.uint8))
        offset = np.cumsum([0] + [len(jpeg) for jpeg in jpegs])
        writer.dataset("frames/color_offset", offset.astype(np.uint64))
        writer.dataset("dropped/index", np.array([n for n, _ in dropped], np.uint32))
        writer.dataset("dropped/reason", np.array([r for _, r in dropped], "S16"))
    return path
