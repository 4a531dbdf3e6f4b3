"""S3DIS, Stanford's indoor spaces (Armeni et al., CVPR 2016), from its annotated text files.

Area_<1..6>/<room>/Annotations/<class>_<number>.txt    lines of x y z r g b: metres, 0 to 255

Both packings are read: the aligned one (`Stanford3dDataset_v1.2_Aligned_Version`) and the other.
Known damage: a few bytes have lost their bit 5, so that a space, a 6 or a 0 became a control
character. They get it back. A line that then is not six numbers is dropped; both are counted.
"""

import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from pri3d.classes import S3DIS13
from pri3d.datasets.frames import Frame, read_bytes
from pri3d.datasets.rooms import Cloud, check_extent
from pri3d.errors import Pri3DError

HELD_OUT = 5  # the area that everyone tests on
AREAS = range(1, 7)
AS = {"stairs": "clutter"}  # of no class of its own
BIT_5 = 0x20
# What a text of numbers has; any other byte below 0x20 has lost its bit 5.
_REPAIR = bytes(b if b >= BIT_5 or b in b"\t\n\r" else b | BIT_5 for b in range(256))


class S3DIS:
    """Rooms of the areas 1, 2, 3, 4 and 6 ("train") or of area 5 ("val"). See `rooms`.

    A room without annotations, and areas that are missing, are in `problems`.
    """

    name = "s3dis"
    classes = S3DIS13

    def __init__(self, root: Path, split: str) -> None:
        if split not in ("train", "val"):
            raise Pri3DError(f"S3DIS has no split {split}; take val, which is Area_5")
        self.root, self.split = Path(root), split
        self.frames: list[Frame] = []
        self.problems: list[str] = []
        for area in AREAS:
            if (area == HELD_OUT) == (split == "val"):
                self._list(f"Area_{area}")
        if not self.frames:
            raise Pri3DError(
                f"{self.root}: has no room with annotations of the {split} areas; give the folder "
                "that holds Area_1 to Area_6"
            )

    def _list(self, area: str) -> None:
        if not (self.root / area).is_dir():
            self.problems.append(f"{area}: missing; it is left out")
            return
        for room in sorted(path for path in (self.root / area).iterdir() if path.is_dir()):
            name = f"{area}/{room.name}"
            if _files(room):
                self.frames.append(Frame(name, name))
            else:
                self.problems.append(f"{name}: has no Annotations/*.txt; the room is left out")

    def cloud(self, index: int) -> Cloud:
        """All annotated points of a room, in the order of the files' names."""
        room = self.root / self.frames[index].name
        numbers, labels, notes, unknown = [], [], [], Counter()
        for path in _files(room):
            found, said = read_points(path)
            notes += said
            word = path.stem.rpartition("_")[0] or path.stem
            word = AS.get(word, word)
            if word in self.classes.names:
                kind = self.classes.names.index(word) + 1
            else:
                kind = 0
                unknown[word] += len(found)
            numbers.append(found)
            labels.append(np.full(len(found), kind, np.uint8))
        for word, count in sorted(unknown.items()):
            notes.append(f"{room.name}: {word!r} ({count:,} points) is no class")
        numbers_N6 = np.concatenate(numbers)
        if not len(numbers_N6):
            raise Pri3DError(f"{room}: its annotations hold no point; fetch the room again")
        check_extent(numbers_N6[:, :3], str(room))
        color = np.rint(numbers_N6[:, 3:]).astype(np.uint8)
        return Cloud(numbers_N6[:, :3], color, np.concatenate(labels), notes)


def _files(room: Path) -> list[Path]:
    return sorted((room / "Annotations").glob("[!.]*.txt"))


def read_points(path: Path) -> tuple[np.ndarray, list[str]]:
    """float64 [N, 6] of a file of x y z r g b lines, and what was repaired or dropped."""
    data, notes = read_bytes(path), []
    repaired = data.translate(_REPAIR)
    if repaired != data:
        changed = np.flatnonzero(np.frombuffer(data, np.uint8) != np.frombuffer(repaired, np.uint8))
        line = data.count(b"\n", 0, int(changed[0])) + 1
        notes.append(
            f"{path.parent.parent.name}/{path.name}: {len(changed)} damaged bytes repaired, the "
            f"first in line {line}"
        )
    points = _all_at_once(repaired)
    if points is None:
        points, dropped, first = _line_by_line(repaired)
        if dropped:
            notes.append(
                f"{path.parent.parent.name}/{path.name}: {dropped} lines are not six numbers, the "
                f"first is line {first}; they are dropped"
            )
    return points, notes


def _all_at_once(data: bytes) -> np.ndarray | None:
    """All lines at once, where every one is six good numbers."""
    if re.search(rb"[^0-9eE+\-. \t\r\n]", data):
        return None
    characters = np.frombuffer(data, np.uint8)
    blank = characters <= 0x20
    begins = ~blank
    begins[1:] &= blank[:-1]  # the first character of a word
    line = np.cumsum(characters == ord("\n"))
    words = np.bincount(line[begins], minlength=1)
    if not ((words == 6) | (words == 0)).all():
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy before 2.3 warns and stops: fewer numbers
            numbers = np.fromstring(data, np.float64, sep=" ")
    except ValueError:
        return None
    if len(numbers) != words.sum():
        return None
    points = numbers.reshape(-1, 6)
    return points if _is_good(points).all() else None


def _line_by_line(data: bytes) -> tuple[np.ndarray, int, int]:
    good, dropped, first = [], 0, 0
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            values = np.array([float(word) for word in line.split()])
            fits = values.shape == (6,) and bool(_is_good(values[None])[0])
        except ValueError:
            fits = False
        if fits:
            good.append(values)
        else:
            dropped += 1
            first = first or number
    return np.array(good).reshape(-1, 6), dropped, first


def _is_good(points_N6: np.ndarray) -> np.ndarray:
    color = points_N6[:, 3:]
    return np.isfinite(points_N6).all(axis=1) & ((color >= 0) & (color <= 255)).all(axis=1)
