"""Primitives, and the pieces that consist of them.

A piece is a list of primitives in a frame of its own: meters, z up, the floor at z = 0. A piece
against a wall has the wall at y = 0 and faces +y; a free-standing one is centered on the origin.
One piece is one annotated instance. Parts of a piece with the same `slot` have the same texture.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

RECTANGLE, BOX, CYLINDER = 0, 1, 2


class Part(NamedTuple):
    """One primitive: p = center + rotation @ local, |local| <= half.

    A rectangle lies in its local xy plane (half[2] = 0) with its normal along +z; a cylinder's
    axis is its local z, half = (radius, radius, half height).
    """

    shape: int
    center: np.ndarray
    rotation: np.ndarray
    half: np.ndarray
    slot: int


class Piece(NamedTuple):
    """One object: the name of its class, and its primitives."""

    name: str
    parts: list[Part]


def rotation(axis: int, angle: float) -> np.ndarray:
    """Right-handed rotation [3, 3] about a coordinate axis (0, 1 or 2) by an angle in radians."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def box(
    x: float,
    y: float,
    bottom: float,
    width: float,
    depth: float,
    height: float,
    slot: int = 0,
    turn: np.ndarray | None = None,
) -> Part:
    """A box centered on (x, y) from height `bottom` (meters) upward; turn: its rotation [3, 3]."""
    half = np.array([width, depth, height]) / 2
    return Part(
        BOX, np.array([x, y, bottom + half[2]]), np.eye(3) if turn is None else turn, half, slot
    )


def cylinder(
    x: float, y: float, bottom: float, radius: float, height: float, slot: int = 0
) -> Part:
    """An upright cylinder centered on (x, y) from height `bottom` (meters) upward."""
    half = np.array([radius, radius, height / 2])
    return Part(CYLINDER, np.array([x, y, bottom + height / 2]), np.eye(3), half, slot)


def moved(pieces: list[Piece], turn: float, shift: ArrayLike) -> list[Piece]:
    """Pieces rotated about the vertical by `turn` radians, then shifted by [3] meters."""
    matrix, offset = rotation(2, turn), np.asarray(shift, float)

    def move(part: Part) -> Part:
        return part._replace(center=matrix @ part.center + offset, rotation=matrix @ part.rotation)

    return [Piece(piece.name, [move(part) for part in piece.parts]) for piece in pieces]


def bounds(pieces: list[Piece]) -> np.ndarray:
    """The min and the max corner [2, 3] of all pieces."""
    parts = [part for piece in pieces for part in piece.parts]
    reach = np.array([np.abs(part.rotation) @ part.half for part in parts])
    center = np.array([part.center for part in parts])
    return np.stack([(center - reach).min(0), (center + reach).max(0)])
