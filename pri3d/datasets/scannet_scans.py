"""ScanNet's scans with the label images that lie beside each `.sens`, one for every frame.

scannetv2_train.txt scannetv2_val.txt scannetv2-labels.combined.tsv
<scene>/<scene>.sens
<scene>/<scene>_2d-label-filt.zip     or label-filt/<frame>.png: 16 bits, raw ScanNet ids
<scene>/<scene>_2d-instance-filt.zip  or instance-filt/<frame>.png: 8 bits, object of the scan
"""

import functools
import zipfile
from pathlib import Path

import numpy as np

from pri3d.classes import SCANNET18, SCANNET20
from pri3d.datasets.frames import Frame, Objects, decode_labels, read_bytes
from pri3d.datasets.scannet import scene_list
from pri3d.datasets.table import read_table
from pri3d.errors import Pri3DError
from pri3d.scans.find import find_scans
from pri3d.scans.sens import SensFile

# Neighbouring frames of a scan show nearly the same; `scannet_frames_25k` takes about as many.
EVERY = 100


def has_scans(root: Path) -> bool:
    return any(root.glob("*/*.sens"))


class ScanNetScans:
    """A split of labelled scans, every n-th frame of each. See `pri3d.datasets`.

    scenes: their ids; default those of `scannetv2_<split>.txt`. A frame without a label image, and
    a scan that cannot be read, are in `problems`.
    """

    name = "scannet"
    classes = SCANNET20
    things = SCANNET18

    def __init__(
        self, root: Path, split: str, every: int = EVERY, scenes: list[str] | None = None
    ) -> None:
        self.root, self.split = Path(root), split
        self.table = read_table(self.root)
        self.frames: list[Frame] = []
        self.problems: list[str] = []
        self._scans = find_scans(self.root)
        scenes = scene_list(self.root, split) if scenes is None else scenes
        for scene in scenes:
            try:
                self._list(scene, every)
            except Pri3DError as error:
                self.problems.append(f"{error}; the scene is left out")
        if not self.frames:
            told = f" ({self.problems[0]})" if self.problems else ""
            raise Pri3DError(f"{self.root}: has no labelled frame of the {split} scenes{told}")

    def _list(self, scene: str, every: int) -> None:
        if scene not in self._scans:
            raise Pri3DError(f"{scene}: has no .sens")
        with SensFile(self._scans[scene].sens) as sens:
            number = len(sens)
        found = self._images(scene, "label").names
        if not found:
            raise Pri3DError(f"{scene}: has no label images")
        for frame in range(0, number, every):
            if frame in found:
                self.frames.append(Frame(f"{scene}/{frame:06d}", scene))
            else:
                self.problems.append(
                    f"{scene}: frame {frame} has no label image; the frame is left out"
                )

    def _images(self, scene: str, part: str) -> "_Images":
        return _images(self._scans[scene].sens.parent, scene, part)

    def color(self, index: int, min_height: int | None = None) -> np.ndarray:
        frame = self.frames[index]
        number = int(frame.name.rpartition("/")[2])
        with SensFile(self._scans[frame.scene].sens) as sens:
            return sens.color(number, min_height)

    def nyu40(self, index: int) -> np.ndarray:
        """u8 [H, W]: nyu40 ids, all 40 of them; 0 where nothing is annotated."""
        return self.table.nyu40_of_id[self._read(index, "label")]

    def labels(self, index: int) -> np.ndarray:
        return self.classes.lut()[self.nyu40(index)]

    def has_objects(self, index: int) -> bool:
        frame = self.frames[index]
        return int(frame.name.rpartition("/")[2]) in self._images(frame.scene, "instance").names

    def instances(self, index: int) -> np.ndarray:
        """u16 [H, W]: object of the scan at each pixel, of any class; 0 for none."""
        return self._read(index, "instance")

    def objects(self, index: int) -> Objects:
        """The class of an object is that of most of its pixels."""
        number = self.instances(index).astype(np.int32)
        kind = self.things.lut()[self.nyu40(index)]
        if kind.shape != number.shape:
            raise Pri3DError(
                f"{self.frames[index].name}: its label and instance images differ in size; fetch "
                "both again"
            )
        votes = np.bincount(number.ravel() * 256 + kind.ravel(), minlength=256 << 8)
        votes = votes.reshape(-1, 256)
        of = {int(n): int(votes[n].argmax()) for n in np.unique(number) if n}
        of = {n: kind for n, kind in of.items() if kind}
        number[~np.isin(number, list(of))] = 0
        return Objects(number, of)

    def _read(self, index: int, part: str) -> np.ndarray:
        frame = self.frames[index]
        number = int(frame.name.rpartition("/")[2])
        return self._images(frame.scene, part).read(number)


class _Images:
    """The images of one part of a scan, in a zip or a folder: names is the set of frames."""

    def __init__(self, folder: Path, scene: str, part: str) -> None:
        self.zip, self.folder = folder / f"{scene}_2d-{part}-filt.zip", folder / f"{part}-filt"
        self.inside: dict[int, str] = {}
        if self.folder.is_dir():
            names = [path.name for path in self.folder.glob("*.png")]
        elif self.zip.is_file():
            try:
                with zipfile.ZipFile(self.zip) as archive:
                    names = [name for name in archive.namelist() if name.endswith(".png")]
            except (OSError, zipfile.BadZipFile) as error:
                raise Pri3DError(f"{self.zip}: is no zip ({error}); fetch it again") from None
        else:
            names = []
        for name in names:
            stem = Path(name).stem
            if stem.isdecimal():
                self.inside[int(stem)] = name
        self.names = self.inside.keys()

    def read(self, frame: int) -> np.ndarray:
        name = self.inside[frame]
        if self.folder.is_dir():
            path = self.folder / name
            return decode_labels(read_bytes(path), str(path))
        try:
            with zipfile.ZipFile(self.zip) as archive:
                data = archive.read(name)
        except (OSError, zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
            raise Pri3DError(f"{self.zip}: {name} cannot be read ({error})") from None
        return decode_labels(data, f"{self.zip}: {name}")


# The listing of a scan's files does not change while it is used.
_images = functools.lru_cache(maxsize=4096)(_Images)
