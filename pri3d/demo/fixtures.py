"""Fixtures and small things: doors, windows, pictures, lamps, plants and boxes.

Each function draws one arrangement and returns its pieces (see `primitives`).
"""

import numpy as np

from pri3d.demo.primitives import BOX, Part, Piece, box, cylinder, rotation


def door(rng: np.random.Generator) -> list[Piece]:
    width, height = rng.uniform(0.85, 1.0), rng.uniform(2.0, 2.1)
    parts = [
        box(0, 0.02, 0, width, 0.04, height),
        box(-width / 2 - 0.05, 0.03, 0, 0.1, 0.06, height + 0.1, 1),
        box(width / 2 + 0.05, 0.03, 0, 0.1, 0.06, height + 0.1, 1),
        box(0, 0.03, height, width, 0.06, 0.1, 1),
        box(width / 2 - 0.1, 0.07, 1.0, 0.14, 0.03, 0.03, 2),
    ]
    for z in (0.2, 1.15):
        parts.append(box(0, 0.045, z, width * 0.65, 0.012, 0.75, 3))
    return [Piece("door", parts)]


def window(rng: np.random.Generator) -> list[Piece]:
    """Two panes in a frame, a sill, and curtains on both sides."""
    width, height, sill = rng.uniform(1.1, 1.6), rng.uniform(1.15, 1.4), rng.uniform(0.8, 0.95)
    parts = [
        box(0, 0.01, sill, width, 0.02, height, 1),
        box(0, 0.05, sill - 0.04, width + 0.14, 0.1, 0.04),
        box(0, 0.025, sill + height - 0.06, width, 0.05, 0.06),
        box(0, 0.025, sill, width, 0.05, 0.06),
    ]
    for x in (-width / 2 + 0.03, 0, width / 2 - 0.03):
        parts.append(box(x, 0.025, sill + 0.06, 0.06, 0.05, height - 0.12))
    pieces = [Piece("window", parts)]
    top, bottom = sill + height + 0.12, rng.choice([0.04, sill - 0.15])
    for side in (-1, 1):
        folds = []
        wide = rng.uniform(0.3, 0.5)
        for i in range(4):
            x = side * (width / 2 + wide / 2 - 0.02) + (i - 1.5) * wide / 4
            y = 0.15 if i % 2 else 0.18
            folds.append(box(x, y, bottom, wide / 4, 0.05, top - bottom))
        pieces.append(Piece("curtain", folds))
    return pieces


def picture(rng: np.random.Generator) -> list[Piece]:
    width, height = rng.uniform(0.8, 1.5), rng.uniform(0.7, 1.05)
    z = rng.uniform(1.5, 1.7) - height / 2
    parts = [
        box(0, 0.012, z, width, 0.024, height),
        box(0, 0.018, z + 0.04, width - 0.08, 0.024, height - 0.08, 1),
    ]
    return [Piece("picture", parts)]


def table_lamp(rng: np.random.Generator) -> list[Piece]:
    height = rng.uniform(0.25, 0.4)
    parts = [
        cylinder(0, 0, 0, 0.08, 0.02),
        cylinder(0, 0, 0.02, 0.015, height),
        cylinder(0, 0, height, rng.uniform(0.11, 0.16), 0.2, 1),
    ]
    return [Piece("lamp", parts)]


def floor_lamp(rng: np.random.Generator) -> list[Piece]:
    height = rng.uniform(1.2, 1.5)
    parts = [
        cylinder(0, 0, 0, 0.15, 0.03),
        cylinder(0, 0, 0.03, 0.015, height),
        cylinder(0, 0, height, rng.uniform(0.16, 0.22), 0.28, 1),
    ]
    return [Piece("lamp", parts)]


def plant(rng: np.random.Generator) -> list[Piece]:
    """A pot with a stem, from which leaves lean outward."""
    pot, height = rng.uniform(0.25, 0.4), rng.uniform(0.4, 0.7)
    parts = [cylinder(0, 0, 0, rng.uniform(0.12, 0.18), pot), cylinder(0, 0, pot, 0.02, height, 1)]
    for k in range(7):
        turn = rotation(2, k * 2.4) @ rotation(1, rng.uniform(0.5, 1.0))
        half = np.array([0.05, 0.01, rng.uniform(0.14, 0.24)])
        foot = np.array([0, 0, pot + height * rng.uniform(0.6, 1.0)])
        parts.append(Part(BOX, foot + turn @ (0, 0, half[2]), turn, half, 1))
    return [Piece("plant", parts)]


def crate(rng: np.random.Generator) -> list[Piece]:
    """One box, or two on top of each other."""
    size = rng.uniform((0.3, 0.25, 0.2), (0.55, 0.45, 0.4))
    parts = [box(0, 0, 0, size[0], size[1], size[2])]
    if rng.random() < 0.5:
        turn = rotation(2, rng.uniform(-0.4, 0.4))
        upper = size * 0.75
        parts.append(box(0, 0, size[2], upper[0], upper[1], upper[2], 1, turn))
    return [Piece("box", parts)]
