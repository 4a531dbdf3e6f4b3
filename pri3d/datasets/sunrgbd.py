"""SUN RGB-D (Song et al., CVPR 2015), read from its raw folders and `.mat` files without MATLAB.

    SUNRGBD/<sensor>/.../depth/*.png, image/*.jpg
    SUNRGBDMeta3DBB_v2.mat     calibration and boxes of all frames (or SUNRGBDMeta.mat, version 1)
    allsplit.mat               the training and the test frames; part of the toolbox

Axes are upright: x right, y forward, z up, the camera at the origin. Boxes follow VoteNet (Qi et
al., ICCV 2019): the heading is measured from +x towards -y.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from pri3d.boxes import Boxes, inside
from pri3d.datasets.frames import Frame, decode_jpeg, decode_labels, read_bytes
from pri3d.datasets.scenes import Kinds, Scene
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
PREFIX = "/n/fs/sun3d/data"  # of the paths in the files, from the authors' disk
FIELDS = ("sequenceName", "Rtilt", "K", "depthpath", "rgbpath", "groundtruth3DBB")
MAX_DEPTH_M = 8.0
# Full sizes (l, w, h) in meters: medians over the training split, from VoteNet's release.
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
    """The training frames ("train") or the test frames ("val") of SUN RGB-D (see `LabeledScenes`).

    described_by: the file with the boxes: of version 2 if both exist (VoteNet's results are for
    version 1). `problems` lists frames without a description or a depth image.

    Args:
        root: folder of SUNRGBD; the `.mat` files may be in the folders of the toolbox.
        split: "train" or "val".

    Raises:
        Pri3DError: a file is missing or damaged, or no frame of the split can be used.
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
            raise Pri3DError(f"{self.root}: SUN RGB-D has no split {split}; val is its test split")
        path = self._find(META)
        self.described_by = path.name
        entries = _matrix(path, "SUNRGBDMeta")
        missing = [field for field in FIELDS if field not in (entries.dtype.names or ())]
        if missing:
            raise Pri3DError(
                f"{path}: its SUNRGBDMeta has no {', '.join(missing)}; use the published file"
            )
        described = {_relative(_text(entry["sequenceName"])): entry for entry in entries.ravel()}
        listed = [
            _relative(_text(cell)) for cell in _matrix(self._find((SPLIT,)), keys[split]).ravel()
        ]
        for name in listed:
            if name not in described:
                self.problems.append(f"{name}: not described in {path.name}; the frame is left out")
                continue
            entry = described[name]
            depth = self._path(entry, "depthpath")
            if not depth.is_file():
                self.problems.append(f"{name}: has no {depth.name}; the frame is left out")
                continue
            self.frames.append(Frame(name, name))
            self._meta.append(entry)
        if not self.frames:
            raise Pri3DError(
                f"{self.root}: has none of the {len(listed)} frames of the split {split}"
                + (f" ({self.problems[0]})" if self.problems else "")
                + "; put the folder SUNRGBD here"
            )

    def _find(self, names: tuple[str, ...]) -> Path:
        for name in names:
            for folder in FOLDERS:
                if (self.root / folder / name).is_file():
                    return self.root / folder / name
        raise Pri3DError(
            f"{self.root / names[0]}: missing; put it beside the folder SUNRGBD (it is part of SUN "
            "RGB-D or of its toolbox)"
        )

    def _path(self, entry: Any, field: str) -> Path:
        return self.root / _relative(_text(entry[field]))

    def scene(self, index: int) -> Scene:
        """The points of all valid depth pixels, and the boxes of the ten classes."""
        entry, name = self._meta[index], self.frames[index].name
        notes: list[str] = []
        try:
            K = np.array(entry["K"], float).reshape(3, 3)
            upright_from_camera = np.array(entry["Rtilt"], float).reshape(3, 3)
            if not (np.isfinite([K, upright_from_camera]).all() and K[0, 0] > 0 and K[1, 1] > 0):
                raise ValueError("a number is not finite, or a focal length is not positive")
        except (ValueError, TypeError) as error:
            raise Pri3DError(
                f"{name}: its calibration cannot be read ({error}); download "
                f"{self.described_by} again"
            ) from None
        depth_path, color_path = self._path(entry, "depthpath"), self._path(entry, "rgbpath")
        stored = decode_labels(read_bytes(depth_path), str(depth_path))
        rgb = decode_jpeg(read_bytes(color_path), str(color_path))
        points, (row, column) = unproject_stored(stored, K, upright_from_camera)
        if not len(points):
            raise Pri3DError(f"{depth_path}: has no valid depth; download it again")
        row = row * rgb.shape[0] // stored.shape[0]
        column = column * rgb.shape[1] // stored.shape[1]
        boxes, kind = self._boxes(entry, name, notes)
        return Scene(
            points=points,
            color=rgb[row, column],
            boxes=boxes,
            kind=kind,
            member=box_members(points, boxes),
            notes=notes,
        )

    def _boxes(self, entry: Any, name: str, notes: list[str]) -> tuple[Boxes, np.ndarray]:
        """The boxes of a frame, and their classes int64 [K] from 0."""
        center, size, heading, kind = [], [], [], []
        truth = entry["groundtruth3DBB"]
        fields = truth.dtype.names or ()
        if truth.size and not {"classname", "coeffs", "centroid", "orientation"} <= set(fields):
            raise Pri3DError(
                f"{self.described_by}: the boxes of {name} have no class or no size; download "
                "it again"
            )
        for box in truth.ravel():
            class_name = _text(box["classname"])
            if class_name not in SIZES:
                continue
            try:
                half = np.abs(np.array(box["coeffs"], float).ravel())
                centroid = np.array(box["centroid"], float).ravel()
                direction = np.array(box["orientation"], float).ravel()
                if not (half.shape == centroid.shape == (3,) and len(direction) >= 2):
                    raise ValueError("not three numbers each")
                if not np.isfinite([*half, *centroid, *direction]).all() or not half.all():
                    raise ValueError("a size of 0, or a number that is not finite")
            except (ValueError, TypeError) as error:
                notes.append(f"{name}: a box of class {class_name} is left out ({error})")
                continue
            width, length, height = 2 * half
            center.append(centroid)
            size.append((length, width, height))
            heading.append(-np.arctan2(direction[1], direction[0]))
            kind.append(self.classes.names.index(class_name))
        boxes = Boxes(
            center=np.array(center, float).reshape(-1, 3),
            size=np.array(size, float).reshape(-1, 3),
            heading=np.array(heading, float),
        )
        return boxes, np.array(kind, np.int64)


def unproject_stored(
    stored: np.ndarray, K: np.ndarray, upright_from_camera: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The points of a depth image as it is stored.

    Stored values are millimeters, rotated left by three bits, 0 where nothing was measured. Depths
    beyond 8 m are set to 8 m.

    Args:
        stored: u16 [H, W].
        K: intrinsics [3, 3]; the published ones count pixels from 1.
        upright_from_camera: rotation [3, 3], the published `Rtilt`.

    Returns:
        Upright points float64 [N, 3] in meters, and the rows and columns int64 [N] of their pixels.
    """
    depth_m = ((stored >> 3) | (stored << 13)).astype(np.uint16) / 1000
    depth_m = np.minimum(depth_m, MAX_DEPTH_M)
    row, column = np.nonzero(depth_m)
    z = depth_m[row, column]
    x = (column + 1 - K[0, 2]) * z / K[0, 0]
    y = (row + 1 - K[1, 2]) * z / K[1, 1]
    return np.stack([x, z, -y], axis=1) @ upright_from_camera.T, (row, column)


def box_members(points_N3: np.ndarray, boxes: Boxes) -> np.ndarray:
    """The boxes that each point lies in, int32 [N, 3], as VoteNet stores them.

    The first box is in all three columns, the second in column 1, the last of further ones in
    column 2; -1 for a point in no box.
    """
    member_N3 = np.full((len(points_N3), 3), -1, np.int32)
    count_N = np.zeros(len(points_N3), np.int64)
    for i, box in enumerate(zip(*boxes)):
        rows = np.flatnonzero(inside(points_N3, *box))
        first, later = rows[count_N[rows] == 0], rows[count_N[rows] > 0]
        member_N3[first] = i
        member_N3[later, np.minimum(count_N[later], 2)] = i
        count_N[rows] += 1
    return member_N3


def _matrix(path: Path, name: str) -> np.ndarray:
    try:
        return np.asarray(loadmat(path)[name])
    except Exception as error:  # what scipy raises depends on the damage
        raise Pri3DError(
            f"{path}: {name} cannot be read ({type(error).__name__}: {error}); download it again"
        ) from None


def _text(cell: Any) -> str:
    """The text in a MATLAB cell or field, nested to any depth."""
    while isinstance(cell, np.ndarray):
        if not cell.size:
            return ""
        cell = cell.ravel()[0]
    return str(cell)


def _relative(path: str) -> str:
    """A path on the authors' disk, relative to the folder of the data set."""
    return re.sub("/+", "/", path).removeprefix(PREFIX).strip("/")
