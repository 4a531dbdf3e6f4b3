"""The rule `official` reproduces the published matches, all but those that rounding may flip."""

import numpy as np
import pytest
from golden_vectors import Golden, cases

from pri3d.geometry import View
from pri3d.pretrain.official_matches import pixel_matches, voxel_matches

pytestmark = pytest.mark.golden


def view(golden: Golden, case: str, which: str = "") -> View:
    depth = golden.arrays[f"{case}.depth{which}_mm"] / 1000
    K, pose = golden.arrays[f"{case}.K"], golden.arrays[f"{case}.camera2world{which}"]
    assert list(depth.shape) == golden.about["cases"][case]["size"]
    return View(depth, K, pose)


@pytest.mark.parametrize(("file", "case"), cases("06_view_matches"))
def test_pixels_of_two_views(file, case):
    golden = Golden(file)
    threshold = golden.about["cases"][case]["threshold"]
    matches = pixel_matches(view(golden, case, "1"), view(golden, case, "2"), threshold)
    expected = [golden.arrays[f"{case}.pos{side}"].astype(np.int64) for side in (1, 2)]
    assert len(expected[0]) == golden.about["cases"][case]["matches"] > 0
    unsure = set(map(tuple, golden.arrays[f"{case}.ambiguous"].tolist()))
    sure = [
        [(a, b) for a, b in zip(map(tuple, a.tolist()), b.tolist()) if a not in unsure]
        for a, b in (matches, expected)
    ]
    assert sure[0] == sure[1]


@pytest.mark.parametrize(("file", "case"), cases("06_voxel_pixel_matches"))
def test_voxels_and_pixels(file, case):
    golden = Golden(file)
    about = golden.about["cases"][case]
    voxels = golden.arrays[f"{case}.voxels"]
    pixels, rows = voxel_matches(
        view(golden, case), voxels, about["voxel_size"], about["threshold"]
    )
    expected = golden.arrays[f"{case}.voxel_index"], golden.arrays[f"{case}.pixel_xy"][:, ::-1]
    assert len(expected[0]) == about["matches"] > 0
    unsure = set(golden.arrays[f"{case}.ambiguous"].tolist())
    sure = [
        [(row, pixel) for row, pixel in zip(rows.tolist(), pixels.tolist()) if row not in unsure]
        for rows, pixels in ((rows, pixels), expected)
    ]
    assert sure[0] == sure[1]
