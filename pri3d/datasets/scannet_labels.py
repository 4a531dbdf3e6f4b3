"""`scannetv2-labels.combined.tsv`: the NYU-40 id of each raw ScanNet id and category."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pri3d.errors import Pri3DError

NAME = "scannetv2-labels.combined.tsv"


class Row(NamedTuple):
    """One row of the table: raw id, raw category, and NYU-40 id 1..40."""

    raw: int
    category: str
    nyu40: int


def nyu40_of_ids(root: Path) -> np.ndarray:
    """Lookup table u8 [65536]: raw id -> NYU-40 id, or 0 for an id that is not in the table.

    Args:
        root: folder of the table, or of a folder beside it.

    Raises:
        Pri3DError: the table is missing or damaged.
    """
    table = np.zeros(1 << 16, np.uint8)
    for row in _rows(root):
        table[row.raw] = row.nyu40
    return table


def nyu40_of_names(root: Path) -> dict[str, int]:
    """Raw category -> NYU-40 id, from the same table; raises Pri3DError as `nyu40_of_ids` does."""
    return {row.category: row.nyu40 for row in _rows(root)}


def _rows(root: Path) -> list[Row]:
    path = next((f / NAME for f in (root, root.parent) if (f / NAME).is_file()), None)
    if path is None:
        raise Pri3DError(
            f"{root / NAME}: missing; it maps ScanNet's labels to classes; put it there (it is "
            "part of ScanNet)"
        )
    rows = []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                nyu40 = int(row["nyu40id"])
                if not 1 <= nyu40 <= 40:
                    raise ValueError(f"nyu40id {nyu40} of {row['raw_category']!r}")
                raw = int(row["id"])
                if not 0 <= raw < 1 << 16:
                    raise ValueError(f"id {raw}")
                rows.append(Row(raw, row["raw_category"], nyu40))
    except (OSError, ValueError, KeyError, TypeError, IndexError, csv.Error) as error:
        raise Pri3DError(
            f"{path}: not ScanNet's table of labels ({type(error).__name__}: {error}); use "
            "the file of release v2"
        ) from None
    if not rows:
        raise Pri3DError(f"{path}: has no rows; download it again")
    return rows
