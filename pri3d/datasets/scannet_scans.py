"""ScanNet's scans with the label images beside each `.sens`, one for every frame.

scannetv2_train.txt scannetv2_val.txt scannetv2-labels.combined.tsv
<scene>/<scene>.sens
<scene>/<scene>_2d-label-filt.zip     or label-filt/<frame>.png: 16 bits, raw ScanNet ids
<scene>/<scene>_2d-instance-filt.zip  or instance-filt/<frame>.png: 8 bits, object in the scan
"""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pri3d.classes import SCANNET18, SCANNET20
from pri3d.datasets.frames import Frame, Objects, decode_labels, read_bytes, read_member
from pri3d.datasets.scannet import scene_list
from pri3d.datasets.scannet_labels import nyu40_of_ids
from pri3d.errors import Pri3DError
from pri3d.sources.find import find_scans
from pri3d.sources.sens import SensFile

# Adjacent frames of a scan are nearly the same; `scannet_frames_25k` has about this spacing.
EVERY = 100


def has_scans(root: Path) -> bool:
    """Whether a folder contains scans in ScanNet's layout."""
    return any(root.glob("*/*.sens"))


class ScanNetScans:
    """A split of labeled scans (see `LabeledImages`).

    `problems` lists frames without a label image and scans that cannot be read, `without_objects`
    frames and scans without instance images.

    Args:
        root: folder of the scans; lists and table may be in the folder above.
        split: "train" or "val".
        every: only every n-th frame is used.
        scenes: scene ids; default those in `scannetv2_<split>.txt`.

    Raises:
        Pri3DError: the table or the list is missing or damaged, or no frame can be used.
    """

    name = "scannet"
    classes = SCANNET20
    things = SCANNET18

    def __init__(
        self, root: Path, split: str, every: int = EVERY, scenes: list[str] | None = None
    ) -> None:
        self.root, self.split = Path(root), split
        self._nyu40_of_id = nyu40_of_ids(self.root)
        self.frames: list[Frame] = []
        self.problems: list[str] = []
        self.without_objects: list[str] = []
        self._files: list[_FrameFiles] = []
        self._scans = find_scans(self.root)
        scenes = scene_list(self.root, split) if scenes is None else scenes
        for scene in scenes:
            try:
                self._list(scene, every)
            except Pri3DError as error:
                self.problems.append(f"{error}; the scene is left out")
        if not self.frames:
            reason = f" ({self.problems[0]})" if self.problems else ""
            raise Pri3DError(
                f"{self.root}: has no labeled frame of the {split} scenes{reason}; put label "
                "images beside the scans"
            )

    def _list(self, scene: str, every: int) -> None:
        if scene not in self._scans:
            raise Pri3DError(f"{scene}: has no .sens")
        path = self._scans[scene].sens
        labels = _images(path.parent, scene, "label")
        if not labels:
            raise Pri3DError(f"{scene}: has no label images")
        try:
            objects = _images(path.parent, scene, "instance")
        except Pri3DError as error:
            objects = {}
            self.without_objects.append(f"{error}; the scene is used without objects")
        else:
            if not objects:
                self.without_objects.append(f"{scene}: has no instance images")
        with SensFile(path) as sens:
            for frame in range(0, len(sens), every):
                if frame not in labels:
                    self.problems.append(
                        f"{scene}: frame {frame} has no label image; the frame is left out"
                    )
                    continue
                if objects and frame not in objects:
                    self.without_objects.append(f"{scene}: frame {frame} has no instance image")
                self.frames.append(Frame(f"{scene}/{frame:06d}", scene))
                self._files.append(_FrameFiles(frame, labels[frame], objects.get(frame)))

    def color(self, index: int, min_height: int | None = None) -> np.ndarray:
        with SensFile(self._scans[self.frames[index].scene].sens) as sens:
            return sens.color(self._files[index].frame, min_height)

    def nyu40(self, index: int) -> np.ndarray:
        """NYU-40 ids u8 [H, W], 0 where nothing is annotated; raises Pri3DError like `labels`."""
        return self._nyu40_of_id[self._files[index].label.read()]

    def labels(self, index: int) -> np.ndarray:
        return self.classes.lut()[self.nyu40(index)]

    def unknown_ids(self, index: int) -> list[int]:
        """Raw ids in the label image that are not in the table."""
        raw = np.unique(self._files[index].label.read())
        return [int(n) for n in raw if n and not self._nyu40_of_id[n]]

    def has_objects(self, index: int) -> bool:
        return self._files[index].instance is not None

    def instances(self, index: int) -> np.ndarray:
        """Objects of any class u16 [H, W], numbered through the scan; 0 for none.

        Raises:
            Pri3DError: the instance image is missing or damaged.
        """
        image = self._files[index].instance
        if image is None:
            raise Pri3DError(f"{self.frames[index].name}: has no instance image")
        return image.read()

    def objects(self, index: int) -> Objects:
        """The objects of an image; the class of an object is the class of most of its pixels."""
        number = self.instances(index).astype(np.int32)
        kind = self.things.lut()[self.nyu40(index)]
        if kind.shape != number.shape:
            raise Pri3DError(
                f"{self.frames[index].name}: its label and instance images differ in size; "
                "download both again"
            )
        votes = np.bincount(number.ravel() * 256 + kind.ravel(), minlength=(number.max() + 1) << 8)
        votes = votes.reshape(-1, 256)
        class_of = {int(n): int(votes[n].argmax()) for n in np.unique(number) if n}
        class_of = {n: kind for n, kind in class_of.items() if kind}
        number[~np.isin(number, list(class_of))] = 0
        return Objects(number, class_of)


class _Image(NamedTuple):
    """A label or instance image: a file, or a member of a zip."""

    path: Path
    member: str | None

    def read(self) -> np.ndarray:
        if self.member is None:
            return decode_labels(read_bytes(self.path), str(self.path))
        try:
            with zipfile.ZipFile(self.path) as archive:
                data = read_member(archive, self.member)
        except (OSError, zipfile.BadZipFile) as error:
            raise Pri3DError(f"{self.path}: not a zip ({error}); download it again") from None
        return decode_labels(data, f"{self.path}: {self.member}")


class _FrameFiles(NamedTuple):
    """The number of a frame in its scan, and its images."""

    frame: int
    label: _Image
    instance: _Image | None


def _images(folder: Path, scene: str, part: str) -> dict[int, _Image]:
    """Frame -> its "label" or "instance" image; a folder takes precedence over a zip."""
    unpacked, packed = folder / f"{part}-filt", folder / f"{scene}_2d-{part}-filt.zip"
    if unpacked.is_dir():
        images = {path.stem: _Image(path, None) for path in unpacked.glob("[!.]*.png")}
    elif packed.is_file():
        try:
            with zipfile.ZipFile(packed) as archive:
                names = [name for name in archive.namelist() if name.endswith(".png")]
        except Exception as error:
            raise Pri3DError(f"{packed}: not a zip ({error}); download it again") from None
        images = {Path(name).stem: _Image(packed, name) for name in names}
    else:
        return {}
    return {int(stem): image for stem, image in images.items() if stem.isdecimal()}
