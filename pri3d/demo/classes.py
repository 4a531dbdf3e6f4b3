"""Object classes of the demo scans, with ScanNet's names and ids.

`CLASSES` maps a raw category to its ids. `label-filt` images contain raw ids,
`_vh_clean_2.labels.ply` contains NYU-40 ids.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pri3d import store
from pri3d.classes import NYU13, PALETTE40


class Class(NamedTuple):
    """Raw ScanNet id, NYU-40 id and name, and NYU-13 id of a raw category."""

    raw: int
    nyu40: int
    nyu40_name: str
    nyu13: int


CLASSES = {
    "wall": Class(1, 1, "wall", 12),
    "chair": Class(2, 5, "chair", 4),
    "floor": Class(3, 2, "floor", 5),
    "table": Class(4, 7, "table", 10),
    "door": Class(5, 8, "door", 12),
    "couch": Class(6, 6, "sofa", 9),
    "cabinet": Class(7, 3, "cabinet", 6),
    "desk": Class(9, 14, "desk", 10),
    "office chair": Class(10, 5, "chair", 4),
    "bed": Class(11, 4, "bed", 1),
    "picture": Class(15, 11, "picture", 8),
    "window": Class(16, 9, "window", 13),
    "bookshelf": Class(18, 10, "bookshelf", 6),
    "monitor": Class(19, 40, "otherprop", 7),
    "curtain": Class(21, 16, "curtain", 13),
    "armchair": Class(23, 5, "chair", 4),
    "coffee table": Class(24, 7, "table", 10),
    "box": Class(26, 29, "box", 7),
    "refrigerator": Class(27, 24, "refridgerator", 6),
    "lamp": Class(28, 35, "lamp", 7),
    "kitchen cabinet": Class(29, 3, "cabinet", 6),
    "plant": Class(40, 40, "otherprop", 7),
    "ceiling": Class(41, 22, "ceiling", 3),
}

COLUMNS = [
    "id",
    "raw_category",
    "category",
    "count",
    "nyu40id",
    "eigen13id",
    "nyuClass",
    "nyu40class",
    "eigen13class",
    "ModelNet40",
    "ModelNet10",
    "ShapeNetCore55",
    "synsetoffset",
    "wnsynsetid",
    "wnsynsetkey",
    "mpcat40",
    "mpcat40index",
]


def palette() -> np.ndarray:
    """Lookup table u8 [65536, 3]: raw ScanNet id -> color of its NYU-40 class; others black."""
    colors = np.zeros((1 << 16, 3), np.uint8)
    for entry in CLASSES.values():
        colors[entry.raw] = PALETTE40[entry.nyu40]
    return colors


def write_table(path: Path) -> None:
    """Write the classes as `scannetv2-labels.combined.tsv`, with its columns, tabs and CRLF."""
    rows = [COLUMNS]
    for name, entry in CLASSES.items():
        ids = [entry.raw, name, name, 1, entry.nyu40, entry.nyu13]
        row = [*ids, name, entry.nyu40_name, NYU13[entry.nyu13 - 1].capitalize()]
        rows.append([str(value) for value in row] + [""] * (len(COLUMNS) - len(row)))
    text = "".join("\t".join(row) + "\r\n" for row in rows)
    with store.atomic_path(path) as temporary:
        temporary.write_bytes(text.encode())
