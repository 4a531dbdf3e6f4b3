"""Clouds with boxes around their objects: ScanNet's surfaces and SUN RGB-D's frames.

A split has `frames`, `classes` (names and mean sizes), `oriented` (whether boxes have headings),
`problems`, and reads one scene by its position:

    scene(i)               `Scene`

Reading one that is damaged raises Pri3DError with one sentence; the others stay usable.

Shapes: N points, K boxes.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pri3d.boxes import Boxes
from pri3d.classes import SCANNET18
from pri3d.datasets.rooms import check_extent
from pri3d.datasets.scannet3d import OBJECTS, SEGMENTS, SURFACE, list_scenes, read_objects
from pri3d.datasets.scannet_labels import read_names
from pri3d.errors import Pri3DError
from pri3d.sources.surface import read_ply

INFO = ".txt"


class Scene(NamedTuple):
    """points float64 [N, 3] metres, z up; color u8 [N, 3]; boxes, and their classes kind int64 [K],
    from 0; member int32 [N, 3]: boxes that each point belongs to, the first of them three times
    where there is one, -1 where there is none. notes: what was counted as nothing, a sentence each.
    """

    points: np.ndarray
    color: np.ndarray
    boxes: Boxes
    kind: np.ndarray
    member: np.ndarray
    notes: list[str]


class Kinds(NamedTuple):
    """Classes that have boxes: their names, and mean full sizes [C, 3] in metres."""

    names: tuple[str, ...]
    sizes: np.ndarray


# Means over ScanNet's training split, which VoteNet's and PointContrast's releases share.
SCANNET_SIZES = """
.76966726 .81160211 .92573741   1.876858 1.84255952 1.19315654   .61327999 .61486087 .71827014
1.39550063 1.51215451 .83443565   .97949596 1.06751485 .63296875   .53166301 .59555772 1.75001483
.96247056 .72462326 1.14818682   .83221924 1.04909355 1.68756634   .21132214 .4206159 .53728459
1.44400728 1.89708334 .26985747   1.02942616 1.40407966 .87554322   1.37664116 .65521793 1.68131292
.66508189 .71111926 1.29885307   .41999174 .37906947 1.75139715   .59359559 .59124924 .73919014
.50867595 .50656087 .30136236   1.15115265 1.0546296 .49706794   .47535286 .49249493 .58021168
"""
SCANNET_KINDS = Kinds(SCANNET18.names, np.array(SCANNET_SIZES.split(), float).reshape(18, 3))


def open_objects(name: str, root: str | Path, split: str):
    """A split ("train" or "val") of the data set in the folder `root`.

    scannet3d: scans with surfaces, segments and objects; sunrgbd: the folder with SUNRGBD/ and the
    files that describe it. Raises Pri3DError when it is not there.
    """
    from pri3d.datasets.sunrgbd import SunRGBD

    root = Path(root)
    if not root.is_dir():
        raise Pri3DError(f"{root}: no such folder; set datasets.{name} to where the data set is")
    return SunRGBD(root, split) if name == "sunrgbd" else ScanNetObjects(root, split)


class ScanNetObjects:
    """A split of ScanNet's surfaces with the boxes of their objects, aligned with the room's axes.

    <scene>/<scene>_vh_clean_2.ply, .aggregation.json, _vh_clean_2.0.010000.segs.json, and
    <scene>.txt with `axisAlignment`, 16 numbers. A scene without those 16 stays as it is, which is
    noted. Boxes go from the lowest to the highest of an object's aligned vertices.
    """

    name = "scannet3d"
    classes = SCANNET_KINDS
    oriented = False

    def __init__(self, root: Path, split: str) -> None:
        self.root, self.split = Path(root), split
        self._nyu40_of_name = read_names(self.root)
        needed = [SURFACE, SEGMENTS, OBJECTS]
        self.frames, self.problems = list_scenes(self.root, split, lambda scene: needed)

    def _file(self, scene: str, part: str) -> Path:
        return self.root / scene / f"{scene}{part}"

    def scene(self, index: int) -> Scene:
        name, notes = self.frames[index].scene, []
        surface = read_ply(self._file(name, SURFACE), keep_all=True)
        segments, objects = self._file(name, SEGMENTS), self._file(name, OBJECTS)
        alignment = self._alignment(name, notes)
        check_extent(surface.points, str(self._file(name, SURFACE)))
        points = surface.points @ alignment[:3, :3].T + alignment[:3, 3]
        check_extent(points, str(self._file(name, INFO)))
        lut = SCANNET18.lut()
        of_vertex, groups = read_objects(segments, objects, len(points))
        finite = np.isfinite(points).all(axis=1)
        kinds, low, high = [], [], []
        member = np.full(len(points), -1, np.int32)
        for group, label in enumerate(groups):
            nyu40 = self._nyu40_of_name.get(label, 0)
            if not nyu40:
                notes.append(f"{objects.name}: {label!r} is not in the table of labels")
            rows = np.flatnonzero((of_vertex == group) & finite)
            if not lut[nyu40]:
                continue
            if not len(rows):
                notes.append(f"{objects.name}: {label!r} number {group} has no vertex, and no box")
                continue
            member[rows] = len(kinds)
            kinds.append(int(lut[nyu40]) - 1)
            low.append(points[rows].min(axis=0))
            high.append(points[rows].max(axis=0))
        if not finite.all():
            notes.append(f"{name}{SURFACE}: {(~finite).sum():,} vertices are not finite")
        low, high = (np.array(ends, float).reshape(-1, 3) for ends in (low, high))
        boxes = Boxes((low + high) / 2, high - low, np.zeros(len(low)))
        member_N3 = np.repeat(member[finite][:, None], 3, axis=1)
        kind = np.array(kinds, np.int64)
        return Scene(points[finite], surface.color[finite], boxes, kind, member_N3, notes)

    def _alignment(self, scene: str, notes: list[str]) -> np.ndarray:
        path = self._file(scene, INFO)
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            lines = []
        for line in lines:
            key, _, value = line.partition("=")
            if key.strip() == "axisAlignment":
                try:
                    matrix = np.array(value.split(), float).reshape(4, 4)
                    if np.isfinite(matrix).all():
                        return matrix
                    raise ValueError
                except ValueError:
                    raise Pri3DError(
                        f"{path}: its axisAlignment is not 16 numbers; fetch it again"
                    ) from None
        notes.append(f"{scene}: has no axisAlignment; its boxes are along the axes it has")
        return np.eye(4)
