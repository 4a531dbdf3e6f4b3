"""The record of a furnished room: a table of primitives, and the light on them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Baked(NamedTuple):
    """Light that does not depend on the viewer, on a coarse grid over every chart (see `shading`).

    start: i64 [P, FACES], first texel of a chart, -1 for none; size: i64 [P, FACES, 2], number of
    texels along u and v; value: f32 [T, 1 + L], openness, then the visible share of each lamp.
    """

    start: np.ndarray
    size: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class Room:
    """A furnished room in a world frame of its own; P primitives, I instances, L lamps.

    kind: the type of room, in ScanNet's words. size: width, depth and height in meters.

    Primitives: shape i64 [P] (`primitives.RECTANGLE`, `BOX`, `CYLINDER`); center [P, 3]; axes [P,
    3, 3], whose rows are the local axes: local = axes @ (p - center); half [P, 3], half the size
    along each axis; texture [P, len(textures.COLUMNS)]; instance i32 [P], counted from 1.

    names: the class of each instance, `names[instance - 1]`. lights: [L, 4], position and power.
    room_from_world: [4, 4], to a frame with walls parallel to the axes, the floor at z = 0 and the
    center of the room at x = y = 0. baked: light (`shading.bake`), which only color needs.
    """

    kind: str
    size: tuple[float, float, float]
    shape: np.ndarray
    center: np.ndarray
    axes: np.ndarray
    half: np.ndarray
    texture: np.ndarray
    instance: np.ndarray
    names: tuple[str, ...]
    lights: np.ndarray
    room_from_world: np.ndarray
    baked: Baked | None = None
