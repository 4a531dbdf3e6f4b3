"""Demo frames beside their labels."""

import re
import zipfile

import numpy as np
from PIL import Image
from small_results import cameras, make_page, make_stages

from pri3d import config, demo
from pri3d.classes import PALETTE40
from pri3d.demo import classes


def test_demo_frames_have_a_legend_of_the_classes_in_them(tmp_path):
    settings = config.Demo(scans=1, frames=3, height=24, color_height=24, noise=False)
    scans = demo.make(tmp_path / "demo", settings)
    make_stages(tmp_path, scans[0].stem, cameras=cameras(2))
    page = make_page(tmp_path)
    assert f'alt="Frames of {scans[0].stem} with labels"' in page
    with zipfile.ZipFile(scans[0].with_name(f"{scans[0].stem}_2d-label-filt.zip")) as archive:
        images = [Image.open(archive.open(name)) for name in archive.namelist()]
        raw = np.unique([np.array(image) for image in images])
    seen = {name: entry for name, entry in classes.CLASSES.items() if entry.raw in raw}
    assert {"wall", "floor"} < set(seen) < set(classes.CLASSES)
    swatches = re.findall(r'background:rgb\((\d+),(\d+),(\d+)\)"></span>([^<]*)<', page)
    legend = {tuple(map(int, color)): names for *color, names in swatches}
    assert set(legend) == {tuple(PALETTE40[entry.nyu40].tolist()) for entry in seen.values()}
    assert all(
        name in legend[tuple(PALETTE40[entry.nyu40].tolist())] for name, entry in seen.items()
    )
