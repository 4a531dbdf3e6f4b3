"""Pictures of a room: true depth, colour and labels for any camera."""

from typing import NamedTuple

import numpy as np

from pri3d.demo import cast, sensor, shading
from pri3d.demo.classes import CLASSES
from pri3d.demo.rooms import Room


class Frame(NamedTuple):
    """color u8 [H, W, 3]; depth float64 [H, W], exact metres, 0 = nothing there; label u16 [H, W],
    raw ScanNet ids; instance u8 [H, W], the room's instances from 1, 0 = nothing there."""

    color: np.ndarray
    depth: np.ndarray
    label: np.ndarray
    instance: np.ndarray


def render_frame(
    room: Room, shape: tuple[int, int], K: np.ndarray, world_from_camera: np.ndarray
) -> Frame:
    """What an ideal camera sees: shape (height, width), K [3, 3], pose [4, 4] used as given."""
    depth, primitive = cast.trace(room, shape, K, world_from_camera)
    instance = instances(room, primitive)
    points = cast.camera_points(depth, K, world_from_camera)
    radiance = shading.shade(room, primitive, points, world_from_camera[:3, 3])
    return Frame(sensor.develop(radiance), depth, raw_ids(room)[instance], instance)


def instances(room: Room, primitive: np.ndarray) -> np.ndarray:
    """Instance u8 of each primitive number, 0 for -1."""
    return np.append(room.instance, 0).astype(np.uint8)[primitive]


def raw_ids(room: Room) -> np.ndarray:
    """u16 [instances + 1]: raw ScanNet id of each instance, 0 for instance 0."""
    return np.array([0] + [CLASSES[name].raw for name in room.names], np.uint16)
