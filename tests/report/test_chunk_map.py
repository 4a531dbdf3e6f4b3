"""The map of a chunk: the ceiling is hidden, and problems of surfaces are reported."""

import base64
import io
import re

import numpy as np
from PIL import Image
from small_results import CEILING, FLOOR, WALL, cameras, make_page, make_stages

from pri3d import config
from pri3d.stages import chunks


def test_a_surface_that_cannot_be_used_is_reported(tmp_path):
    make_stages(tmp_path, "a", cameras=cameras(3))
    broken = tmp_path / "broken.ply"
    broken.write_bytes(b"ply")
    chunks.run(
        tmp_path / "clouds/a.h5",
        tmp_path / "chunks/a.h5",
        config.Chunks(),
        broken,
        keep_going=True,
    )
    page = make_page(tmp_path)
    assert "a has no surface" in page
    assert "failed: broken.ply: " in page


def test_the_chunk_is_seen_from_above_without_the_ceiling(page):
    (data,) = re.findall(r'base64,([^"]+)" alt="Bird&#x27;s-eye view', page)
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)

    def count(color):
        """Pixels of a color, or of its pale version outside of the chunk."""
        pale = 0.72 * 255 + 0.28 * np.array(color)
        return sum((np.abs(pixels - each).max(axis=-1) < 5).sum() for each in (color, pale))

    assert count(FLOOR) > 1000
    assert count(WALL) > 1000
    assert count(CEILING) == 0
