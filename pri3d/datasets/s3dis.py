"""S3DIS, Stanford's indoor spaces (Armeni et al., CVPR 2016), read from its annotated text files.

Area_<1..6>/<room>/Annotations/<class>_<number>.txt    lines of x y z r g b: meters, 0 to 255

Both releases are read: the aligned one (`Stanford3dDataset_v1.2_Aligned_Version`) and the other.
In a few bytes of the published files bit 5 is cleared, which turns a space, a 6 or a 0 into a
control character; the bit is restored. A line that is still not six numbers is dropped. Both are
counted in the notes of a cloud.
"""

import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from pri3d.classes import S3DIS13
from pri3d.datasets.frames import Frame, read_bytes
from pri3d.datasets.labeled_clouds import LabeledCloud, check_extent
from pri3d.errors import Pri3DError

TEST_AREA = 5  # by convention
AREAS = range(1, 7)
MERGED = {"stairs": "clutter"}  # in file names, but not one of the 13 classes
BIT_5 = 0x20
# Among the bytes below 0x20, only tabs and line ends belong into the files.
_REPAIR = bytes(b if b >= BIT_5 or b in b"\t\n\r" else b | BIT_5 for b in range(256))


class S3DIS:
    """Rooms of the areas 1, 2, 3, 4 and 6 ("train") or of area 5 ("val"); see `LabeledClouds`.

    `problems` lists missing areas and rooms without annotations.

    Args:
        root: folder of the areas.
        split: "train" or "val".

    Raises:
        Pri3DError: there is no such split, or no room of it has annotations.
    """

    name = "s3dis"
    classes = S3DIS13

    def __init__(self, root: Path, split: str) -> None:
        if split not in ("train", "val"):
            raise Pri3DError(f"{root}: S3DIS has no split {split}; use val, which is Area_5")
        self.root, self.split = Path(root), split
        self.frames: list[Frame] = []
        self.problems: list[str] = []
        for area in AREAS:
            if (area == TEST_AREA) == (split == "val"):
                self._list(f"Area_{area}")
        if not self.frames:
            raise Pri3DError(
                f"{self.root}: the {split} areas have no room with annotations; set the folder "
                "that contains Area_1 to Area_6"
            )

    def _list(self, area: str) -> None:
        if not (self.root / area).is_dir():
            self.problems.append(f"{area}: missing; the area is left out")
            return
        for room in sorted(path for path in (self.root / area).iterdir() if path.is_dir()):
            name = f"{area}/{room.name}"
            if _annotations(room):
                self.frames.append(Frame(name, name))
            else:
                self.problems.append(f"{name}: has no Annotations/*.txt; the room is left out")

    def cloud(self, index: int) -> LabeledCloud:
        """All annotated points of a room, in the order of the file names."""
        room = self.root / self.frames[index].name
        objects: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        notes: list[str] = []
        unknown: Counter[str] = Counter()
        for path in _annotations(room):
            points_N6, repairs = read_points(path)
            notes += repairs
            name = path.stem.rpartition("_")[0] or path.stem
            name = MERGED.get(name, name)
            if name in self.classes.names:
                label = self.classes.names.index(name) + 1
            else:
                label = 0
                unknown[name] += len(points_N6)
            objects.append(points_N6)
            labels.append(np.full(len(points_N6), label, np.uint8))
        for name, count in sorted(unknown.items()):
            notes.append(f"{room.name}: {name!r} ({count:,} points) is not a class; it is ignored")
        points_N6 = np.concatenate(objects)
        if not len(points_N6):
            raise Pri3DError(f"{room}: its annotations have no points; download the room again")
        check_extent(points_N6[:, :3], str(room))
        return LabeledCloud(
            points=points_N6[:, :3],
            color=np.rint(points_N6[:, 3:]).astype(np.uint8),
            label=np.concatenate(labels),
            notes=notes,
        )


def _annotations(room: Path) -> list[Path]:
    return sorted((room / "Annotations").glob("[!.]*.txt"))


def read_points(path: Path) -> tuple[np.ndarray, list[str]]:
    """Read a file of x y z r g b lines.

    Returns:
        Points and colors float64 [N, 6], and what was repaired or dropped, one sentence each.

    Raises:
        Pri3DError: the file cannot be read.
    """
    data = read_bytes(path)
    notes: list[str] = []
    repaired = data.translate(_REPAIR)
    if repaired != data:
        changed = np.flatnonzero(np.frombuffer(data, np.uint8) != np.frombuffer(repaired, np.uint8))
        line = data.count(b"\n", 0, int(changed[0])) + 1
        notes.append(
            f"{path.parent.parent.name}/{path.name}: {len(changed)} damaged bytes were repaired, "
            f"the first in line {line}"
        )
    points = _parse_at_once(repaired)
    if points is None:
        points, dropped, first = _parse_lines(repaired)
        if dropped:
            notes.append(
                f"{path.parent.parent.name}/{path.name}: {dropped} lines are not six numbers and "
                f"were dropped, the first is line {first}"
            )
    return points, notes


def _parse_at_once(data: bytes) -> np.ndarray | None:
    """The points of a file, or None unless every line is six valid numbers."""
    if re.search(rb"[^0-9eE+\-. \t\r\n]", data):
        return None
    characters = np.frombuffer(data, np.uint8)
    blank = characters <= 0x20
    is_first = ~blank
    is_first[1:] &= blank[:-1]  # the first character of a word
    line = np.cumsum(characters == ord("\n"))
    words = np.bincount(line[is_first], minlength=1)
    if not ((words == 6) | (words == 0)).all():
        return None
    try:
        with warnings.catch_warnings():
            # Before 2.3, numpy warns and returns fewer numbers, where later versions raise.
            warnings.simplefilter("ignore")
            numbers = np.fromstring(data, np.float64, sep=" ")
    except ValueError:
        return None
    if len(numbers) != words.sum():
        return None
    points = numbers.reshape(-1, 6)
    return points if _is_valid(points).all() else None


def _parse_lines(data: bytes) -> tuple[np.ndarray, int, int]:
    """The points of the valid lines, the number of other lines, and the first of those."""
    valid, dropped, first = [], 0, 0
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            values = np.array([float(word) for word in line.split()])
            fits = values.shape == (6,) and bool(_is_valid(values[None])[0])
        except ValueError:
            fits = False
        if fits:
            valid.append(values)
        else:
            dropped += 1
            first = first or number
    return np.array(valid).reshape(-1, 6), dropped, first


def _is_valid(points_N6: np.ndarray) -> np.ndarray:
    color = points_N6[:, 3:]
    return np.isfinite(points_N6).all(axis=1) & ((color >= 0) & (color <= 255)).all(axis=1)
