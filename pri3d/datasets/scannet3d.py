"""ScanNet's reconstructed surfaces with a class at every vertex.

scannetv2_train.txt scannetv2_val.txt      scene ids; in Tasks/Benchmark of its repository
<scene>/<scene>_vh_clean_2.ply             vertices and colours
<scene>/<scene>_vh_clean_2.labels.ply      the same vertices with `label`, a nyu40 id; or, where it
                                           is missing, both of
<scene>/<scene>_vh_clean_2.0.010000.segs.json   the segment of each vertex
<scene>/<scene>.aggregation.json           the segments of each object, and what it is called
scannetv2-labels.combined.tsv              the nyu40 id of each name
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pri3d.classes import SCANNET20
from pri3d.datasets.frames import Frame
from pri3d.datasets.rooms import Cloud, check_extent
from pri3d.datasets.scannet import scene_list
from pri3d.datasets.scannet_labels import read_names
from pri3d.errors import Pri3DError
from pri3d.sources.surface import read_ply, read_vertex_labels

SURFACE, LABELS = "_vh_clean_2.ply", "_vh_clean_2.labels.ply"
SEGMENTS, OBJECTS = "_vh_clean_2.0.010000.segs.json", ".aggregation.json"
HIGHEST = 40  # of nyu40


class ScanNet3D:
    """A split of ScanNet's surfaces. See `pri3d.datasets.rooms`.

    A scene of the list without its files is in `problems`. The split "test" has no labels.
    """

    name = "scannet3d"
    classes = SCANNET20

    def __init__(self, root: Path, split: str) -> None:
        self.root, self.split = Path(root), split
        self._nyu40_of_name: dict[str, int] | None = None
        self.frames, self.problems = list_scenes(self.root, split, self._needed)

    def _needed(self, scene: str) -> list[str]:
        if self.split == "test":
            return [SURFACE]
        labelled = self._file(scene, LABELS).is_file()
        return [SURFACE, LABELS] if labelled else [SURFACE, SEGMENTS, OBJECTS]

    def _file(self, scene: str, part: str) -> Path:
        return self.root / scene / f"{scene}{part}"

    def cloud(self, index: int) -> Cloud:
        """The vertices of a scene. Raises Pri3DError where its files do not fit each other."""
        scene = self.frames[index].scene
        surface = read_ply(self._file(scene, SURFACE), keep_all=True)
        check_extent(surface.points, str(self._file(scene, SURFACE)))
        notes: list[str] = []
        if self.split == "test":
            nyu40 = np.zeros(len(surface.points), np.int64)
        elif self._file(scene, LABELS).is_file():
            path = self._file(scene, LABELS)
            given = np.nan_to_num(read_vertex_labels(path).astype(np.float64), nan=-1)
            nyu40 = np.clip(given, -1, 1e6).astype(np.int64)
            check_length(path, len(nyu40), len(surface.points))
            wrong = (nyu40 < 0) | (nyu40 > HIGHEST)
            for number, count in Counter(nyu40[wrong].tolist()).items():
                notes.append(f"{path.name}: id {number} of {count:,} vertices is no class")
            nyu40[wrong] = 0
        else:
            nyu40 = self._from_segments(scene, len(surface.points), notes)
        label = self.classes.lut()[nyu40]
        finite = np.isfinite(surface.points).all(axis=1)
        if not finite.all():
            notes.append(f"{scene}{SURFACE}: {(~finite).sum():,} vertices are not finite")
            label[~finite] = 0
        return Cloud(surface.points, surface.color, label, notes)

    def _from_segments(self, scene: str, vertices: int, notes: list[str]) -> np.ndarray:
        """nyu40 ids int64 [N] by the names of the objects; later objects overwrite earlier ones."""
        if self._nyu40_of_name is None:
            self._nyu40_of_name = read_names(self.root)
        files = (self._file(scene, part) for part in (SEGMENTS, OBJECTS))
        of_vertex, names = read_objects(*files, vertices)
        numbers = np.array([0, *(self._nyu40_of_name.get(name, 0) for name in names)], np.int64)
        nyu40 = numbers[of_vertex + 1]
        unknown = Counter(name for name in names if not self._nyu40_of_name.get(name))
        for name, count in sorted(unknown.items()):
            notes.append(
                f"{scene}{OBJECTS}: {name!r} ({count} objects) is not in the table of labels"
            )
        return nyu40


def list_scenes(
    root: Path, split: str, needed: Callable[[str], list[str]]
) -> tuple[list[Frame], list[str]]:
    """The scenes of a split that have all the files they need, and a sentence for each other one.

    needed: endings of the files of a scene. Raises Pri3DError where no scene has them.
    """
    frames, problems = [], []
    scenes = scene_list(root, split)
    for scene in scenes:
        parts = needed(scene)
        missing = [part for part in parts if not (root / scene / f"{scene}{part}").is_file()]
        if missing:
            problems.append(f"{scene}: has no {scene}{missing[0]}; the scene is left out")
        else:
            frames.append(Frame(scene, scene))
    if not frames:
        raise Pri3DError(
            f"{root}: has no scene of the {len(scenes)} in scannetv2_{split}.txt with all files; "
            f"put <scene>/<scene>{' and '.join(needed(scenes[0]))} here"
        )
    return frames, problems


def check_length(path: Path, found: int, expected: int) -> None:
    if found != expected:
        raise Pri3DError(
            f"{path}: has {found:,} vertices, the surface {expected:,}; fetch both again"
        )


def read_objects(segments: Path, aggregation: Path, vertices: int) -> tuple[np.ndarray, list[str]]:
    """The object of every vertex int64 [N], -1 for none, and what each object is called.

    Later objects overwrite earlier ones. Raises Pri3DError where a file is damaged, or is of
    another surface than one of so many vertices.
    """
    try:
        segment = np.array(_json(segments)["segIndices"], np.int64)
        groups = [
            (str(group["label"]), np.array(group["segments"], np.int64))
            for group in _json(aggregation)["segGroups"]
        ]
        if segment.ndim != 1 or (len(segment) and segment.min() < 0):
            raise ValueError("segIndices are no list of numbers from 0")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Pri3DError(
            f"{segments} or {aggregation.name}: is not as ScanNet has it "
            f"({type(error).__name__}: {error}); fetch both again"
        ) from None
    check_length(segments, len(segment), vertices)
    known, of_segment = np.unique(segment, return_inverse=True)
    object_of = np.full(len(known), -1, np.int64)
    for number, (_, listed) in enumerate(groups):
        object_of[np.isin(known, listed)] = number
    return object_of[of_segment], [name for name, _ in groups]


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Pri3DError(f"{path}: is no JSON ({error}); fetch it again") from None
    if not isinstance(content, dict):
        raise Pri3DError(f"{path}: holds no JSON object; fetch it again")
    return content
