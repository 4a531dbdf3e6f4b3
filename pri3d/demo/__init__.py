"""Procedural scans of furnished rooms, written as genuine ScanNet scans are.

`make_scan` makes one scan from a seed and its number alone: the same bytes whoever makes the
others. The modules, in the order of the data:

    classes    names and numbers of object classes
    primitives boxes, cylinders and rectangles, and pieces made of them
    fixtures   doors, windows, pictures, lamps, clutter
    furniture  the rest of what stands in a room
    textures   how their surfaces look
    rooms      what stands where
    paths      where the camera goes
    cast       rays against primitives: exact depth
    shading    baked light and colour
    sensor     two cameras and their faults
    render     ideal pictures with labels, for any camera
    mesh       the surface that was seen
    write      files
    scan       all of it in order
    sheet      a contact sheet
"""

from pathlib import Path

import numpy as np

from pri3d.config import Demo
from pri3d.errors import Pri3DError

# Imports are inside the functions: the workflow asks for `scene_ids` before it runs anything.


def scene_ids(settings: Demo) -> list[str]:
    """Ids of the scans, in the form of ScanNet's: scene0000_00, scene0001_00 ..."""
    return [f"scene{number:04d}_00" for number in range(settings.scans)]


def make_scan(root: str | Path, number: int, settings: Demo) -> Path:
    """Make scan `number` under `root`; returns the path of its `.sens` file.

    Settings used: seed, frames, height, color_height, noise. Files appear whole or not at all, the
    `.sens` last; the same arguments give the same bytes.
    """
    from pri3d.demo import scan, write

    scene = f"scene{number:04d}_00"
    scan.scan_files(Path(root), scene, number, settings)
    return write.file(Path(root), scene, "sens")


def make(out_root: str | Path, settings: Demo, scene: str | None = None) -> list[Path]:
    """Make all scans of the settings, or the one with id `scene`; returns their `.sens` files.

    A scene beyond `settings.scans` is made too: the number of scans says which there are by
    default. Raises Pri3DError for an id that is not of the form scene0000_00.
    """
    if scene is None:
        return [make_scan(out_root, number, settings) for number in range(settings.scans)]
    digits = scene.removeprefix("scene").removesuffix("_00")
    if not digits.isdecimal() or scene != f"scene{int(digits):04d}_00":
        raise Pri3DError(f"{scene}: no demo scan has this id; give one like scene0000_00")
    return [make_scan(out_root, int(digits), settings)]


def contact_sheet(scene_dir: str | Path, n: int = 4) -> np.ndarray:
    """RGB u8 picture: `n` frames, evenly spaced, each over its labels in ScanNet's colours."""
    from pri3d.demo import sheet

    return sheet.contact_sheet(scene_dir, n)
