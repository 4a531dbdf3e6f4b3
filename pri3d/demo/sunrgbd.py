"""A look-alike of SUN RGB-D from procedural rooms, in its raw folders and `.mat` files."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat
from tqdm import tqdm

from pri3d import store
from pri3d.config import Demo
from pri3d.datasets.sunrgbd import META, PREFIX, SPLIT
from pri3d.demo import render, scan
from pri3d.demo.rooms import Room
from pri3d.sources import images

FRAMES, TESTED = 16, 4  # the first are tested, as in the data set
FIRST_ROOM = 6000  # rooms that no demo scan is of
# Sensor: folder, height, width, focal length in pixels.
SENSORS = {
    "kv2": ("kv2/kinect2data", 530, 730, 529.5),
    "realsense": ("realsense/lg", 480, 640, 570.0),
}
NAMES = {
    "bed": "bed",
    "table": "table",
    "coffee table": "table",
    "couch": "sofa",
    "chair": "chair",
    "office chair": "chair",
    "armchair": "chair",
    "desk": "desk",
    "bookshelf": "bookshelf",
}
SEEN = 200  # pixels of an object that is annotated
# From the camera's axes (right, down, forward) to those of its depth image: right, forward, up.
DEPTH_FROM_CAMERA = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])
_FRAME = ("sequenceName", "Rtilt", "K", "depthpath", "rgbpath", "depthname", "rgbname")
_FRAME += ("sensorType", "groundtruth3DBB")
_BOX = ("basis", "coeffs", "centroid", "classname", "sequenceName", "orientation", "label")


def write_sunrgbd(out: Path, settings: Demo) -> None:
    """Frames of two sensors, their description and the split, in the folder `out`.

    settings: seed of the rooms. Depth is rotated as the sensors' drivers leave it; pixels count
    from 1.
    """
    one_frame = settings.model_copy(update={"frames": 2})
    described = np.zeros((1, FRAMES), [(name, object) for name in _FRAME])
    for n in tqdm(range(FRAMES), "frames", disable=None):
        sensor = list(SENSORS)[n % 2]
        described[0, n] = _write_frame(out, n, sensor, one_frame)
    paths = [f"{PREFIX}/{entry['sequenceName'].strip('/')}" for entry in described[0]]
    split = {
        "alltrain": np.array(paths[TESTED:], object)[None],
        "alltest": np.array(paths[:TESTED], object)[None],
    }
    for name, content in ((META[0], {"SUNRGBDMeta": described}), (SPLIT, split)):
        with store.atomic_path(out / name) as temporary, open(temporary, "wb") as file:
            savemat(file, content)


def _write_frame(out: Path, n: int, sensor: str, settings: Demo) -> tuple[Any, ...]:
    folder, height, width, focal = SENSORS[sensor]
    K = np.array([[focal, 0, (width + 1) / 2], [0, focal, (height + 1) / 2], [0, 0, 1.0]])
    plan = scan.plan(FIRST_ROOM + n // 2, settings)
    pose = plan.world_from_camera[n % 2]
    from_zero = K.copy()
    from_zero[:2, 2] -= 1  # its pixels count from 1
    frame = render.render_frame(plan.room, (height, width), from_zero, pose)
    name = f"{n + 1:06d}_{sensor}"
    sequence = f"SUNRGBD/{folder}/{name}/"
    depth = np.clip(np.rint(frame.depth * 1000), 0, 8000).astype(np.uint16)
    files = {
        f"image/{name}.jpg": images.encode_color(frame.color),
        f"depth/{name}.png": images.encode_png((depth << 3) | (depth >> 13)),
    }
    for path, content in files.items():
        with store.atomic_path(out / sequence / path) as temporary:
            temporary.write_bytes(content)
    upright_from_world, tilt = upright(pose)
    truth = _boxes(plan.room, frame.instance, upright_from_world, sequence)
    depth_path, color_path = (f"{PREFIX}//{sequence}{path}" for path in reversed(files))
    return (
        *(sequence, tilt, K, depth_path, color_path, f"{name}.png", f"{name}.jpg"),
        *(sensor, truth),
    )


def upright(world_from_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """upright_from_world [4, 4], with the camera at the origin and looking along y, and `Rtilt`
    [3, 3], which takes the camera's right, forward and up axes there.
    """
    forward = world_from_camera[:3, 2]
    angle = np.pi / 2 - np.arctan2(forward[1], forward[0])
    cos, sin = np.cos(angle), np.sin(angle)
    upright_from_world = np.eye(4)
    upright_from_world[:3, :3] = [[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]
    upright_from_world[:3, 3] = -upright_from_world[:3, :3] @ world_from_camera[:3, 3]
    tilt = upright_from_world[:3, :3] @ world_from_camera[:3, :3] @ DEPTH_FROM_CAMERA.T
    return upright_from_world, tilt


def _boxes(room: Room, instance: np.ndarray, upright_from_world: np.ndarray, sequence: str):
    """Boxes of the objects that are seen, along the walls; `coeffs` are half sizes, some negative
    as in the data set."""
    room_axes = room.room_from_world[:3, :3]
    pixels = np.bincount(instance.ravel(), minlength=len(room.names) + 1)
    signs = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T
    entries = []
    for number, name in enumerate(room.names, 1):
        if pixels[number] < SEEN:
            continue
        parts = np.flatnonzero(room.instance == number)
        eight = [room.centre[p] + (signs * room.half[p]) @ room.axes[p] for p in parts]
        along = np.concatenate(eight) @ room_axes.T
        low, high = along.min(axis=0), along.max(axis=0)
        middle = upright_from_world[:3, :3] @ (room_axes.T @ ((low + high) / 2))
        middle = middle + upright_from_world[:3, 3]
        direction = upright_from_world[:3, :3] @ room_axes.T @ (1.0, 0, 0)
        length, width, tall = (high - low) / 2
        half = np.array([[width, length, tall]]) * np.where(len(entries) % 3 == 1, -1, 1)
        word = NAMES.get(name, name.replace(" ", "_"))
        basis = upright_from_world[:3, :3] @ room_axes.T
        entries.append(
            (basis.T, half, middle[None], word, sequence, direction[None], np.array([[number]]))
        )
    truth = np.zeros((1, len(entries)), [(field, object) for field in _BOX])
    for i, entry in enumerate(entries):
        truth[0, i] = entry
    return truth if entries else np.zeros((0, 0))
