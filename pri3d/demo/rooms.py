"""Furnished rooms: what stands where, as one table of primitives."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

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


class Kind(NamedTuple):
    """What belongs into a kind of room, each a function that draws an arrangement.

    walls, middle and anywhere must all find a place; extras (along walls) where there is room.
    """

    walls: tuple
    middle: tuple
    anywhere: tuple
    extras: tuple


# Keys are ScanNet's scene types.
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
ATTEMPTS = 200


@dataclass(frozen=True)
class Room:
    """A furnished room in a world frame of its own; P primitives, I instances, L lamps.

    kind: what sort of room. size: (width, depth, height) in metres. Primitives: shape i64 [P]
    (`primitives.RECTANGLE`, `BOX`, `CYLINDER`), centre [P, 3], axes [P, 3, 3] (rows are the local
    axes: local = axes @ (p - centre)), half [P, 3], texture [P, len(textures.COLUMNS)] and
    instance i32 [P], counted from 1. names: class of each instance, `names[instance - 1]`.
    lights [L, 4]: position and power. room_from_world [4, 4] turns the walls parallel to the axes,
    the floor to z = 0 and the room's middle to x = y = 0. baked: light (`shading.bake`).
    """

    kind: str
    size: tuple[float, float, float]
    shape: np.ndarray
    centre: np.ndarray
    axes: np.ndarray
    half: np.ndarray
    texture: np.ndarray
    instance: np.ndarray
    names: tuple[str, ...]
    lights: np.ndarray
    room_from_world: np.ndarray
    baked: shading.Baked | None = None


def build_room(seed: int, number: int = 0, lit: bool = True) -> Room:
    """The room of scan `number`; kinds take turns. The same arguments give the same room.

    lit: bake light, which takes half a second and only colour needs.
    """
    rng = np.random.default_rng([seed, number, 0])
    kind = list(KINDS)[number % len(KINDS)]
    for _ in range(ATTEMPTS):
        size = (rng.uniform(3.5, 5.4), rng.uniform(3.5, 5.4), rng.uniform(2.4, 2.7))
        pieces = _arrange(rng, kind, size)
        if pieces is not None:
            return _room(rng, kind, size, _shell(size) + pieces, lit)
    raise RuntimeError(f"no layout found for seed {seed}, scan {number} ({kind})")


def _shell(size) -> list[Piece]:
    """Floor, ceiling and four walls, all facing inwards."""
    width, depth, height = size
    flat = [("floor", 0.0, 0.0), ("ceiling", height, np.pi)]
    pieces = []
    for name, z, tilt in flat:
        half = np.array([width / 2, depth / 2, 0])
        part = Part(RECTANGLE, np.array([0, 0, z]), rotation(0, tilt), half, 0)
        pieces.append(Piece(name, [part]))
    for turn, length, distance in _walls(size):
        # Seen in the wall's frame: along x, up z, and +y into the room.
        matrix = rotation(2, turn) @ rotation(0, -np.pi / 2) @ rotation(2, np.pi)
        half = np.array([length / 2, height / 2, 0])
        centre = rotation(2, turn) @ np.array([0, -distance, height / 2])
        pieces.append(Piece("wall", [Part(RECTANGLE, centre, matrix, half, 0)]))
    return pieces


def _walls(size) -> list[tuple[float, float, float]]:
    """(turn, length, distance from the middle): at turn 0 the wall lies at y = -distance."""
    width, depth, _ = size
    sides = [(width, depth / 2), (depth, width / 2)] * 2
    return [(k * np.pi / 2, *side) for k, side in enumerate(sides)]


def _arrange(rng, kind, size) -> list[Piece] | None:
    """All furniture of a kind of room, or None where something found no place."""
    wanted = KINDS[kind]
    taken: list[np.ndarray] = []
    pieces: list[Piece] = []

    def settle(draw, position) -> bool:
        built = draw(rng)
        for _ in range(60):
            placed = moved(built, *position(bounds(built)))
            claim = bounds(placed)
            if draw is door:  # room to open it
                claim[:, :2] = bounds(placed + moved(placed, 0, _inward(placed)))[:, :2]
            if _free(claim, taken, size):
                taken.append(claim)
                pieces.extend(placed)
                return True
        return False

    def by_wall(box):
        turn, length, distance = _walls(size)[rng.integers(4)]
        low, high = -length / 2 - box[0, 0] + 0.03, length / 2 - box[1, 0] - 0.03
        x = rng.uniform(low, high) if high > low else 0.0
        return turn, rotation(2, turn) @ np.array([x, -distance + 0.001, 0])

    def in_the_middle(_):
        return rng.choice(4) * np.pi / 2 + rng.normal(0, 0.08), (*rng.normal(0, 0.25, 2), 0)

    def wherever(_):
        spot = rng.uniform(-0.5, 0.5, 2) * (size[0] - 0.5, size[1] - 0.5)
        return rng.uniform(0, 2 * np.pi), (*spot, 0)

    for draws, position in (
        (wanted.walls, by_wall),
        (wanted.middle, in_the_middle),
        (wanted.anywhere, wherever),
    ):
        if not all(settle(draw, position) for draw in draws):
            return None
    for draw in wanted.extras:
        settle(draw, by_wall)
    return pieces


def _inward(door: list[Piece]) -> np.ndarray:
    """0.8 m from a door into the room."""
    middle = bounds(door).mean(0)
    axis = int(np.argmin(np.ptp(bounds(door), axis=0)[:2]))
    step = np.zeros(3)
    step[axis] = -0.8 * np.sign(middle[axis])
    return step


def _free(claim, taken, size) -> bool:
    inside = np.array([size[0], size[1]]) / 2
    if (claim[0, :2] < -inside).any() or (claim[1, :2] > inside).any() or claim[1, 2] > size[2]:
        return False
    gap = 0.04
    return not any(
        (claim[0] < other[1] + gap).all() and (claim[1] > other[0] - gap).all() for other in taken
    )


def _room(rng, kind, size, pieces, lit) -> Room:
    shape, centre, axes, half, texture, instance = [], [], [], [], [], []
    for number, piece in enumerate(pieces, 1):
        slots: dict[int, np.ndarray] = {}
        for part in piece.parts:
            if part.slot not in slots:
                slots[part.slot] = textures.draw(rng)
            shape.append(part.shape)
            centre.append(part.centre)
            axes.append(part.rotation.T)
            half.append(part.half)
            texture.append(slots[part.slot])
            instance.append(number)

    count = rng.integers(1, 4)
    spots = rng.uniform(-0.35, 0.35, (count, 2)) * size[:2]
    drop = rng.uniform(0.15, 0.3, (count, 1))
    power = rng.uniform(1.2, 2.2, (count, 1)) / np.sqrt(count)
    lights = np.hstack([spots, size[2] - drop, power])

    # The world frame of a scan starts wherever the camera did.
    world_from_room = np.eye(4)
    world_from_room[:3, :3] = rotation(2, rng.uniform(0, 2 * np.pi))
    world_from_room[:3, 3] = (*rng.uniform(2, 4, 2), rng.uniform(-0.1, 0.1))
    turn, shift = world_from_room[:3, :3], world_from_room[:3, 3]
    lights[:, :3] = lights[:, :3] @ turn.T + shift
    fields = {
        "shape": np.array(shape, np.int64),
        "centre": np.array(centre) @ turn.T + shift,
        "axes": np.ascontiguousarray(np.array(axes) @ turn.T),
        "half": np.array(half),
        "texture": np.array(texture),
        "instance": np.array(instance, np.int32),
        "names": tuple(piece.name for piece in pieces),
        "lights": lights,
        "room_from_world": np.linalg.inv(world_from_room),
    }
    room = Room(kind, size, **fields)
    return replace(room, baked=shading.bake(room)) if lit else room
