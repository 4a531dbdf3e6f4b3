"""Rendered frames of synthetic rooms as SUN RGB-D, as `pri3d.datasets.sunrgbd` reads it."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.io import savemat
from tqdm import tqdm

from pri3d import store
from pri3d.config import Demo
from pri3d.datasets.sunrgbd import META, PREFIX, SPLIT
from pri3d.demo import render, scan
from pri3d.demo.look_alikes import write_bytes
from pri3d.demo.room import Room
from pri3d.sources import images

FRAMES, TEST_FRAMES = 16, 4  # the first frames are for testing, as in the data set
FIRST_ROOM = 6000  # no demo scan has such a number


class Sensor(NamedTuple):
    """Where the frames of a sensor are, the size of its images, and its focal length in pixels."""

    folder: str
    height: int
    width: int
    focal: float


SENSORS = {
    "kv2": Sensor("kv2/kinect2data", 530, 730, 529.5),
    "realsense": Sensor("realsense/lg", 480, 640, 570.0),
}
# Class of the demo -> name in SUN RGB-D; other names are kept.
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
MIN_PIXELS = 200  # an object with fewer visible pixels is not annotated
MAX_DEPTH_MM = 8000
# From a camera's axes (right, down, forward) to those of the published points: right, forward, up.
POINTS_FROM_CAMERA = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])

_FRAME_FIELDS = (
    "sequenceName",
    "Rtilt",
    "K",
    "depthpath",
    "rgbpath",
    "depthname",
    "rgbname",
    "sensorType",
    "groundtruth3DBB",
)
_BOX_FIELDS = ("basis", "coeffs", "centroid", "classname", "sequenceName", "orientation", "label")


def write(out: Path, settings: Demo) -> None:
    """Write frames of two sensors, their description and the split into a folder.

    Args:
        out: folder to make.
        settings: `seed` is used for the rooms.
    """
    two_frames = settings.model_copy(update={"frames": 2})
    meta = np.zeros((1, FRAMES), [(name, object) for name in _FRAME_FIELDS])
    for n in tqdm(range(FRAMES), "frames", disable=None):
        sensor = list(SENSORS)[n % 2]
        meta[0, n] = _write_frame(out, n, sensor, two_frames)
    paths = [f"{PREFIX}/{entry['sequenceName'].strip('/')}" for entry in meta[0]]
    split = {
        "alltrain": np.array(paths[TEST_FRAMES:], object)[None],
        "alltest": np.array(paths[:TEST_FRAMES], object)[None],
    }
    for name, content in ((META[0], {"SUNRGBDMeta": meta}), (SPLIT, split)):
        with store.atomic_path(out / name) as temporary, open(temporary, "wb") as file:
            savemat(file, content)


def _write_frame(out: Path, n: int, sensor: str, settings: Demo) -> tuple[Any, ...]:
    """Write the images of a frame; returns its entry in the description."""
    folder, height, width, focal = SENSORS[sensor]
    K = np.array([[focal, 0, (width + 1) / 2], [0, focal, (height + 1) / 2], [0, 0, 1.0]])
    K_from_zero = K.copy()
    K_from_zero[:2, 2] -= 1  # the published cameras count pixels from 1
    plan = scan.plan(FIRST_ROOM + n // 2, settings)
    pose = plan.world_from_camera[n % 2]
    frame = render.render_frame(plan.room, (height, width), K_from_zero, pose)
    name = f"{n + 1:06d}_{sensor}"
    sequence = f"SUNRGBD/{folder}/{name}/"
    color_file, depth_file = f"image/{name}.jpg", f"depth/{name}.png"
    depth = np.clip(np.rint(frame.depth * 1000), 0, MAX_DEPTH_MM).astype(np.uint16)
    rotated_bits = (depth << 3) | (depth >> 13)  # as the drivers of the sensors store depth
    write_bytes(out / sequence / color_file, images.encode_color(frame.color))
    write_bytes(out / sequence / depth_file, images.encode_png(rotated_bits))
    upright_from_world, tilt = upright_transform(pose)
    entry = {
        "sequenceName": sequence,
        "Rtilt": tilt,
        "K": K,
        "depthpath": f"{PREFIX}//{sequence}{depth_file}",
        "rgbpath": f"{PREFIX}//{sequence}{color_file}",
        "depthname": f"{name}.png",
        "rgbname": f"{name}.jpg",
        "sensorType": sensor,
        "groundtruth3DBB": _boxes(plan.room, frame.instance, upright_from_world, sequence),
    }
    return tuple(entry[field] for field in _FRAME_FIELDS)


def upright_transform(world_from_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The upright axes of a frame: the camera is at the origin and looks along y.

    Returns:
        upright_from_world [4, 4], and `Rtilt` [3, 3], which rotates the camera's right, forward and
        up axes to the upright ones.
    """
    forward = world_from_camera[:3, 2]
    angle = np.pi / 2 - np.arctan2(forward[1], forward[0])
    cos, sin = np.cos(angle), np.sin(angle)
    upright_from_world = np.eye(4)
    upright_from_world[:3, :3] = [[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]
    upright_from_world[:3, 3] = -upright_from_world[:3, :3] @ world_from_camera[:3, 3]
    tilt = upright_from_world[:3, :3] @ world_from_camera[:3, :3] @ POINTS_FROM_CAMERA.T
    return upright_from_world, tilt


def _boxes(
    room: Room, instance: np.ndarray, upright_from_world: np.ndarray, sequence: str
) -> np.ndarray:
    """The structs of the visible objects' boxes, aligned with the walls.

    `coeffs` are half sizes, some of them negative as in the data set.
    """
    room_axes = room.room_from_world[:3, :3]
    pixels = np.bincount(instance.ravel(), minlength=len(room.names) + 1)
    signs = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T
    boxes: list[tuple[Any, ...]] = []
    for number, name in enumerate(room.names, 1):
        if pixels[number] < MIN_PIXELS:
            continue
        parts = np.flatnonzero(room.instance == number)
        corners = [room.center[p] + (signs * room.half[p]) @ room.axes[p] for p in parts]
        along_walls = np.concatenate(corners) @ room_axes.T
        low, high = along_walls.min(axis=0), along_walls.max(axis=0)
        center = upright_from_world[:3, :3] @ (room_axes.T @ ((low + high) / 2))
        center = center + upright_from_world[:3, 3]
        direction = upright_from_world[:3, :3] @ room_axes.T @ (1.0, 0, 0)
        half_x, half_y, half_z = (high - low) / 2
        half = np.array([[half_y, half_x, half_z]]) * np.where(len(boxes) % 3 == 1, -1, 1)
        basis = upright_from_world[:3, :3] @ room_axes.T
        box = {
            "basis": basis.T,
            "coeffs": half,
            "centroid": center[None],
            "classname": NAMES.get(name, name.replace(" ", "_")),
            "sequenceName": sequence,
            "orientation": direction[None],
            "label": np.array([[number]]),
        }
        boxes.append(tuple(box[field] for field in _BOX_FIELDS))
    structs = np.zeros((1, len(boxes)), [(field, object) for field in _BOX_FIELDS])
    for i, box_fields in enumerate(boxes):
        structs[0, i] = box_fields
    return structs if boxes else np.zeros((0, 0))
