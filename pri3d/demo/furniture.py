"""Furniture: each function draws one arrangement and returns its pieces (see `primitives`)."""

import numpy as np

from pri3d.demo.fixtures import table_lamp
from pri3d.demo.primitives import Part, Piece, box, cylinder, moved, rotation


def _legs(
    width: float, depth: float, height: float, thick: float, round_legs: bool = False
) -> list[Part]:
    x, y = width / 2 - thick, depth / 2 - thick
    corners = [(sx * x, sy * y) for sx in (-1, 1) for sy in (-1, 1)]
    if round_legs:
        return [cylinder(cx, cy, 0, thick / 2, height) for cx, cy in corners]
    return [box(cx, cy, 0, thick, thick, height) for cx, cy in corners]


def chair(rng: np.random.Generator) -> list[Piece]:
    """Centered, facing +y (its back at -y)."""
    width, depth = rng.uniform(0.40, 0.50, 2)
    seat, top = rng.uniform(0.42, 0.48), rng.uniform(0.85, 1.05)
    parts = [
        *_legs(width, depth, seat, 0.04, rng.random() < 0.5),
        box(0, 0, seat, width, depth, 0.05, 1),
    ]
    lean = rotation(0, rng.uniform(0.0, 0.15))
    parts.append(box(0, -depth / 2, seat + 0.05, width, 0.04, top - seat, 1, lean))
    return [Piece("chair", parts)]


def office_chair(rng: np.random.Generator) -> list[Piece]:
    seat = rng.uniform(0.42, 0.52)
    turn = rotation(2, rng.uniform(-0.5, 0.5))
    back = box(0, -0.23, seat + 0.12, 0.44, 0.07, 0.5, 1, rotation(0, 0.12))
    parts = [
        box(0, 0, 0.03, 0.56, 0.06, 0.05),
        box(0, 0, 0.03, 0.06, 0.56, 0.05),
        cylinder(0, 0, 0.05, 0.035, seat - 0.05),
        box(0, 0, seat, 0.5, 0.48, 0.09, 1),
        box(0, -0.25, seat + 0.02, 0.08, 0.04, 0.2),
        back,
        box(-0.25, 0, seat + 0.22, 0.05, 0.3, 0.04),
        box(0.25, 0, seat + 0.22, 0.05, 0.3, 0.04),
    ]
    parts = [
        part._replace(center=turn @ part.center, rotation=turn @ part.rotation) for part in parts
    ]
    return [Piece("office chair", parts)]


def dining(rng: np.random.Generator) -> list[Piece]:
    """A table with chairs around it, centered."""
    height = rng.uniform(0.71, 0.77)
    if rng.random() < 0.35:
        radius = rng.uniform(0.5, 0.65)
        table = [
            cylinder(0, 0, height - 0.04, radius, 0.04, 1),
            cylinder(0, 0, 0.03, 0.06, height - 0.07),
            cylinder(0, 0, 0, 0.28, 0.03),
        ]
        start = rng.uniform(0, 2 * np.pi)
        seats = [
            (np.cos(a) * (radius + 0.12), np.sin(a) * (radius + 0.12), a + np.pi / 2)
            for a in start + np.arange(4) * np.pi / 2
        ]
    else:
        width, depth = rng.uniform(1.2, 1.7), rng.uniform(0.75, 0.95)
        table = [
            box(0, 0, height - 0.04, width, depth, 0.04, 1),
            *_legs(width, depth, height - 0.04, 0.07),
        ]
        along, across = width / 4, depth / 2 + 0.12
        seats = [(sx * along, -across, 0.0) for sx in (-1, 1)]
        seats += [(sx * along, across, np.pi) for sx in (-1, 1)]
        if rng.random() < 0.5:
            seats += [(-width / 2 - 0.15, 0, -np.pi / 2), (width / 2 + 0.15, 0, np.pi / 2)]
    pieces = [Piece("table", table + _tableware(rng, height))]
    for x, y, turn in seats:
        shift = (x + rng.normal(0, 0.04), y + rng.normal(0, 0.04), 0)
        pieces += moved(chair(rng), turn + rng.normal(0, 0.15), shift)
    return pieces


def _tableware(rng: np.random.Generator, height: float) -> list[Part]:
    """Bowls, boxes and bottles on a table; they are annotated as part of it, as is usual."""
    parts = []
    for x in (-0.25, 0.05, 0.3):
        y, size = rng.uniform(-0.2, 0.2), rng.uniform(0.06, 0.13)
        if rng.random() < 0.5:
            parts.append(cylinder(x, y, height, size / 2, rng.uniform(0.05, 0.28), 2))
        else:
            turn = rotation(2, rng.uniform(0, np.pi))
            parts.append(box(x, y, height, size * 2, size * 1.4, size / 2, 3, turn))
    return parts


def coffee_table(rng: np.random.Generator) -> list[Piece]:
    width, depth, height = rng.uniform(0.9, 1.3), rng.uniform(0.5, 0.65), rng.uniform(0.36, 0.46)
    parts = [
        box(0, 0, height - 0.05, width, depth, 0.05, 1),
        box(0, 0, 0.12, width - 0.1, depth - 0.1, 0.03),
        *_legs(width, depth, height - 0.05, 0.06),
        box(-0.2, 0.05, height, 0.3, 0.22, 0.05, 2, rotation(2, rng.uniform(0, 3))),
        cylinder(0.25, -0.05, height, 0.06, rng.uniform(0.08, 0.25), 3),
    ]
    return [Piece("coffee table", parts)]


def desk(rng: np.random.Generator) -> list[Piece]:
    """A desk with a monitor, often with shelves and an office chair."""
    width, depth, height = rng.uniform(1.4, 1.8), rng.uniform(0.7, 0.85), rng.uniform(0.71, 0.77)
    side = 1 if rng.random() < 0.5 else -1
    drawers = side * (width / 2 - 0.22)
    y = depth / 2 + 0.02
    parts = [
        box(0, y, height - 0.04, width, depth, 0.04, 1),
        box(-side * (width / 2 - 0.02), y, 0, 0.04, depth - 0.04, height - 0.04),
        box(drawers, y, 0.04, 0.42, depth - 0.06, height - 0.08),
        box(0, 0.06, 0.3, width - 0.1, 0.03, height - 0.36),
    ]
    for i in range(3):
        bottom = 0.06 + i * (height - 0.12) / 3
        parts.append(box(drawers, depth, bottom, 0.38, 0.03, (height - 0.12) / 3 - 0.02, 2))
    parts += [
        box(0.42 * -side, 0.45, height, 0.2, 0.28, 0.06, 3, rotation(2, 0.3)),
        box(0, 0.58, height, 0.44, 0.14, 0.02, 2),
    ]
    if rng.random() < 0.7:  # shelves over the back of the desk
        rise = rng.uniform(0.5, 0.75)
        parts += [
            box(0, 0.03, height, width, 0.02, rise, 1),
            box(0, 0.13, height + rise - 0.03, width, 0.2, 0.03, 1),
            box(-width / 2 + 0.015, 0.13, height, 0.03, 0.2, rise, 1),
            box(width / 2 - 0.015, 0.13, height, 0.03, 0.2, rise, 1),
            box(width / 3.5, 0.13, height + rise, 0.3, 0.18, 0.16, 3),
        ]
    screen = rng.uniform(0.5, 0.65)
    monitor = [
        box(0, 0.34, height, 0.24, 0.16, 0.02),
        box(0, 0.32, height, 0.05, 0.03, 0.2),
        box(0, 0.35, height + 0.12, screen, 0.03, screen * 0.6),
        box(0, 0.367, height + 0.14, screen - 0.04, 0.008, screen * 0.6 - 0.04, 1),
    ]
    pieces = [Piece("desk", parts), Piece("monitor", monitor)]
    if rng.random() < 0.6:
        pieces += moved(office_chair(rng), np.pi, (rng.uniform(-0.45, 0.45), depth + 0.3, 0))
    return pieces


def bed(rng: np.random.Generator) -> list[Piece]:
    """With its headboard against the wall; pillows and blanket are part of the bed."""
    width, length = rng.uniform(1.2, 1.7), rng.uniform(1.95, 2.1)
    base, top = rng.uniform(0.22, 0.3), rng.uniform(0.45, 0.55)
    parts = [
        box(0, 0.03, 0, width + 0.1, 0.06, rng.uniform(0.85, 1.1)),
        box(0, 0.06 + length / 2, 0.08, width + 0.04, length, base - 0.08),
        box(0, 0.06 + length / 2, base, width, length - 0.02, top - base, 1),
        box(0, 0.06 + length * 0.65, base + 0.03, width + 0.03, length * 0.66, top - base, 2),
    ]
    parts += [
        box(x, y, 0, 0.08, 0.08, 0.08)
        for x in (-width / 2 + 0.1, width / 2 - 0.1)
        for y in (0.2, length - 0.1)
    ]
    for x in (-width / 4, width / 4):
        lean = rotation(0, rng.uniform(0.25, 0.5))
        parts.append(box(x, 0.3, top, width / 2 - 0.08, 0.36, 0.14, 3, lean))
    return [Piece("bed", parts)]


def couch(rng: np.random.Generator) -> list[Piece]:
    """A sofa with two or three seats."""
    seats = int(rng.integers(2, 4))
    inner, depth = seats * rng.uniform(0.6, 0.7), rng.uniform(0.85, 0.95)
    seat, back, arm = rng.uniform(0.4, 0.46), rng.uniform(0.75, 0.9), rng.uniform(0.14, 0.22)
    width = inner + 2 * arm
    parts = [
        box(0, depth / 2, 0.06, width, depth - 0.02, seat - 0.2),
        box(0, 0.1, 0.06, width, 0.2, back - 0.06),
        box(-(inner + arm) / 2, depth / 2, 0.06, arm, depth, seat + 0.12),
        box((inner + arm) / 2, depth / 2, 0.06, arm, depth, seat + 0.12),
        *[cylinder(x, y, 0, 0.03, 0.06) for x in (-width / 2.3, width / 2.3) for y in (0.1, 0.75)],
    ]
    for i in range(seats):
        x, size = (i - (seats - 1) / 2) * inner / seats, inner / seats - 0.015
        parts.append(box(x, 0.2 + (depth - 0.2) / 2, seat - 0.14, size, depth - 0.22, 0.14, 1))
        parts.append(box(x, 0.28, seat + 0.02, size, 0.14, back - seat, 1, rotation(0, 0.2)))
    if rng.random() < 0.7:
        x = rng.uniform(-inner / 3, inner / 3)
        parts.append(box(x, 0.45, seat, 0.4, 0.14, 0.38, 2, rotation(0, 0.4)))
    return [Piece("couch", parts)]


def armchair(rng: np.random.Generator) -> list[Piece]:
    """Centered, facing +y."""
    width, seat, back = rng.uniform(0.7, 0.85), rng.uniform(0.38, 0.45), rng.uniform(0.8, 1.0)
    parts = [
        box(0, 0, 0.08, width - 0.02, 0.74, seat - 0.14),
        box(0, 0.05, seat - 0.06, width - 0.3, 0.66, 0.12, 1),
        box(0, -0.3, 0.08, width, 0.16, back - 0.08, 0, rotation(0, 0.1)),
        box(-width / 2 + 0.07, 0, 0.08, 0.14, 0.76, seat + 0.1),
        box(width / 2 - 0.07, 0, 0.08, 0.14, 0.76, seat + 0.1),
        *[cylinder(x, y, 0, 0.025, 0.08) for x in (-0.25, 0.25) for y in (-0.3, 0.3)],
    ]
    return [Piece("armchair", parts)]


def _fronts(
    width: float, bottom: float, height: float, depth: float, columns: int, rows: int
) -> list[Part]:
    """Doors or drawers with knobs on the front of a body of this depth."""
    parts = []
    cell_x, cell_z = width / columns, height / rows
    for i in range(columns):
        for j in range(rows):
            x, z = (i + 0.5) * cell_x - width / 2, bottom + j * cell_z
            parts.append(box(x, depth + 0.008, z + 0.008, cell_x - 0.016, 0.016, cell_z - 0.016, 1))
            knob = x + (0.4 if i % 2 == 0 else -0.4) * cell_x
            parts.append(box(knob, depth + 0.03, z + cell_z / 2 - 0.05, 0.02, 0.03, 0.1))
    return parts


def cabinet(rng: np.random.Generator) -> list[Piece]:
    """A tall wardrobe, or a low sideboard with a box and a lamp on it."""
    if rng.random() < 0.5:
        width, depth, height = rng.uniform(0.9, 1.5), rng.uniform(0.5, 0.6), rng.uniform(1.8, 2.1)
        columns, rows = max(2, round(width / 0.5)), 1
    else:
        width, depth, height = rng.uniform(1.0, 1.6), rng.uniform(0.4, 0.5), rng.uniform(0.75, 1.1)
        columns, rows = max(2, round(width / 0.45)), int(rng.integers(2, 4))
    body = [box(0, depth / 2 + 0.01, 0.05, width, depth, height - 0.05)]
    body.append(box(0, depth / 2, 0, width - 0.06, depth - 0.06, 0.05))
    body += _fronts(width - 0.04, 0.08, height - 0.12, depth + 0.01, columns, rows)
    pieces = [Piece("cabinet", body)]
    if height < 1.2:
        crate = box(-width / 4, depth / 2, height, 0.4, 0.28, 0.25, 0, rotation(2, 0.2))
        pieces.append(Piece("box", [crate]))
        pieces += moved(table_lamp(rng), 0, (width / 4, depth / 2, height))
    return pieces


def kitchen(rng: np.random.Generator) -> list[Piece]:
    """Base cabinets with worktop and splashback, wall cabinets, and a refrigerator."""
    columns = int(rng.integers(3, 5))
    width, depth, height = columns * 0.55, 0.6, 0.86
    base = [box(0, depth / 2, 0.1, width, depth - 0.02, height - 0.1)]
    base.append(box(0, depth / 2 - 0.03, 0, width, depth - 0.1, 0.1))
    base += _fronts(width - 0.02, 0.12, height - 0.15, depth - 0.01, columns, 1)
    top = height + 0.04
    base += [
        box(0, depth / 2 + 0.01, height, width + 0.02, depth + 0.02, 0.04, 2),
        box(0, 0.02, top, width, 0.04, 0.5, 3),
        cylinder(width / 5, 0.34, top, 0.09, 0.14, 4),
        box(-width / 4, 0.3, top, 0.42, 0.32, 0.24, 5),
        box(-width / 4, 0.464, top + 0.03, 0.3, 0.01, 0.17, 6),
        cylinder(width / 2.6, 0.2, top, 0.05, 0.28, 7),
    ]
    upper = [box(0, 0.17, 1.5, width, 0.34, 0.65)]
    upper += _fronts(width - 0.02, 1.51, 0.63, 0.34, columns, 1)
    side = 1 if rng.random() < 0.5 else -1
    fridge = moved(refrigerator(rng), 0, (side * (width / 2 + 0.42), 0, 0))
    return [Piece("kitchen cabinet", base), Piece("kitchen cabinet", upper), *fridge]


def refrigerator(rng: np.random.Generator) -> list[Piece]:
    width, depth, height = rng.uniform(0.68, 0.8), rng.uniform(0.64, 0.7), rng.uniform(1.6, 1.9)
    split = height * rng.uniform(0.3, 0.65)
    front = depth + 0.02
    parts = [
        box(0, depth / 2 + 0.01, 0.04, width, depth, height - 0.04),
        box(0, depth / 2, 0, width - 0.08, depth - 0.1, 0.04),
        box(0, front, 0.06, width - 0.01, 0.03, split - 0.07, 1),
        box(0, front, split, width - 0.01, 0.03, height - split - 0.01, 1),
        cylinder(-width / 2 + 0.06, front + 0.045, split - 0.4, 0.015, 0.32),
        cylinder(-width / 2 + 0.06, front + 0.045, split + 0.06, 0.015, 0.32),
        box(width / 5, front + 0.018, split + 0.2, 0.12, 0.006, 0.16, 2),
    ]
    return [Piece("refrigerator", parts)]


def bookshelf(rng: np.random.Generator) -> list[Piece]:
    """Open shelves; the books are part of the bookshelf."""
    width, depth, height = rng.uniform(0.9, 1.4), rng.uniform(0.28, 0.36), rng.uniform(1.6, 2.1)
    shelves = int(rng.integers(4, 6))
    parts = [
        box(0, 0.015, 0, width, 0.02, height, 1),
        box(-width / 2 + 0.015, depth / 2, 0, 0.03, depth, height),
        box(width / 2 - 0.015, depth / 2, 0, 0.03, depth, height),
    ]
    step = (height - 0.06) / shelves
    for i in range(shelves + 1):
        parts.append(box(0, depth / 2, 0.03 + i * step, width - 0.06, depth, 0.03))
    for i in range(shelves):
        x, end = -width / 2 + 0.04, width / 2 - 0.04
        while True:
            thick = rng.uniform(0.03, 0.16)
            tall = rng.uniform(0.5, 0.88) * (step - 0.03)
            if x + thick > end:
                break
            if rng.random() < 0.82:
                deep = rng.uniform(0.55, 0.85) * depth
                slot = int(rng.integers(2, 10))
                z = 0.06 + i * step
                parts.append(
                    box(x + thick / 2, 0.03 + deep / 2, z, thick - 0.004, deep, tall, slot)
                )
            x += thick
    return [Piece("bookshelf", parts)]
