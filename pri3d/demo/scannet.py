"""The demo scans as `scannet_frames_25k`, as `pri3d.datasets.scannet` reads it."""

from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pri3d.datasets.scannet_scans import ScanNetScans
from pri3d.demo.look_alikes import (
    choose_scenes,
    matrix_text,
    write_bytes,
    write_lists,
    write_text,
)
from pri3d.errors import Pri3DError
from pri3d.sources import images
from pri3d.sources.sens import SensFile


def write(
    out: Path, scans: Path, held_out: list[str], every: int, scenes: list[str] | None = None
) -> None:
    """Write frames of demo scans with their labels into a folder.

    Args:
        out: folder to make.
        scans: folder of the demo scans.
        held_out: scenes of the validation split; the others are for training.
        every: only every n-th frame of a scan is written.
        scenes: default: all scans.

    Raises:
        Pri3DError: a scene has no scan, or no labeled frame.
    """
    scenes = choose_scenes(scans, held_out, scenes)
    data = ScanNetScans(scans, "train", every, scenes)
    for scene in tqdm(scenes, "scenes", disable=None):
        _write_scene(out / scene, data, scans / scene / f"{scene}.sens", scene)
    write_lists(out, held_out, scenes)


def _write_scene(folder: Path, data: ScanNetScans, scan: Path, scene: str) -> None:
    chosen = [i for i, frame in enumerate(data.frames) if frame.scene == scene]
    if not chosen:
        raise Pri3DError(f"{scan}: has no labeled frame; make it again (pri3d demo)")
    with SensFile(scan) as sens:
        header = sens.header
        write_text(folder / "intrinsics_color.txt", matrix_text(header.color_intrinsic))
        write_text(folder / "intrinsics_depth.txt", matrix_text(header.depth_intrinsic))
        for i in chosen:
            number = int(data.frames[i].name.rpartition("/")[2])
            nyu40 = data.nyu40(i)
            label = images.encode_png(nyu40)
            instance = images.encode_png(_instances(nyu40, data.instances(i)))
            color = images.encode_color(sens.color(number))
            depth = images.encode_png(sens.depth(number))
            write_bytes(folder / f"color/{number:06d}.jpg", color)
            write_bytes(folder / f"depth/{number:06d}.png", depth)
            write_bytes(folder / f"label/{number:06d}.png", label)
            write_bytes(folder / f"instance/{number:06d}.png", instance)
            pose = matrix_text(sens.world_from_camera(number))
            write_text(folder / f"pose/{number:06d}.txt", pose)


def _instances(nyu40: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Instance image u16: NYU-40 id * 1000 + number among the objects of that class in the image.

    1 where nothing is annotated, as in the published conversion.
    """
    instance_of = np.zeros(objects.max() + 1, np.uint16)
    count: Counter[int] = Counter()
    for number in np.unique(objects):
        kind = int(nyu40.ravel()[np.argmax(objects.ravel() == number)])
        count[kind] += 1
        instance_of[number] = kind * 1000 + count[kind] if kind else 1
    return instance_of[objects]
