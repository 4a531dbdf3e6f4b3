"""Rendered images of a room: exact depth, color and labels for any camera."""

from typing import NamedTuple

import numpy as np

from pri3d.demo import cast, sensor, shading
from pri3d.demo.classes import CLASSES
from pri3d.demo.room import Room


class Frame(NamedTuple):
    """A rendered frame.

    color: u8 [H, W, 3]; depth: float64 [H, W], exact, in meters; label: u16 [H, W], raw ScanNet
    ids; instance: u8 [H, W], the room's instances from 1. The last three are 0 where nothing is.
    """

    color: np.ndarray
    depth: np.ndarray
    label: np.ndarray
    instance: np.ndarray


def render_frame(
    room: Room, shape: tuple[int, int], K: np.ndarray, world_from_camera: np.ndarray
) -> Frame:
    """Render what an ideal camera sees.

    Args:
        room: with baked light.
        shape: height and width.
        K: intrinsics [3, 3].
        world_from_camera: pose [4, 4], used as given.
    """
    depth, primitive = cast.trace(room, shape, K, world_from_camera)
    instance = instances(room, primitive)
    points = cast.camera_points(depth, K, world_from_camera)
    radiance = shading.shade(room, primitive, points, world_from_camera[:3, 3])
    return Frame(sensor.develop(radiance), depth, raw_ids(room)[instance], instance)


def instances(room: Room, primitive: np.ndarray) -> np.ndarray:
    """The instance u8 of each primitive number, 0 for -1."""
    return np.append(room.instance, 0).astype(np.uint8)[primitive]


def raw_ids(room: Room) -> np.ndarray:
    """The raw ScanNet id u16 [instances + 1] of each instance, 0 for instance 0."""
    return np.array([0] + [CLASSES[name].raw for name in room.names], np.uint16)
