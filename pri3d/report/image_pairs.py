"""Two images of a scan side by side, with lines between corresponding pixels."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pri3d import geometry
from pri3d.artefacts import Clouds
from pri3d.report import html
from pri3d.report.html import Html
from pri3d.sources import images

_MAX_ROWS = 480  # of an image on the page
_GAP = 12  # pixels between the two images


class ImagePair(NamedTuple):
    """Two frames of one scan. jpegs: their color images as shown on the page."""

    views: tuple[geometry.View, geometry.View]
    jpegs: tuple[bytes, bytes]
    color_from_depth: np.ndarray
    color_K: np.ndarray
    color_shape: tuple[int, int]


def load_pair(path: Path, frames: tuple[int, int]) -> ImagePair | None:
    """Two frames of a clouds file; None if one of them, or its color image, is missing."""
    with Clouds(path) as clouds:
        rows = [np.flatnonzero(clouds.index == frame) for frame in frames]
        if not all(map(len, rows)):
            return None
        a, b = (int(row[0]) for row in rows)
        jpegs = _page_jpeg(clouds, a), _page_jpeg(clouds, b)
        if not all(jpegs):
            return None
        views = clouds.view(a), clouds.view(b)
        return ImagePair(views, jpegs, clouds.color_from_depth, clouds.color_K, clouds.color_shape)


def _page_jpeg(clouds: Clouds, row: int) -> bytes:
    """The JPEG of a frame, made smaller if it has more than `_MAX_ROWS` rows."""
    jpeg = clouds.color_jpeg(row)
    height, width = clouds.color_shape
    if not jpeg or height <= _MAX_ROWS:
        return jpeg
    shape = _MAX_ROWS, round(width * _MAX_ROWS / height)
    pixels = images.decode_color(jpeg, "jpeg", (height, width), _MAX_ROWS)
    return images.encode_color(images.area_resize(pixels, shape))


def drawing(pair: ImagePair, a: np.ndarray, b: np.ndarray, colors: list[str]) -> Html:
    """Both images as one SVG, with a line from each position in `a` to that in `b`.

    Args:
        a, b: positions (x, y) in the first and second color image [n, 2]; integers are centers.
        colors: of the lines [n].
    """
    height, width = pair.color_shape
    left, unit = width + _GAP, width / 400  # left edge of the second image; width of a thin line
    parts = [
        f'<svg viewBox="0 0 {left + width} {height}" width="{left + width}" role="img" '
        'style="width:100%" aria-label="Two images with lines between corresponding pixels">'
    ]
    for jpeg, x in zip(pair.jpegs, (0, left)):
        parts.append(
            f'<image href="{html.data_uri(jpeg, "jpeg")}" x="{x}" y="0" width="{width}" '
            f'height="{height}"/>'
        )
    # In SVG, the center of pixel (0, 0) is at (0.5, 0.5).
    offset = np.array([left + 0.5, 0.5])
    for (xa, ya), (xb, yb), color in zip(a + 0.5, b + offset, colors):
        ends = f'x1="{xa:.1f}" y1="{ya:.1f}" x2="{xb:.1f}" y2="{yb:.1f}"'
        parts.append(
            f'<line {ends} stroke="#000" stroke-opacity=".45" stroke-width="{2 * unit:.2f}"/>'
            f'<line {ends} stroke="{color}" stroke-width="{unit:.2f}"/>'
        )
        for x, y in ((xa, ya), (xb, yb)):
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2.6 * unit:.2f}" fill="{color}" '
                f'stroke="#000" stroke-width="{0.6 * unit:.2f}"/>'
            )
    return Html("\n".join([*parts, "</svg>"]))


def in_color_image(
    pair: ImagePair, view: geometry.View, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Project pixels of a depth image into the color image.

    Args:
        pixels: (row, column) [n, 2].

    Returns:
        Positions (x, y) [n, 2], and whether they lie inside the image [n].
    """
    points = geometry.unproject(view.depth, view.K)[0][pixels[:, 0], pixels[:, 1]]
    points = geometry.transform(pair.color_from_depth, points)
    return geometry.project(points, pair.color_K, pair.color_shape)
