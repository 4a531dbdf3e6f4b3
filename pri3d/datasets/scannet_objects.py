"""ScanNet's surfaces with the boxes of their objects, aligned with the axes of the room.

<scene>/<scene>_vh_clean_2.ply             vertices and colors
<scene>/<scene>_vh_clean_2.0.010000.segs.json   the segment of each vertex
<scene>/<scene>.aggregation.json           the segments and the category of each object
<scene>/<scene>.txt                        `axisAlignment`, 16 numbers: aligned from scan
"""

from pathlib import Path

import numpy as np

from pri3d.boxes import Boxes
from pri3d.classes import SCANNET18
from pri3d.datasets.labeled_clouds import check_extent
from pri3d.datasets.scannet3d import OBJECTS, SEGMENTS, SURFACE, list_scenes, read_objects
from pri3d.datasets.scannet_labels import nyu40_of_names
from pri3d.datasets.scenes import Kinds, Scene
from pri3d.errors import Pri3DError
from pri3d.sources.surface import read_ply

INFO = ".txt"

# Means over ScanNet's training split, the same in the releases of VoteNet and PointContrast.
SCANNET_SIZES = """
.76966726 .81160211 .92573741   1.876858 1.84255952 1.19315654   .61327999 .61486087 .71827014
1.39550063 1.51215451 .83443565   .97949596 1.06751485 .63296875   .53166301 .59555772 1.75001483
.96247056 .72462326 1.14818682   .83221924 1.04909355 1.68756634   .21132214 .4206159 .53728459
1.44400728 1.89708334 .26985747   1.02942616 1.40407966 .87554322   1.37664116 .65521793 1.68131292
.66508189 .71111926 1.29885307   .41999174 .37906947 1.75139715   .59359559 .59124924 .73919014
.50867595 .50656087 .30136236   1.15115265 1.0546296 .49706794   .47535286 .49249493 .58021168
"""
SCANNET_KINDS = Kinds(SCANNET18.names, np.array(SCANNET_SIZES.split(), float).reshape(18, 3))


class ScanNetObjects:
    """A split of ScanNet's surfaces with boxes (see `LabeledScenes`).

    A box extends from the min to the max coordinates of the aligned vertices of an object. A scene
    without `axisAlignment` keeps its axes, which is noted. `problems` lists scenes without all
    their files.

    Args:
        root: folder of the scenes; lists and table may be in the folder above.
        split: "train" or "val".

    Raises:
        Pri3DError: the list or the table is missing or damaged, or no scene can be used.
    """

    name = "scannet3d"
    classes = SCANNET_KINDS
    oriented = False

    def __init__(self, root: Path, split: str) -> None:
        self.root, self.split = Path(root), split
        self._nyu40_of_name = nyu40_of_names(self.root)
        needed = [SURFACE, SEGMENTS, OBJECTS]
        self.frames, self.problems = list_scenes(self.root, split, lambda scene: needed)

    def _file(self, scene: str, suffix: str) -> Path:
        return self.root / scene / f"{scene}{suffix}"

    def scene(self, index: int) -> Scene:
        """The finite vertices of a scene, and the boxes of the 18 classes."""
        name = self.frames[index].scene
        notes: list[str] = []
        surface = read_ply(self._file(name, SURFACE), keep_all=True)
        aligned_from_scan = self._alignment(name, notes)
        check_extent(surface.points, str(self._file(name, SURFACE)))
        points = surface.points @ aligned_from_scan[:3, :3].T + aligned_from_scan[:3, 3]
        check_extent(points, str(self._file(name, INFO)))
        objects = self._file(name, OBJECTS)
        object_N, categories = read_objects(self._file(name, SEGMENTS), objects, len(points))
        finite = np.isfinite(points).all(axis=1)
        lut = SCANNET18.lut()
        kinds: list[int] = []
        corners: list[tuple[np.ndarray, np.ndarray]] = []
        member = np.full(len(points), -1, np.int32)
        for number, category in enumerate(categories):
            nyu40 = self._nyu40_of_name.get(category, 0)
            if not nyu40:
                notes.append(f"{objects.name}: {category!r} is not in the table of labels")
            rows = np.flatnonzero((object_N == number) & finite)
            if not lut[nyu40]:
                continue
            if not len(rows):
                notes.append(
                    f"{objects.name}: {category!r} number {number} has no vertices, and so no box"
                )
                continue
            member[rows] = len(kinds)
            kinds.append(int(lut[nyu40]) - 1)
            corners.append((points[rows].min(axis=0), points[rows].max(axis=0)))
        if not finite.all():
            notes.append(f"{name}{SURFACE}: {(~finite).sum():,} vertices are not finite")
        low, high = np.array(corners, float).reshape(-1, 2, 3).transpose(1, 0, 2)
        return Scene(
            points=points[finite],
            color=surface.color[finite],
            boxes=Boxes(center=(low + high) / 2, size=high - low, heading=np.zeros(len(low))),
            kind=np.array(kinds, np.int64),
            member=np.repeat(member[finite][:, None], 3, axis=1),
            notes=notes,
        )

    def _alignment(self, scene: str, notes: list[str]) -> np.ndarray:
        """aligned_from_scan [4, 4]."""
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
                        f"{path}: its axisAlignment is not 16 numbers; download it again"
                    ) from None
        notes.append(f"{scene}: has no axisAlignment; its boxes are aligned with its own axes")
        return np.eye(4)
