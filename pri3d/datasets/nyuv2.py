"""NYU Depth v2 (Silberman et al., "Indoor Segmentation and Support Inference from RGBD Images",
ECCV 2012), read from its four published files.

    nyu_depth_v2_labeled.mat   MATLAB 7.3, which is HDF5 with MATLAB's axes in reverse order
    splits.mat                 trainNdxs and testNdxs, counted from 1
    classMapping40.mat         894 classes -> 40 (Gupta et al., CVPR 2013)
    class13Mapping.mat         40 -> 13 (Couprie et al., ICLR 2013)

"train" is the authors' training split (795 images), "val" their test split (654). Images are not
cropped: 480 x 640 pixels with a white border, whose label is 0.
"""

from pathlib import Path

import h5py
import numpy as np
from scipy.io import loadmat

from pri3d.classes import NYU13_OF_40, NYUV2_9, NYUV2_13
from pri3d.datasets.frames import Frame, Objects
from pri3d.errors import Pri3DError

LABELED = "nyu_depth_v2_labeled.mat"
SPLITS, MAPPING40, MAPPING13 = "splits.mat", "classMapping40.mat", "class13Mapping.mat"
FILES = {
    LABELED: "images, labels and instances",
    SPLITS: "the images of the training and of the test split",
    MAPPING40: "the map of the 894 raw classes to 40",
    MAPPING13: "the map of 40 classes to 13",
}
RAW_CLASSES = 894
_AXES = {"images": 4, "labels": 3, "instances": 3}  # number of axes of each array
_REPLACE = "download it again (2.8 GB, from the data set's page)"


class NyuV2:
    """A split of NYU Depth v2 in its 13 classes (see `LabeledImages`).

    A frame is named `nyu_rgb_<number>`, counted from 1 over all images. Its scene is the name in
    the file, or the name of the frame if the file does not name scenes.

    Args:
        root: folder of the four files.
        split: "train" or "val".

    Raises:
        Pri3DError: a file is missing or damaged, or there is no such split.
    """

    name = "nyuv2"
    classes = NYUV2_13
    things = NYUV2_9

    def __init__(self, root: Path, split: str) -> None:
        self.root, self.split = Path(root), split
        self.problems: list[str] = []
        self.without_objects: list[str] = []
        self._file: h5py.File | None = None
        self._to13 = self._mapping()
        self.path = self.root / LABELED
        count, scenes = self._check()
        keys = {"train": "trainNdxs", "val": "testNdxs"}
        if split not in keys:
            raise Pri3DError(
                f"{self.root}: NYU Depth v2 has no split {split}; val is its test split"
            )
        key = keys[split]
        chosen = _array(self.root / SPLITS, key).ravel()
        self._rows: list[int] = []
        self.frames: list[Frame] = []
        for n in chosen.astype(np.int64):
            name = f"nyu_rgb_{n:04d}"
            if 1 <= n <= count:
                self._rows.append(int(n) - 1)
                self.frames.append(Frame(name, scenes[n - 1] if scenes else name))
            else:
                self.problems.append(f"{name}: not among the {count} images of {LABELED}")
        if not self.frames:
            raise Pri3DError(
                f"{self.root / SPLITS}: lists none of the {count} images in {LABELED}; "
                "download both again"
            )

    def _mapping(self) -> np.ndarray:
        """Lookup table u8 [65536]: raw class -> 1..13, or 0 for raw 0 and for unknown classes."""
        to40 = _array(self.root / MAPPING40, "mapClass").ravel()
        to13 = _array(self.root / MAPPING13, "classMapping13", "labels13").ravel()
        if len(to40) != RAW_CLASSES or to40.min() < 1 or to40.max() > 40:
            raise Pri3DError(
                f"{self.root / MAPPING40}: mapClass does not map {RAW_CLASSES} classes to "
                "1..40; download it again"
            )
        # The names of the 13 classes are fixed in pri3d.classes, so their order must be this one.
        if not np.array_equal(to13, NYU13_OF_40[1:]):
            raise Pri3DError(
                f"{self.root / MAPPING13}: labels13 is not the published map of 40 classes to 13; "
                "download it again"
            )
        table = np.zeros(1 << 16, np.uint8)
        table[1 : RAW_CLASSES + 1] = to13[to40.astype(np.int64) - 1]
        return table

    def _check(self) -> tuple[int, list[str]]:
        """Check the arrays; returns the number of images and the scene of each, if it is known."""
        file = self._open()
        shapes = {}
        for name, axes in _AXES.items():
            if not isinstance(file.get(name), h5py.Dataset) or file[name].ndim != axes:
                raise Pri3DError(f"{self.path}: has no array {name!r} with {axes} axes; {_REPLACE}")
            if file[name].dtype.kind != "u" or (name == "images" and file[name].dtype.itemsize > 1):
                kind = file[name].dtype
                raise Pri3DError(f"{self.path}: its {name} have the type {kind}; {_REPLACE}")
            shapes[name] = file[name].shape
        count, channels, width, height = shapes["images"]
        expected = (count, width, height)
        if channels != 3 or shapes["labels"] != expected or shapes["instances"] != expected:
            raise Pri3DError(f"{self.path}: its arrays differ in size ({shapes}); {_REPLACE}")
        scenes: list[str] = []
        if isinstance(file.get("scenes"), h5py.Dataset):
            try:
                scenes = [_text(file, reference) for reference in file["scenes"][()].ravel()]
            except (OSError, KeyError, ValueError, TypeError):
                scenes = []
            if len(scenes) != count:
                self.problems.append(
                    f"{LABELED}: `scenes` cannot be read; each image is taken as a scene"
                )
                scenes = []
        self._close()  # a forked process has to open the file itself
        return count, scenes

    def _open(self) -> h5py.File:
        if self._file is None:
            try:
                self._file = h5py.File(self.path, "r")
            except OSError as error:
                if not self.path.exists():
                    raise _missing(self.path) from None
                raise Pri3DError(f"{self.path}: cannot be read ({error}); {_REPLACE}") from None
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _read(self, index: int, name: str) -> np.ndarray:
        """One image of an array, in the order [..., height, width]."""
        try:
            return np.swapaxes(self._open()[name][self._rows[index]], -1, -2)
        except OSError as error:
            where = f"{self.path}: {name} of {self.frames[index].name}"
            raise Pri3DError(f"{where} cannot be read ({error}); {_REPLACE}") from None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_file": None}

    def color(self, index: int, min_height: int | None = None) -> np.ndarray:
        return np.ascontiguousarray(self._read(index, "images").transpose(1, 2, 0))

    def labels(self, index: int) -> np.ndarray:
        return self._to13[self._read(index, "labels")]

    def unknown_ids(self, index: int) -> list[int]:
        """Raw classes above 894."""
        return [int(n) for n in np.unique(self._read(index, "labels")) if n > RAW_CLASSES]

    def has_objects(self, index: int) -> bool:
        return True

    def objects(self, index: int) -> Objects:
        """The objects of an image.

        An object is identified by its raw class and its number. A number alone is not unique, nor
        is a number with one of the 13 classes (cabinet 1 and dresser 1 are both furniture).
        """
        raw = self._read(index, "labels").astype(np.int64)
        pair = (raw << 16) + self._read(index, "instances")
        lut = self.things.lut()
        pair[lut[self._to13[raw]] == 0] = 0
        keys, number = np.unique(pair, return_inverse=True)
        number = number.reshape(pair.shape).astype(np.int32)
        if keys[0] != 0:  # every pixel belongs to an object
            keys, number = np.append(0, keys), number + 1
        class_of = {i: int(lut[self._to13[k >> 16]]) for i, k in enumerate(keys) if i}
        return Objects(number, class_of)


def _missing(path: Path) -> Pri3DError:
    return Pri3DError(f"{path}: missing; it has {FILES[path.name]}; put it there")


def _array(path: Path, *keys: str) -> np.ndarray:
    """An array of a MATLAB 5 file; several keys lead through nested structs."""
    if not path.is_file():
        raise _missing(path)
    try:
        value = loadmat(path)
        for key in keys:
            value = value[key]
            while value.dtype == object and value.size == 1:  # a field of a struct
                value = value.item()
        if value.dtype.kind not in "uif" or not value.size:
            raise ValueError(f"its type is {value.dtype}")
        return np.asarray(value)
    except Exception as error:  # damaged files make scipy raise half a dozen unrelated types
        raise Pri3DError(
            f"{path}: cannot be read as {'.'.join(keys)} ({type(error).__name__}: {error}); "
            "download it again"
        ) from None


def _text(file: h5py.File, reference: h5py.Reference) -> str:
    return "".join(map(chr, file[reference][()].ravel()))
