"""Labeled data sets, read from the files that are published, without preparation.

    scannet           images: scannet_frames_25k
    scannet_scans     images: the frames of scans with label images beside them
    nyuv2             images: NYU Depth v2
    scannet3d         clouds: ScanNet's surfaces
    s3dis             clouds: S3DIS's rooms
    scannet_objects   scenes: ScanNet's surfaces with the boxes of their objects
    sunrgbd           scenes: SUN RGB-D's frames with boxes

`splits` states the three shapes of a split, `open_split` opens any of them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, overload

from pri3d.datasets.frames import Frame, Objects, at_size
from pri3d.datasets.nyuv2 import NyuV2
from pri3d.datasets.s3dis import S3DIS
from pri3d.datasets.scannet import ScanNetFrames
from pri3d.datasets.scannet3d import ScanNet3D
from pri3d.datasets.scannet_objects import ScanNetObjects
from pri3d.datasets.scannet_scans import ScanNetScans, has_scans
from pri3d.datasets.splits import LabeledClouds, LabeledImages, LabeledScenes
from pri3d.datasets.sunrgbd import SunRGBD
from pri3d.errors import Pri3DError

__all__ = [
    "IMAGE_SETS",
    "Frame",
    "LabeledClouds",
    "LabeledImages",
    "LabeledScenes",
    "NyuV2",
    "Objects",
    "ScanNetFrames",
    "ScanNetScans",
    "at_size",
    "open_split",
]

Shape = Literal["images", "clouds", "scenes"]
Split = LabeledImages | LabeledClouds | LabeledScenes


def _scannet_images(root: Path, split: str) -> LabeledImages:
    return ScanNetScans(root, split) if has_scans(root) else ScanNetFrames(root, split)


# (shape, name of the data set) -> how to open a split of it.
OPENERS: dict[tuple[str, str], Callable[[Path, str], Split]] = {
    ("images", "scannet"): _scannet_images,
    ("images", "nyuv2"): NyuV2,
    ("clouds", "scannet3d"): ScanNet3D,
    ("clouds", "s3dis"): S3DIS,
    ("scenes", "scannet3d"): ScanNetObjects,
    ("scenes", "sunrgbd"): SunRGBD,
}
# Name of a data set of images -> the type that states its classes.
IMAGE_SETS: dict[str, type[LabeledImages]] = {"scannet": ScanNetFrames, "nyuv2": NyuV2}


@overload
def open_split(
    name: str, root: str | Path, split: str, shape: Literal["images"] = "images"
) -> LabeledImages: ...


@overload
def open_split(
    name: str, root: str | Path, split: str, shape: Literal["clouds"]
) -> LabeledClouds: ...


@overload
def open_split(
    name: str, root: str | Path, split: str, shape: Literal["scenes"]
) -> LabeledScenes: ...


def open_split(name: str, root: str | Path, split: str, shape: Shape = "images") -> Split:
    """Open a split of a labeled data set.

    Args:
        name: of the data set, as in the setting `datasets`.
        root: its folder.
        split: "train" or "val"; for ScanNet's images and clouds also "test", which has no labels.
        shape: what its samples are; scannet3d has both clouds and scenes.

    Raises:
        Pri3DError: the folder or the split does not exist, or no sample of it can be used.
        KeyError: the data set does not have this shape.
    """
    root = Path(root)
    if not root.is_dir():
        raise Pri3DError(f"{root}: no such folder; set datasets.{name} to an existing one")
    return OPENERS[shape, name](root, split)
