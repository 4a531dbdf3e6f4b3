"""A tiny synthetic scan as artefacts: an empty, painted room seen by a few cameras.

Everything is analytic: depth is where a pixel's ray meets a wall, color is a function of the
position on the wall, and the surface is the walls themselves. Color images come from a second
camera beside the depth camera, with another size and other intrinsics, as in a real sensor.
"""

import json
from pathlib import Path

import h5py
import numpy as np
import simplejpeg

from pri3d import geometry, store
from pri3d.artefacts import CHUNKS, CLOUDS, PAIRS

ROOM = np.array([[-0.713, -0.613, -0.507], [0.887, 0.787, 0.693]])  # meters, lowest and highest
DEPTH_SHAPE, COLOR_SHAPE = (48, 64), (96, 128)
DEPTH_K = np.array([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]])
COLOR_K = np.array([[104.0, 0, 62.5], [0, 104, 48.5], [0, 0, 1]])
DEPTH_SHIFT = 10000.0
COLOR_FROM_DEPTH = np.eye(4)
COLOR_FROM_DEPTH[:3, 3] = (0.015, -0.004, 0.002)


def look(position, target) -> np.ndarray:
    """world_from_camera of a camera at `position` that looks at `target`, z up."""
    forward = np.subtract(target, position)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0, 0, 1.0))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = position
    return pose


def cast(K, shape, world_from_camera) -> tuple[np.ndarray, np.ndarray]:
    """Depth [H, W] (meters) and world points [H, W, 3] of the walls that a camera sees."""
    rays = geometry.pixel_rays(shape, K) @ world_from_camera[:3, :3].T
    origin = world_from_camera[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.nanmax((ROOM[:, None, None] - origin) / rays, axis=0).min(axis=-1)
    return depth, origin + rays * depth[..., None]


def paint(points) -> np.ndarray:
    """Color u8 [..., 3] of points in the world: smooth, and different everywhere."""
    x, y, z = np.moveaxis(np.asarray(points), -1, 0)
    waves = [np.sin(7 * x + 3 * y) + np.sin(11 * z), np.sin(9 * y - 4 * z), np.sin(8 * z + 5 * x)]
    patches = np.sin(np.floor(x * 6) * 12.9 + np.floor(y * 6) * 78.2 + np.floor(z * 6) * 37.7)
    return np.stack([128 + 45 * w + 30 * patches for w in waves], -1).clip(0, 255).astype(np.uint8)


def walls(spacing: float = 0.01) -> np.ndarray:
    """Points [n, 3] on all walls."""
    axes = [np.arange(low, high, spacing) for low, high in ROOM.T]
    points = []
    for axis in range(3):
        u, v = (a.ravel() for a in np.meshgrid(*(axes[i] for i in range(3) if i != axis)))
        points += [np.insert(np.stack([u, v], 1), axis, end, axis=1) for end in ROOM[:, axis]]
    return np.concatenate(points)


def poses(frames: int) -> list[np.ndarray]:
    """A short sideways path along which all frames see much of the same wall."""
    return [
        look((0.10 * i - 0.2, -0.35 - 0.02 * i, 0.05 * i), (0.1 * i, 0.7, 0.05))
        for i in range(frames)
    ]


def make_artefacts(
    root: Path, scenes: int = 1, frames: int = 4, voxel_m: float = 0.04, edit=None
) -> dict[str, Path]:
    """Write pairs.h5, clouds/ and chunks/ below `root`; all frames of a scan are pairs.

    edit(scene, frames, chunks): changes the arrays before they are written: frames is a dict of
    lists (index, depth, jpeg), chunks a dict (voxel, color, rows: list of arrays).
    Returns the three paths under the names of the parameters of `training.run`.
    """
    path = np.array(poses(frames))
    cloud_digests, names = {}, [f"room{i:02d}" for i in range(scenes)]
    for name in names:
        content = {"index": [10 * i for i in range(frames)], "depth": [], "jpeg": []}
        for pose in path:
            depth, _ = cast(DEPTH_K, DEPTH_SHAPE, pose)
            content["depth"].append(np.round(depth * DEPTH_SHIFT).astype(np.uint16))
            world_from_color = pose @ np.linalg.inv(COLOR_FROM_DEPTH)
            _, points = cast(COLOR_K, COLOR_SHAPE, world_from_color)
            content["jpeg"].append(simplejpeg.encode_jpeg(paint(points), 95))
        voxel = np.unique(np.floor(walls() / voxel_m).astype(np.int32), axis=0)
        surface = {"voxel": voxel, "color": paint((voxel + 0.5) * voxel_m)}
        surface["rows"] = [_in_frustum(voxel, pose, voxel_m) for pose in path]
        if edit is not None:
            edit(name, content, surface)
        _write_clouds(root / f"clouds/{name}.h5", name, content, path)
        with h5py.File(root / f"clouds/{name}.h5") as file:
            cloud_digests[name] = str(file.attrs["digest"])
        _write_chunks(root / f"chunks/{name}.h5", name, content, surface, voxel_m, cloud_digests)
    _write_pairs(root / "pairs.h5", names, frames, cloud_digests)
    return {
        "pairs": root / "pairs.h5",
        "clouds_dir": root / "clouds",
        "chunks_dir": root / "chunks",
    }


def _in_frustum(voxel, pose, voxel_m) -> np.ndarray:
    depth, _ = cast(DEPTH_K, DEPTH_SHAPE, pose)
    corners = geometry.frustum_corners(DEPTH_K, DEPTH_SHAPE, depth.min(), depth.max())
    corners = np.floor(geometry.transform(pose, corners) / voxel_m)
    inside = (voxel >= corners.min(axis=0)) & (voxel <= corners.max(axis=0))
    return np.flatnonzero(inside.all(axis=1)).astype(np.uint32)


def _box(voxel) -> np.ndarray:
    """Lowest and highest voxel, both inside; no voxels: an empty box."""
    if not len(voxel):
        return np.array([[0, 0, 0], [-1, -1, -1]], np.int32)
    return np.stack([voxel.min(axis=0), voxel.max(axis=0)]).astype(np.int32)


def _matrix4(K) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = K
    return matrix


def _write_clouds(path, scene, content, path_of_camera) -> None:
    jpegs = content["jpeg"]
    with store.publish(path, CLOUDS, {}, {"sens": "0" * 64}) as writer:
        for key, value in {
            "scene": scene,
            "status": "ok",
            "frames_in_scan": 10 * len(jpegs),
            "frames_in": len(jpegs),
            "depth_shift": DEPTH_SHIFT,
            "depth_intrinsic": _matrix4(DEPTH_K),
            "color_intrinsic": _matrix4(COLOR_K),
            "color_shape": COLOR_SHAPE,
            "color_from_depth": COLOR_FROM_DEPTH,
        }.items():
            writer.attribute(key, value)
        depth = np.array(content["depth"])
        writer.dataset("frames/index", np.array(content["index"], np.uint32))
        writer.dataset("frames/world_from_camera", path_of_camera)
        writer.dataset("frames/depth", depth, compress=True, chunks=(1, *depth.shape[1:]))
        writer.dataset("frames/points", (depth > 0).sum(axis=(1, 2)).astype(np.uint32))
        writer.dataset("frames/color", np.frombuffer(b"".join(jpegs), np.uint8))
        offset = np.cumsum([0] + [len(jpeg) for jpeg in jpegs])
        writer.dataset("frames/color_offset", offset.astype(np.uint64))
        writer.dataset("dropped/index", np.zeros(0, np.uint32))
        writer.dataset("dropped/reason", np.zeros(0, "S16"))


def _write_chunks(path, scene, content, surface, voxel_m, cloud_digests) -> None:
    rows = surface["rows"]
    with store.publish(path, CHUNKS, {}, {"clouds": cloud_digests[scene]}) as writer:
        writer.attribute("scene", scene)
        writer.attribute("status", "ok")
        writer.attribute("voxel_m", voxel_m)
        writer.attribute("surface_source", "ply")
        writer.dataset("surface/voxel", surface["voxel"])
        writer.dataset("surface/color", surface["color"])
        writer.dataset("frames/index", np.array(content["index"], np.uint32))
        writer.dataset("frames/box", np.array([_box(surface["voxel"][part]) for part in rows]))
        offset = np.cumsum([0] + [len(part) for part in rows])
        writer.dataset("frames/offset", offset.astype(np.uint64))
        writer.dataset("frames/rows", np.concatenate(rows).astype(np.uint32))


def _write_pairs(path, names, frames, cloud_digests) -> None:
    a, b = np.triu_indices(frames, 1)
    first = np.repeat(np.arange(len(names)) * frames, len(a))
    count = np.full(len(first), 1000, np.uint32)
    table = len(names) * frames
    with store.publish(path, PAIRS, {}, cloud_digests) as writer:
        writer.dataset("scenes/name", np.array(names, "S16"))
        writer.dataset("frames/scene", np.repeat(np.arange(len(names)), frames).astype(np.uint32))
        index = np.tile(np.arange(frames) * 10, len(names))
        writer.dataset("frames/index", index.astype(np.uint32))
        writer.dataset("frames/points", np.full(table, 3072, np.uint32))
        writer.dataset("pairs/a", (np.tile(a, len(names)) + first).astype(np.uint32))
        writer.dataset("pairs/b", (np.tile(b, len(names)) + first).astype(np.uint32))
        writer.dataset("pairs/matches_ab", count)
        writer.dataset("pairs/matches_ba", count)
        writer.dataset("pairs/overlap", np.full(len(first), 0.5, np.float32))


def read_metrics(out: Path) -> list[dict]:
    """Lines of `metrics.jsonl`."""
    return [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
