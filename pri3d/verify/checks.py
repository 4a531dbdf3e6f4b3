"""Functions that the checks of all artefacts use."""

from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from pri3d.artefacts import Clouds, Overlap
from pri3d.errors import Pri3DError

Source = TypeVar("Source", Clouds, Overlap)


def wrong(path: Path, where: str, what: str) -> Pri3DError:
    """The error of a failed check: artefact, data set and row, and what is wrong."""
    return Pri3DError(f"{path}: {where}: {what}; remove it and make it again")


def check(path: Path, name: str, good: Any, what: str) -> None:
    """Check that every row of a data set is good.

    Raises:
        Pri3DError: a row is not; with the first one.
    """
    good = np.asarray(good)
    if not good.all():
        row = ", ".join(map(str, np.argwhere(~good)[0]))
        raise wrong(path, f"{name} row {row}" if good.ndim else name, what)


def ascending(values: np.ndarray) -> np.ndarray:
    """Mask of the values that are above the one before."""
    return np.concatenate([[True], values[1:] > values[:-1]])[: len(values)]


def check_offsets(path: Path, name: str, offset: np.ndarray, end: int) -> None:
    """Check that offsets cut [0, end) into consecutive pieces.

    Raises:
        Pri3DError: they do not.
    """
    good = np.append(offset[:-1] <= offset[1:], offset[-1] == end) & (offset <= end)
    good[0] &= offset[0] == 0
    check(path, name, good, f"does not cut {end} values into pieces")


def check_ledger(path: Path, file: h5py.File) -> str:
    """Check that frames in = kept + dropped, each of them once, in an artefact of one scan.

    Raises:
        Pri3DError: the ledger does not add up.
    """
    kept, dropped = file["frames/index"][()], file["dropped/index"][()]
    check(path, "frames/index", ascending(kept), "is not above the one before")
    check(path, "dropped/index", ~np.isin(dropped, kept), "is also among the kept frames")
    check(path, "dropped/index", ascending(np.sort(dropped)).all(), "has a frame twice")
    frames_in = int(file.attrs["frames_in"])
    sentence = f"{frames_in} frames in = {len(kept)} kept + {len(dropped)} dropped"
    check(path, "frames_in", frames_in == len(kept) + len(dropped), f"not true: {sentence}")
    return sentence


def source_of(
    reader: type[Source], path: Path, made: Path, inputs: dict[str, str]
) -> Source | None:
    """Open the artefact that another was made from; None if it does not exist.

    Raises:
        Pri3DError: the artefact at `path` is damaged, or not the one that `made` was made from.
    """
    if not path.exists():
        return None
    source = reader(path)
    if source.digest not in inputs.values():
        source.close()
        raise wrong(made, "inputs", f"made from another {path} than the one there")
    return source
