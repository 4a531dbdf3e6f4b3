"""SUN RGB-D (Song et al., CVPR 2015), from its raw folders and `.mat` files, without MATLAB.

    SUNRGBD/<sensor>/.../depth/*.png, image/*.jpg
    SUNRGBDMeta3DBB_v2.mat     calibration and boxes of all frames (or SUNRGBDMeta.mat, version 1)
    allsplit.mat               which frames are for training and for testing; of the toolbox

Axes are upright: x right, y forward, z up, the camera at the origin. Boxes as VoteNet has them
(Qi et al., ICCV 2019): heading from +x towards -y.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from pri3d.boxes import Boxes, inside
from pri3d.datasets.frames import Frame, decode_jpeg, decode_labels, read_bytes
from pri3d.datasets.objects3d import Kinds, Scene
from pri3d.errors import Pri3DError

META = ("SUNRGBDMeta3DBB_v2.mat", "SUNRGBDMeta.mat")
SPLIT = "allsplit.mat"
FOLDERS = (
    "",
    "SUNRGBDtoolbox",
    "SUNRGBDtoolbox/traintestSUNRGBD",
    "SUNRGBDtoolbox/Metadata",
    "SUNRGBD",
)
PREFIX = "/n/fs/sun3d/data"  # where the authors had it; 16 characters
FIELDS = ("sequenceName", "Rtilt", "K", "depthpath", "rgbpath", "groundtruth3DBB")
FARTHEST_M = 8.0
# Full sizes (l, w, h): medians over the training split, of VoteNet's release.
SIZES = {
    "bed": (2.114256, 1.620300, 0.927272),
    "table": (0.791118, 1.279516, 0.718182),
    "sofa": (0.923508, 1.867419, 0.845495),
    "chair": (0.591958, 0.552978, 0.827272),
    "toilet": (0.699104, 0.454178, 0.756250),
    "desk": (0.695190, 1.346299, 0.736364),
    "dresser": (0.528526, 1.002642, 1.172878),
    "night_stand": (0.500618, 0.632163, 0.683424),
    "bookshelf": (0.404671, 1.071108, 1.688889),
    "bathtub": (0.765840, 1.398258, 0.472728),
}


class SunRGBD:
    """The training ("train") or testing frames ("val") of SUN RGB-D. See `objects3d`.

    A frame of the split that the description or the disk lacks is in `problems`. described_by: the
    file that has the boxes; of version 2 where both are there (VoteNet's figures are of version 1).
    """

    name = "sunrgbd"
    classes = Kinds(tuple(SIZES), np.array(list(SIZES.values())))
    oriented = True

    def __init__(self, root: Path, split: str) -> None:
        self.root, self.split = Path(root), split
        self.frames: list[Frame] = []
        self.problems: list[str] = []
        self._meta: list[Any] = []
        keys = {"train": "alltrain", "val": "alltest"}
        if split not in keys:
            raise Pri3DError(f"SUN RGB-D has no split {split}; val is its test split")
        path = self._find(META)
        self.described_by = path.name
        entries = _matrix(path, "SUNRGBDMeta")
        missing = [field for field in FIELDS if field not in (entries.dtype.names or ())]
        if missing:
            raise Pri3DError(
                f"{path}: its SUNRGBDMeta has no {', '.join(missing)}; take the data set's own"
            )
        described = {_sequence(_text(entry["sequenceName"])): entry for entry in entries.ravel()}
        listed = [
            _sequence(_text(cell)) for cell in _matrix(self._find((SPLIT,)), keys[split]).ravel()
        ]
        for name in listed:
            if name not in described:
                self.problems.append(f"{name}: not described in {path.name}; it is left out")
                continue
            entry = described[name]
            depth = self._path(entry, "depthpath")
            if not depth.is_file():
                self.problems.append(f"{name}: has no {depth.name}; it is left out")
                continue
            self.frames.append(Frame(name, name))
            self._meta.append(entry)
        if not self.frames:
            raise Pri3DError(
                f"{self.root}: has none of the {len(listed)} frames of the split {split}"
                + (f" ({self.problems[0]})" if self.problems else "")
            )

    def _find(self, names: tuple[str, ...]) -> Path:
        for name in names:
            for folder in FOLDERS:
                if (self.root / folder / name).is_file():
                    return self.root / folder / name
        raise Pri3DError(
            f"{self.root / names[0]}: missing; it comes with SUN RGB-D or its toolbox, and belongs "
            "beside the folder SUNRGBD"
        )

    def _path(self, entry: Any, field: str) -> Path:
        return self.root / _relative(_text(entry[field]))

    def scene(self, index: int) -> Scene:
        """The points of all depth pixels, and the boxes of the ten classes."""
        entry, name = self._meta[index], self.frames[index].name
        notes: list[str] = []
        try:
            K = np.array(entry["K"], float).reshape(3, 3)
            tilt = np.array(entry["Rtilt"], float).reshape(3, 3)
            if not (np.isfinite([K, tilt]).all() and K[0, 0] > 0 and K[1, 1] > 0):
                raise ValueError("a number is not finite, or a focal length not positive")
        except (ValueError, TypeError) as error:
            raise Pri3DError(f"{name}: its calibration cannot be read ({error})") from None
        depth_path, color_path = self._path(entry, "depthpath"), self._path(entry, "rgbpath")
        stored = decode_labels(read_bytes(depth_path), str(depth_path))
        rgb = decode_jpeg(read_bytes(color_path), str(color_path))
        points, (row, column) = points_of(stored, K, tilt)
        if not len(points):
            raise Pri3DError(f"{depth_path}: has no depth; fetch it again")
        row = row * rgb.shape[0] // stored.shape[0]
        column = column * rgb.shape[1] // stored.shape[1]
        boxes, kind = self._boxes(entry, name, notes)
        member = members(points, boxes)
        return Scene(points, rgb[row, column], boxes, kind, member, notes)

    def _boxes(self, entry: Any, name: str, notes: list[str]) -> tuple[Boxes, np.ndarray]:
        center, size, heading, kind = [], [], [], []
        truth = entry["groundtruth3DBB"]
        fields = truth.dtype.names or ()
        if truth.size and not {"classname", "coeffs", "centroid", "orientation"} <= set(fields):
            raise Pri3DError(f"{self.described_by}: the boxes of {name} have no class or no size")
        for box in truth.ravel():
            word = _text(box["classname"])
            if word not in SIZES:
                continue
            try:
                half = np.abs(np.array(box["coeffs"], float).ravel())
                middle = np.array(box["centroid"], float).ravel()
                direction = np.array(box["orientation"], float).ravel()
                if not (half.shape == middle.shape == (3,) and len(direction) >= 2):
                    raise ValueError("not three numbers each")
                if not np.isfinite([*half, *middle, *direction]).all() or not half.all():
                    raise ValueError("no size, or a number that is not finite")
            except (ValueError, TypeError) as error:
                notes.append(f"{name}: a box of class {word} is left out ({error})")
                continue
            width, length, height = 2 * half
            center.append(middle)
            size.append((length, width, height))
            heading.append(-np.arctan2(direction[1], direction[0]))
            kind.append(self.classes.names.index(word))
        shaped = (np.array(values, float).reshape(-1, 3) for values in (center, size))
        return Boxes(*shaped, np.array(heading, float)), np.array(kind, np.int64)


def points_of(stored: np.ndarray, K: np.ndarray, tilt: np.ndarray):
    """Points float64 [N, 3] of a stored depth image u16 [H, W], upright, and (rows, columns).

    Depth is in millimetres, its bits turned by three places; beyond 8 m it is 8 m, 0 is none. The
    published cameras count pixels from 1. tilt: `Rtilt`, upright from camera.
    """
    metres = ((stored >> 3) | (stored << 13)).astype(np.uint16) / 1000
    metres = np.minimum(metres, FARTHEST_M)
    row, column = np.nonzero(metres)
    z = metres[row, column]
    x = (column + 1 - K[0, 2]) * z / K[0, 0]
    y = (row + 1 - K[1, 2]) * z / K[1, 1]
    return np.stack([x, z, -y], axis=1) @ tilt.T, (row, column)


def members(points_N3: np.ndarray, boxes: Boxes) -> np.ndarray:
    """int32 [N, 3]: the boxes that each point lies in, as VoteNet keeps them: the first found in
    all three places, the second in the second, further ones in the third; -1 for none.
    """
    member_N3 = np.full((len(points_N3), 3), -1, np.int32)
    number = np.zeros(len(points_N3), np.int64)
    for i, box in enumerate(zip(*boxes)):
        rows = np.flatnonzero(inside(points_N3, *box))
        first, later = rows[number[rows] == 0], rows[number[rows] > 0]
        member_N3[first] = i
        member_N3[later, np.minimum(number[later], 2)] = i
        number[rows] += 1
    return member_N3


def _matrix(path: Path, name: str) -> np.ndarray:
    try:
        return loadmat(path)[name]
    except Exception as error:  # scipy raises whatever the damage leads to
        raise Pri3DError(
            f"{path}: {name} cannot be read ({type(error).__name__}: {error}); fetch it again"
        ) from None


def _text(cell: Any) -> str:
    """The text in a MATLAB cell or field, however deep it lies."""
    while isinstance(cell, np.ndarray):
        if not cell.size:
            return ""
        cell = cell.ravel()[0]
    return str(cell)


def _relative(path: str) -> str:
    """A path of the authors' disk below the folder of the data set."""
    return re.sub("/+", "/", path).removeprefix(PREFIX).strip("/")


def _sequence(path: str) -> str:
    return _relative(path)
