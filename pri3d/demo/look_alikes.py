"""What the writers of look-alike data sets share: the choice of scans, lists and small files."""

import shutil
from pathlib import Path

import numpy as np

from pri3d import store
from pri3d.errors import Pri3DError


def choose_scenes(scans: Path, held_out: list[str], scenes: list[str] | None) -> list[str]:
    """The scenes to write; default: all demo scans in the folder `scans`.

    Raises:
        Pri3DError: a scene in `scenes` or `held_out` has no scan.
    """
    available = sorted(path.stem for path in scans.glob("*/*.sens"))
    chosen = available if scenes is None else scenes
    if missing := sorted({*held_out, *chosen} - set(available)):
        raise Pri3DError(
            f"{scans}: has no scan {', '.join(missing)}; make it first (pri3d demo {scans})"
        )
    return chosen


def write_lists(out: Path, held_out: list[str], scenes: list[str]) -> None:
    """The lists of ScanNet's splits; held_out: the scenes for validation."""
    training = [scene for scene in scenes if scene not in held_out]
    for split, chosen in (("train", training), ("val", held_out)):
        write_text(out / f"scannetv2_{split}.txt", "".join(f"{scene}\n" for scene in chosen))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with store.atomic_path(path) as temporary:
        temporary.write_text(text)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with store.atomic_path(path) as temporary:
        temporary.write_bytes(content)


def copy(source: Path, out: Path) -> None:
    """Copy a file atomically."""
    with store.atomic_path(out) as temporary:
        shutil.copyfile(source, temporary)


def matrix_text(values: np.ndarray) -> str:
    """A matrix, one row per line."""
    return "".join(" ".join(f"{value:.6f}" for value in row) + "\n" for row in values)
