"""The surfaces of the demo scans as rooms of S3DIS, as `pri3d.datasets.s3dis` reads them."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pri3d.datasets.s3dis import AREAS, TEST_AREA
from pri3d.datasets.scannet3d import OBJECTS, SEGMENTS, SURFACE
from pri3d.demo.classes import CLASSES
from pri3d.demo.look_alikes import choose_scenes, write_text
from pri3d.sources.surface import read_ply

# NYU-40 name -> name in S3DIS; other classes are clutter.
NAMES = {
    "ceiling": "ceiling",
    "floor": "floor",
    "wall": "wall",
    "window": "window",
    "door": "door",
    "chair": "chair",
    "sofa": "sofa",
    "table": "table",
    "desk": "table",
    "bookshelf": "bookcase",
}
EVERY = 4  # only every n-th vertex: text files are large


def write(out: Path, scans: Path, held_out: list[str], scenes: list[str] | None = None) -> None:
    """Write the surfaces of demo scans as rooms, one text file per object, into a folder.

    Coordinates are rounded to millimeters. Held-out scenes become the rooms of Area_5.

    Args:
        out: folder to make.
        scans: folder of the demo scans.
        held_out: scenes for validation; the others are for training.
        scenes: default: all scans.

    Raises:
        Pri3DError: a scene has no scan.
    """
    scenes = choose_scenes(scans, held_out, scenes)
    areas = [area for area in AREAS if area != TEST_AREA]
    training = [scene for scene in scenes if scene not in held_out]
    for scene in tqdm(scenes, "rooms", disable=None):
        area = TEST_AREA if scene in held_out else areas[training.index(scene) % len(areas)]
        _write_room(out / f"Area_{area}" / f"office_{scenes.index(scene) + 1}", scans / scene)


def _write_room(room: Path, scan: Path) -> None:
    scene = scan.name
    surface = read_ply(scan / f"{scene}{SURFACE}")
    segment = np.array(json.loads((scan / f"{scene}{SEGMENTS}").read_text())["segIndices"])
    groups = json.loads((scan / f"{scene}{OBJECTS}").read_text())["segGroups"]
    kept = np.arange(len(segment)) % EVERY == 0
    count: Counter[str] = Counter()
    for group in groups:
        rows = np.flatnonzero(np.isin(segment, group["segments"]) & kept)
        if not len(rows):
            continue
        name = NAMES.get(CLASSES[group["label"]].nyu40_name, "clutter")
        count[name] += 1
        lines = "".join(
            f"{x:.3f} {y:.3f} {z:.3f} {r} {g} {b}\n"
            for (x, y, z), (r, g, b) in zip(surface.points[rows], surface.color[rows])
        )
        write_text(room / "Annotations" / f"{name}_{count[name]}.txt", lines)
