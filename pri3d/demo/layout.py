"""Furnishes rooms: draws pieces, finds positions for them, and builds the table of primitives."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pri3d.demo import shading, textures
from pri3d.demo.fixtures import crate, door, floor_lamp, picture, plant, window
from pri3d.demo.furniture import (
    armchair,
    bed,
    bookshelf,
    cabinet,
    coffee_table,
    couch,
    desk,
    dining,
    kitchen,
    refrigerator,
)
from pri3d.demo.primitives import RECTANGLE, Part, Piece, bounds, moved, rotation
from pri3d.demo.room import Room

Draw = Callable[[np.random.Generator], list[Piece]]
Size = tuple[float, float, float]  # width, depth and height in meters
Position = tuple[float, ArrayLike]  # rotation about the vertical in radians, and shift [3]


class Kind(NamedTuple):
    """The pieces of a type of room, as functions that draw an arrangement.

    walls, middle and anywhere are required, extras are added along the walls where they fit.
    """

    walls: tuple[Draw, ...]
    middle: tuple[Draw, ...]
    anywhere: tuple[Draw, ...]
    extras: tuple[Draw, ...]


# ScanNet's scene type -> pieces.
KINDS = {
    "Living room / Lounge": Kind(
        walls=(door, window, couch, bookshelf, cabinet, picture),
        middle=(coffee_table,),
        anywhere=(armchair, floor_lamp, crate),
        extras=(desk, picture, couch, picture, bookshelf, window, picture, cabinet),
    ),
    "Bedroom / Hotel": Kind(
        walls=(door, window, bed, cabinet, desk, picture),
        middle=(),
        anywhere=(floor_lamp, crate),
        extras=(couch, picture, refrigerator, picture, bookshelf, cabinet),
    ),
    "Kitchen": Kind(
        walls=(door, window, kitchen, cabinet, picture),
        middle=(dining,),
        anywhere=(plant,),
        extras=(couch, picture, window, picture, bookshelf, cabinet),
    ),
    "Office": Kind(
        walls=(door, window, desk, desk, bookshelf, picture),
        middle=(),
        anywhere=(plant, floor_lamp, crate),
        extras=(refrigerator, desk, picture, couch, picture, cabinet, bookshelf, picture),
    ),
    "Apartment": Kind(
        walls=(door, window, kitchen, bed, couch, picture),
        middle=(dining,),
        anywhere=(floor_lamp,),
        extras=(desk, picture, window, picture, cabinet, bookshelf),
    ),
}
LAYOUT_ATTEMPTS = 200
PIECE_ATTEMPTS = 60
DOOR_CLEARANCE = 0.8  # meters in front of a door
GAP = 0.04  # meters between pieces


def build_room(seed: int, number: int = 0, lit: bool = True) -> Room:
    """The furnished room of a scan; the same arguments give the same room.

    Args:
        seed: of all rooms.
        number: of the scan; the types of room alternate.
        lit: bake light, which takes half a second and which only color needs.

    Raises:
        RuntimeError: the required pieces fit in no layout, which is unlikely for any seed.
    """
    rng = np.random.default_rng([seed, number, 0])
    kind = list(KINDS)[number % len(KINDS)]
    for _ in range(LAYOUT_ATTEMPTS):
        size = (rng.uniform(3.5, 5.4), rng.uniform(3.5, 5.4), rng.uniform(2.4, 2.7))
        pieces = _arrange(rng, kind, size)
        if pieces is not None:
            return _room(rng, kind, size, _shell(size) + pieces, lit)
    raise RuntimeError(f"no layout found for seed {seed}, scan {number} ({kind})")


def _shell(size: Size) -> list[Piece]:
    """Floor, ceiling and four walls, all facing inward."""
    width, depth, height = size
    flat = [("floor", 0.0, 0.0), ("ceiling", height, np.pi)]
    pieces = []
    for name, z, tilt in flat:
        half = np.array([width / 2, depth / 2, 0])
        part = Part(RECTANGLE, np.array([0, 0, z]), rotation(0, tilt), half, 0)
        pieces.append(Piece(name, [part]))
    for turn, length, distance in _walls(size):
        # In the frame of a wall, x is along it, z is up and +y is into the room.
        matrix = rotation(2, turn) @ rotation(0, -np.pi / 2) @ rotation(2, np.pi)
        half = np.array([length / 2, height / 2, 0])
        center = rotation(2, turn) @ np.array([0, -distance, height / 2])
        pieces.append(Piece("wall", [Part(RECTANGLE, center, matrix, half, 0)]))
    return pieces


def _walls(size: Size) -> list[tuple[float, float, float]]:
    """(rotation, length, distance from the center) of each wall; at 0 it is at y = -distance."""
    width, depth, _ = size
    sides = [(width, depth / 2), (depth, width / 2)] * 2
    return [(k * np.pi / 2, *side) for k, side in enumerate(sides)]


def _arrange(rng: np.random.Generator, kind: str, size: Size) -> list[Piece] | None:
    """The pieces of a room at their positions, or None if a required one does not fit."""
    needed = KINDS[kind]
    taken: list[np.ndarray] = []
    pieces: list[Piece] = []

    def place(draw: Draw, position: Callable[[np.ndarray], Position]) -> bool:
        """Add an arrangement at a free position; whether there was one."""
        built = draw(rng)
        for _ in range(PIECE_ATTEMPTS):
            placed = moved(built, *position(bounds(built)))
            claim = bounds(placed)
            if draw is door:  # keep space to open it
                claim[:, :2] = bounds(placed + moved(placed, 0, _inward(placed)))[:, :2]
            if _free(claim, taken, size):
                taken.append(claim)
                pieces.extend(placed)
                return True
        return False

    def at_wall(box: np.ndarray) -> Position:
        turn, length, distance = _walls(size)[rng.integers(4)]
        low, high = -length / 2 - box[0, 0] + 0.03, length / 2 - box[1, 0] - 0.03
        x = rng.uniform(low, high) if high > low else 0.0
        return turn, rotation(2, turn) @ np.array([x, -distance + 0.001, 0])

    def in_the_middle(_: np.ndarray) -> Position:
        return rng.choice(4) * np.pi / 2 + rng.normal(0, 0.08), (*rng.normal(0, 0.25, 2), 0)

    def anywhere(_: np.ndarray) -> Position:
        center = rng.uniform(-0.5, 0.5, 2) * (size[0] - 0.5, size[1] - 0.5)
        return rng.uniform(0, 2 * np.pi), (*center, 0)

    for draws, position in (
        (needed.walls, at_wall),
        (needed.middle, in_the_middle),
        (needed.anywhere, anywhere),
    ):
        if not all(place(draw, position) for draw in draws):
            return None
    for draw in needed.extras:
        place(draw, at_wall)
    return pieces


def _inward(door: list[Piece]) -> np.ndarray:
    """The shift [3] from a door into the room by `DOOR_CLEARANCE`."""
    center = bounds(door).mean(0)
    axis = int(np.argmin(np.ptp(bounds(door), axis=0)[:2]))
    step = np.zeros(3)
    step[axis] = -DOOR_CLEARANCE * np.sign(center[axis])
    return step


def _free(claim: np.ndarray, taken: list[np.ndarray], size: Size) -> bool:
    """Whether a box [2, 3] is inside the room and apart from all boxes that are taken."""
    inside = np.array([size[0], size[1]]) / 2
    if (claim[0, :2] < -inside).any() or (claim[1, :2] > inside).any() or claim[1, 2] > size[2]:
        return False
    return not any(
        (claim[0] < other[1] + GAP).all() and (claim[1] > other[0] - GAP).all() for other in taken
    )


def _room(rng: np.random.Generator, kind: str, size: Size, pieces: list[Piece], lit: bool) -> Room:
    """The table of primitives with textures, lamps and a world frame, all drawn from `rng`."""
    shape, center, axes, half, texture, instance = [], [], [], [], [], []
    for number, piece in enumerate(pieces, 1):
        slots: dict[int, np.ndarray] = {}
        for part in piece.parts:
            if part.slot not in slots:
                slots[part.slot] = textures.draw(rng)
            shape.append(part.shape)
            center.append(part.center)
            axes.append(part.rotation.T)
            half.append(part.half)
            texture.append(slots[part.slot])
            instance.append(number)

    lamps = rng.integers(1, 4)
    lamp_xy = rng.uniform(-0.35, 0.35, (lamps, 2)) * size[:2]
    below_ceiling = rng.uniform(0.15, 0.3, (lamps, 1))
    power = rng.uniform(1.2, 2.2, (lamps, 1)) / np.sqrt(lamps)
    lights = np.hstack([lamp_xy, size[2] - below_ceiling, power])

    # As in real scans, the world frame has no relation to the walls.
    world_from_room = np.eye(4)
    world_from_room[:3, :3] = rotation(2, rng.uniform(0, 2 * np.pi))
    world_from_room[:3, 3] = (*rng.uniform(2, 4, 2), rng.uniform(-0.1, 0.1))
    turn, shift = world_from_room[:3, :3], world_from_room[:3, 3]
    lights[:, :3] = lights[:, :3] @ turn.T + shift
    room = Room(
        kind=kind,
        size=size,
        shape=np.array(shape, np.int64),
        center=np.array(center) @ turn.T + shift,
        axes=np.ascontiguousarray(np.array(axes) @ turn.T),
        half=np.array(half),
        texture=np.array(texture),
        instance=np.array(instance, np.int32),
        names=tuple(piece.name for piece in pieces),
        lights=lights,
        room_from_world=np.linalg.inv(world_from_room),
    )
    return replace(room, baked=shading.bake(room)) if lit else room
