"""ScanNet's reconstructed surfaces with a class at every vertex.

scannetv2_train.txt scannetv2_val.txt      scene ids; in Tasks/Benchmark of its repository
<scene>/<scene>_vh_clean_2.ply             vertices and colors
<scene>/<scene>_vh_clean_2.labels.ply      the same vertices with `label`, a NYU-40 id; or, if it is
                                           missing, both of
<scene>/<scene>_vh_clean_2.0.010000.segs.json   the segment of each vertex
<scene>/<scene>.aggregation.json           the segments and the category of each object
scannetv2-labels.combined.tsv              the NYU-40 id of each category
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pri3d.classes import SCANNET20
from pri3d.datasets.frames import Frame
from pri3d.datasets.labeled_clouds import LabeledCloud, check_extent
from pri3d.datasets.scannet import scene_list
from pri3d.datasets.scannet_labels import nyu40_of_names
from pri3d.errors import Pri3DError
from pri3d.sources.surface import read_ply, read_vertex_labels

SURFACE, LABELS = "_vh_clean_2.ply", "_vh_clean_2.labels.ply"
SEGMENTS, OBJECTS = "_vh_clean_2.0.010000.segs.json", ".aggregation.json"
MAX_NYU40 = 40


class ScanNet3D:
    """A split of ScanNet's surfaces (see `LabeledClouds`).

    `problems` lists scenes without all their files. The split "test" has no labels.

    Args:
        root: folder of the scenes; lists and table may be in the folder above.
        split: "train", "val" or "test".

    Raises:
        Pri3DError: the list is missing or damaged, or no scene of the split can be used.
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
        labeled = self._file(scene, LABELS).is_file()
        return [SURFACE, LABELS] if labeled else [SURFACE, SEGMENTS, OBJECTS]

    def _file(self, scene: str, suffix: str) -> Path:
        return self.root / scene / f"{scene}{suffix}"

    def cloud(self, index: int) -> LabeledCloud:
        """The vertices of a scene.

        Raises:
            Pri3DError: a file is damaged, or the files do not fit each other.
        """
        scene = self.frames[index].scene
        surface = read_ply(self._file(scene, SURFACE), keep_all=True)
        check_extent(surface.points, str(self._file(scene, SURFACE)))
        notes: list[str] = []
        vertices = len(surface.points)
        if self.split == "test":
            nyu40 = np.zeros(vertices, np.int64)
        elif self._file(scene, LABELS).is_file():
            nyu40 = self._from_labels(scene, vertices, notes)
        else:
            nyu40 = self._from_segments(scene, vertices, notes)
        label = self.classes.lut()[nyu40]
        finite = np.isfinite(surface.points).all(axis=1)
        if not finite.all():
            notes.append(f"{scene}{SURFACE}: {(~finite).sum():,} vertices are not finite")
            label[~finite] = 0
        return LabeledCloud(surface.points, surface.color, label, notes)

    def _from_labels(self, scene: str, vertices: int, notes: list[str]) -> np.ndarray:
        """NYU-40 ids int64 [N] of the vertices, as the labels file has them."""
        path = self._file(scene, LABELS)
        stored = np.nan_to_num(read_vertex_labels(path).astype(np.float64), nan=-1)
        nyu40 = np.clip(stored, -1, 1e6).astype(np.int64)
        check_length(path, len(nyu40), vertices)
        wrong = (nyu40 < 0) | (nyu40 > MAX_NYU40)
        for number, count in Counter(nyu40[wrong].tolist()).items():
            notes.append(f"{path.name}: id {number} of {count:,} vertices is not a NYU-40 id")
        nyu40[wrong] = 0
        return nyu40

    def _from_segments(self, scene: str, vertices: int, notes: list[str]) -> np.ndarray:
        """NYU-40 ids int64 [N] by the names of the objects; the last object of a segment wins."""
        if self._nyu40_of_name is None:
            self._nyu40_of_name = nyu40_of_names(self.root)
        segments, objects = self._file(scene, SEGMENTS), self._file(scene, OBJECTS)
        object_N, names = read_objects(segments, objects, vertices)
        nyu40_of_object = [self._nyu40_of_name.get(name, 0) for name in names]
        nyu40 = np.array([0, *nyu40_of_object], np.int64)[object_N + 1]
        unknown = Counter(name for name in names if not self._nyu40_of_name.get(name))
        for name, count in sorted(unknown.items()):
            notes.append(
                f"{scene}{OBJECTS}: {name!r} ({count} objects) is not in the table of labels"
            )
        return nyu40


def list_scenes(
    root: Path, split: str, needed: Callable[[str], list[str]]
) -> tuple[list[Frame], list[str]]:
    """The scenes of a split that have all their files.

    Args:
        root: folder of the scenes.
        split: "train", "val" or "test".
        needed: scene -> suffixes of the files that it needs.

    Returns:
        The usable scenes, and one sentence for each of the others.

    Raises:
        Pri3DError: the list is missing or damaged, or no scene has all its files.
    """
    frames, problems = [], []
    scenes = scene_list(root, split)
    for scene in scenes:
        suffixes = needed(scene)
        missing = [s for s in suffixes if not (root / scene / f"{scene}{s}").is_file()]
        if missing:
            problems.append(f"{scene}: has no {scene}{missing[0]}; the scene is left out")
        else:
            frames.append(Frame(scene, scene))
    if not frames:
        raise Pri3DError(
            f"{root}: none of the {len(scenes)} scenes in scannetv2_{split}.txt has all its files; "
            f"put <scene>/<scene>{' and '.join(needed(scenes[0]))} here"
        )
    return frames, problems


def check_length(path: Path, vertices: int, expected: int) -> None:
    """Raise Pri3DError unless a file has as many vertices as the surface."""
    if vertices != expected:
        raise Pri3DError(
            f"{path}: has {vertices:,} vertices, the surface {expected:,}; download both again"
        )


def read_objects(segments: Path, aggregation: Path, vertices: int) -> tuple[np.ndarray, list[str]]:
    """Read the annotated objects of a surface.

    Args:
        segments: the file with the segment of each vertex.
        aggregation: the file with the segments of each object.
        vertices: number of vertices of the surface.

    Returns:
        The object of every vertex int64 [N], -1 for none, and the category of each object. Where
        objects share a segment, the last one has it.

    Raises:
        Pri3DError: a file is damaged, or belongs to another surface.
    """
    try:
        segment_N = np.array(_read_json(segments)["segIndices"], np.int64)
        groups = [
            (str(group["label"]), np.array(group["segments"], np.int64))
            for group in _read_json(aggregation)["segGroups"]
        ]
        if segment_N.ndim != 1 or (len(segment_N) and segment_N.min() < 0):
            raise ValueError("segIndices is not a list of numbers from 0")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Pri3DError(
            f"{segments} or {aggregation.name}: not as published for ScanNet "
            f"({type(error).__name__}: {error}); download both again"
        ) from None
    check_length(segments, len(segment_N), vertices)
    known, position_N = np.unique(segment_N, return_inverse=True)
    object_of = np.full(len(known), -1, np.int64)
    for number, (_, its_segments) in enumerate(groups):
        object_of[np.isin(known, its_segments)] = number
    return object_of[position_N], [name for name, _ in groups]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Pri3DError(f"{path}: not JSON ({error}); download it again") from None
    if not isinstance(content, dict):
        raise Pri3DError(f"{path}: not a JSON object; download it again")
    return content
