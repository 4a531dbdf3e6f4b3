"""`scannetv2-labels.combined.tsv`: which nyu40 id each raw ScanNet id and category has."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pri3d.errors import Pri3DError

NAME = "scannetv2-labels.combined.tsv"


class Table(NamedTuple):
    """nyu40_of_id: u8 [65536], raw id -> nyu40 id, 0 for ids that the table does not have."""

    nyu40_of_id: np.ndarray


def read_table(root: Path) -> Table:
    """The table in the folder or the one above.

    Raises Pri3DError when there is none, or a row has no id or no nyu40id of 1 to 40.
    """
    of_id = np.zeros(1 << 16, np.uint8)
    for number, _, nyu40 in _rows(root):
        of_id[number] = nyu40
    return Table(of_id)


def read_names(root: Path) -> dict[str, int]:
    """Raw category -> nyu40 id, of the same table."""
    return {name: nyu40 for _, name, nyu40 in _rows(root)}


def _rows(root: Path) -> list[tuple[int, str, int]]:
    """Raw id, raw category and nyu40 id of every row."""
    path = next((f / NAME for f in (root, root.parent) if (f / NAME).is_file()), None)
    if path is None:
        raise Pri3DError(
            f"{root / NAME}: missing; it says which class each label is, and comes with ScanNet"
        )
    rows = []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                nyu40 = int(row["nyu40id"])
                if not 1 <= nyu40 <= 40:
                    raise ValueError(f"nyu40id {nyu40} of {row['raw_category']!r}")
                number = int(row["id"])
                if not 0 <= number < 1 << 16:
                    raise ValueError(f"id {number}")
                rows.append((number, row["raw_category"], nyu40))
    except (OSError, ValueError, KeyError, TypeError, IndexError, csv.Error) as error:
        raise Pri3DError(
            f"{path}: is not ScanNet's table of labels ({type(error).__name__}: {error}); take the "
            "file of release v2"
        ) from None
    if not rows:
        raise Pri3DError(f"{path}: has no row; fetch it again")
    return rows
