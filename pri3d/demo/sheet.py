"""A contact sheet of a demo scan: frames above their labels."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from pri3d.demo import classes, write
from pri3d.sources.sens import SensFile

_GAP = 4  # pixels


def contact_sheet(scene_dir: str | Path, n: int = 4) -> np.ndarray:
    """Draw evenly spaced frames of a scan above their labels in ScanNet's colors.

    Args:
        scene_dir: folder of the scan.
        n: number of frames.

    Returns:
        RGB u8 [H, W, 3].
    """
    scene_dir = Path(scene_dir)
    root, scene = scene_dir.parent, scene_dir.name
    palette = classes.palette()
    columns = []
    with (
        SensFile(write.file(root, scene, "sens")) as sens,
        zipfile.ZipFile(write.file(root, scene, "label_images")) as labels,
    ):
        for frame in np.linspace(0, len(sens) - 1, n).round().astype(int):
            label = Image.open(io.BytesIO(labels.read(f"label-filt/{frame}.png")))
            color = sens.color(int(frame))
            gap = np.full((_GAP, color.shape[1], 3), 255, np.uint8)
            column = np.concatenate([color, gap, palette[np.asarray(label, np.uint16)]])
            columns += [column, np.full((len(column), _GAP, 3), 255, np.uint8)]
    return np.concatenate(columns[:-1], axis=1)
