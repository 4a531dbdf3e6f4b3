"""Labelled data sets, read from the files that are published, without preparation.

A split of a data set has `frames` (name and scene of each), `classes` (of its labels), `things`
(those that come as objects), `problems` (what was left out, and why), `without_objects` (what can
only serve for labels), and reads one frame by its position:

    color(i, min_height)   u8 [H, W, 3]
    labels(i)              u8 [h, w], 0 where nothing is annotated, k for the k-th class
    objects(i)             `Objects`: the things of the image
    has_objects(i)         whether they are annotated at all
    unknown_ids(i)         ids in its label image that the data set does not have

Sizes of labels and colours may differ. Reading a frame that is damaged raises Pri3DError with one
sentence; the other frames stay usable.
"""

from pathlib import Path

from pri3d.datasets.frames import Frame, Objects, at_size
from pri3d.datasets.nyuv2 import NyuV2
from pri3d.datasets.scannet import ScanNetFrames
from pri3d.datasets.scannet_scans import ScanNetScans, has_scans
from pri3d.errors import Pri3DError

__all__ = ["Frame", "NyuV2", "Objects", "ScanNetFrames", "ScanNetScans", "at_size", "open_split"]

Split = ScanNetFrames | ScanNetScans | NyuV2


def open_split(name: str, root: str | Path, split: str) -> Split:
    """A split ("train", "val", of ScanNet's frames "test") of the data set in the folder `root`.

    scannet: `scannet_frames_25k`, or scans with their `_2d-label-filt` beside them; nyuv2: the
    folder with `nyu_depth_v2_labeled.mat`. Raises Pri3DError when it is not there.
    """
    root = Path(root)
    if not root.is_dir():
        raise Pri3DError(f"{root}: no such folder; set datasets.{name} to where the data set is")
    if name == "nyuv2":
        return NyuV2(root, split)
    return ScanNetScans(root, split) if has_scans(root) else ScanNetFrames(root, split)
