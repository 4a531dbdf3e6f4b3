"""The example pairs: their choice, and that both ends of a line show the same point."""

import re
from types import SimpleNamespace

import numpy as np
from small_results import SHAPE, Page, cameras
from small_scenes import ROOM, intrinsics, look

from pri3d.report import pairs

COLOR_FROM_DEPTH = look((0.12, -0.08, 0.03), 0.1) @ np.linalg.inv(look((0, 0, 0), 0))


def test_both_ends_of_a_line_show_the_same_point_of_the_wall(page):
    """Cast rays through both ends, from the color camera: they meet the room at one point."""
    drawn = Page(page).lines
    page = page[page.index('id="pairs"') : page.index('id="chunk"')]  # their lines come first
    captions = re.findall(r"frame (\d+) \(left\) and frame (\d+) \(right\)", page)
    scenes = re.findall(r"<figcaption>(\S+), frame \d+ \(left\)", page)
    assert len(captions) == 3
    assert set(scenes) == {"a&lt;b&gt;&amp;&#x27;c&quot;$x$"}
    height, width = (2 * n for n in SHAPE)
    K = intrinsics((height, width))
    pictures = [part.count("<line") // 2 for part in page.split("<svg")[1:]]
    assert len(pictures) == 3
    assert all(20 <= count <= pairs.LINES for count in pictures)

    def cast(x, y, pose):
        ray = pose[:3, :3] @ [(x - 0.5 - K[0, 2]) / K[0, 0], (y - 0.5 - K[1, 2]) / K[1, 1], 1]
        with np.errstate(divide="ignore"):
            distance = np.concatenate([-pose[:3, 3] / ray, (ROOM - pose[:3, 3]) / ray])
        return pose[:3, 3] + ray * distance[distance > 0].min()

    lines = iter(drawn[::2])  # each is drawn twice: its halo and itself
    for count, frames in zip(pictures, captions):
        poses = [cameras(5)[(int(f) - 10) // 2] @ np.linalg.inv(COLOR_FROM_DEPTH) for f in frames]
        for _ in range(count):
            ends = {name: float(value) for name, value in next(lines).items() if name[0] in "xy"}
            assert ends["x1"] <= width <= ends["x2"] - 12
            a = cast(ends["x1"], ends["y1"], poses[0])
            b = cast(ends["x2"] - width - 12, ends["y2"], poses[1])
            assert np.linalg.norm(a - b) < 0.02 + 0.003  # printed to a tenth of a pixel


def test_examples_have_low_medium_and_high_overlap_in_different_scans():
    rng = np.random.default_rng(0)
    table = SimpleNamespace(
        scenes=["a", "b", "c", "without images"],
        frame_scene=rng.integers(0, 4, 300),
        a=np.arange(300),
        overlap=np.linspace(0.3, 1, 300),
    )
    chosen = pairs.choose(table, set("abc"))
    assert np.abs(table.overlap[chosen] - [0.335, 0.65, 0.965]).max() < 0.06
    assert sorted(pairs.scene_of(table, pair) for pair in chosen) == ["a", "b", "c"]
