"""Primitives and how pieces are put together from them.

A piece is a list of primitives in a frame of its own: metres, z up, floor at z = 0. Pieces that
stand against a wall have the wall at y = 0 and face +y; free-standing ones are centred on the
origin. One piece is one annotated instance; its parts refer to a texture by `slot`, so that all
parts with the same slot of one piece look alike.
"""

from typing import NamedTuple

import numpy as np

RECTANGLE, BOX, CYLINDER = 0, 1, 2


class Part(NamedTuple):
    """One primitive: p = centre + rotation @ local, |local| <= half.

    A rectangle lies in its local xy plane (half[2] = 0) with its normal along +z; a cylinder's
    axis is its local z, half = (radius, radius, half height).
    """

    shape: int
    centre: np.ndarray
    rotation: np.ndarray
    half: np.ndarray
    slot: int


class Piece(NamedTuple):
    name: str
    parts: list[Part]


def rotation(axis: int, angle: float) -> np.ndarray:
    """Right-handed rotation [3, 3] about a coordinate axis, in radians."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def box(x, y, z, width, depth, height, slot=0, turn=None) -> Part:
    """Box around (x, y) that stands on height z."""
    half = np.array([width, depth, height]) / 2
    return Part(BOX, np.array([x, y, z + half[2]]), np.eye(3) if turn is None else turn, half, slot)


def cylinder(x, y, z, radius, height, slot=0) -> Part:
    """Upright cylinder around (x, y) that stands on height z."""
    half = np.array([radius, radius, height / 2])
    return Part(CYLINDER, np.array([x, y, z + height / 2]), np.eye(3), half, slot)


def moved(pieces: list[Piece], turn: float, shift) -> list[Piece]:
    """Turned about the vertical by `turn` radians, then shifted."""
    matrix, shift = rotation(2, turn), np.asarray(shift, float)

    def move(part: Part) -> Part:
        return part._replace(centre=matrix @ part.centre + shift, rotation=matrix @ part.rotation)

    return [Piece(piece.name, [move(part) for part in piece.parts]) for piece in pieces]


def bounds(pieces: list[Piece]) -> np.ndarray:
    """Lowest and highest corner [2, 3] of everything."""
    parts = [part for piece in pieces for part in piece.parts]
    reach = np.array([np.abs(part.rotation) @ part.half for part in parts])
    centre = np.array([part.centre for part in parts])
    return np.stack([(centre - reach).min(0), (centre + reach).max(0)])
