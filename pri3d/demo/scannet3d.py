"""The surfaces of the demo scans, as `pri3d.datasets.scannet3d` and `scannet_objects` read them."""

from pathlib import Path

from tqdm import tqdm

from pri3d.datasets.scannet3d import LABELS, OBJECTS, SEGMENTS, SURFACE
from pri3d.datasets.scannet_labels import NAME as TABLE
from pri3d.datasets.scannet_objects import INFO
from pri3d.demo.look_alikes import choose_scenes, copy, write_lists


def write(out: Path, scans: Path, held_out: list[str], scenes: list[str] | None = None) -> None:
    """Write the surfaces of demo scans and the lists of ScanNet's splits into a folder.

    Args:
        out: folder to make.
        scans: folder of the demo scans.
        held_out: scenes of the validation split; the others are for training.
        scenes: default: all scans.

    Raises:
        Pri3DError: a scene has no scan.
    """
    scenes = choose_scenes(scans, held_out, scenes)
    for scene in tqdm(scenes, "scenes", disable=None):
        for suffix in (SURFACE, LABELS, SEGMENTS, OBJECTS, INFO):
            copy(scans / scene / f"{scene}{suffix}", out / scene / f"{scene}{suffix}")
    copy(scans / TABLE, out / TABLE)
    write_lists(out, held_out, scenes)
