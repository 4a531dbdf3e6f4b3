"""Synthetic scans of furnished rooms, and look-alikes of labeled data sets made from them.

`make_scan` makes one scan in ScanNet's formats. Its bytes depend only on its number and the
settings. The modules, in the order of the data:

    classes      names and ids of object classes
    primitives   boxes, cylinders and rectangles, and pieces made of them
    fixtures     doors, windows, pictures, lamps, plants, boxes
    furniture    chairs, tables, beds, shelves ...
    textures     procedural textures
    room         the record of a furnished room
    layout       furnishes rooms
    paths        camera paths
    cast         ray casting: exact depth
    shading      baked light and color
    sensor       the two cameras and their errors
    render       ideal images with labels, for any camera
    mesh         the surface that the camera has seen
    write        the files of a scan
    scan         makes a scan
    sheet        a contact sheet

One module per look-alike, of the name of the data set in `pri3d.datasets`:

    scannet, scannet3d, s3dis    from the files of demo scans
    nyuv2, sunrgbd               from rooms of their own
    look_alikes                  what these share
"""

from pathlib import Path

import numpy as np

from pri3d.config import Demo
from pri3d.errors import Pri3DError

# Imports are inside the functions: the workflow calls `scene_ids` before it runs anything.


def scene_ids(settings: Demo) -> list[str]:
    """The ids of the scans in ScanNet's form: scene0000_00, scene0001_00 ..."""
    return [f"scene{number:04d}_00" for number in range(settings.scans)]


def make_scan(root: str | Path, number: int, settings: Demo) -> Path:
    """Make one scan; the same arguments give the same bytes.

    Files are written atomically, the `.sens` last.

    Args:
        root: folder of the scans.
        number: of the scan.
        settings: seed, frames, height, color_height and noise are used.

    Returns:
        The path of its `.sens` file.
    """
    from pri3d.demo import scan, write

    scene = f"scene{number:04d}_00"
    scan.scan_files(Path(root), scene, number, settings)
    return write.file(Path(root), scene, "sens")


def make(out_root: str | Path, settings: Demo, scene: str | None = None) -> list[Path]:
    """Make all scans of the settings, or one of them.

    Args:
        out_root: folder of the scans.
        settings: of the scans.
        scene: id of the scan to make, also beyond `settings.scans`; default: all.

    Returns:
        The paths of their `.sens` files.

    Raises:
        Pri3DError: the id does not have the form scene0000_00.
    """
    if scene is None:
        return [make_scan(out_root, number, settings) for number in range(settings.scans)]
    digits = scene.removeprefix("scene").removesuffix("_00")
    if not digits.isdecimal() or scene != f"scene{int(digits):04d}_00":
        raise Pri3DError(f"{scene}: not the id of a demo scan; give one like scene0000_00")
    return [make_scan(out_root, int(digits), settings)]


def contact_sheet(scene_dir: str | Path, n: int = 4) -> np.ndarray:
    """Draw `n` evenly spaced frames of a scan above their labels in ScanNet's colors.

    Returns:
        RGB u8 [H, W, 3].
    """
    from pri3d.demo import sheet

    return sheet.contact_sheet(scene_dir, n)
