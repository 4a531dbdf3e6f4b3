"""Three pairs of frames, from little to much overlap, with their correspondences drawn in."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pri3d import geometry
from pri3d.artefacts import Clouds
from pri3d.matching.correspondences import nearest
from pri3d.report import html
from pri3d.report.gather import Made, read
from pri3d.report.html import Html
from pri3d.sources import images

LINES = 40
_ASKED = 8000  # pixels, evenly over the image, whose correspondences are looked for
_MOST_ROWS = 480  # of an image on the page
_GAP = 12  # pixels between the two images


def examples(made: Made) -> Html:
    if not made.pairs:
        return html.missing("There is no pairs.h5 to take examples from.")
    if not len(made.pairs.a):
        return html.missing(
            "No pair reached the threshold, so there is none to show; the histogram above says "
            "how far from it they are."
        )
    chosen = choose(made)
    if not chosen:
        return html.missing(
            "There are no files in clouds/ for the scans of pairs.h5, which hold the images; "
            "snakemake clouds makes them."
        )
    names = {1: ["A pair"], 2: ["Little overlap", "Much overlap"]}.get(
        len(chosen), ["Little overlap", "Middling overlap", "Much overlap"]
    )
    radius = 100 * made.ledger["radius_m"]
    parts = [
        html.paragraph(
            f"Each line joins two pixels that see the same place of the room, to {radius:g} cm: "
            f"{LINES} of the many there are, spread evenly. This is what the 2D network is taught. "
            "Good: both ends of a line lie on the same corner, edge or patch of an object, also "
            "when the camera has moved or turned far between the two."
        )
    ]
    for name, pair in zip(names, chosen):
        parts.append(_example(made, name, pair))
    return html.join(parts)


def choose(made: Made) -> list[int]:
    """Rows of `pairs` near the 5th, 50th and 95th percentile of overlap, lowest first.

    Only pairs whose images are there; the ends themselves are often odd ones. From different scans
    where such are near.
    """
    pairs = made.pairs
    there = np.array([scene in made.clouds for scene in pairs.scenes], bool)
    able = np.flatnonzero(there[pairs.frame_scene[pairs.a]])
    if not len(able):
        return []
    able = able[np.argsort(pairs.overlap[able], kind="stable")]
    scene = pairs.frame_scene[pairs.a[able]]
    chosen: dict[int, int] = {}  # place -> scene
    for share in (0.05, 0.5, 0.95):
        place = round(share * (len(able) - 1))
        distance = np.abs(np.arange(len(able)) - place)
        near = [n for n in distance.argsort(kind="stable") if distance[n] <= 0.05 * len(able)]
        fresh = [other for other in near if scene[other] not in chosen.values()]
        best = int((fresh or [place])[0])
        chosen[best] = int(scene[best])
    return [int(able[place]) for place in sorted(chosen)]


def scene_of(made: Made, pair: int) -> str:
    return made.pairs.scenes[made.pairs.frame_scene[made.pairs.a[pair]]]


class Images(NamedTuple):
    """Two frames of one scan. jpegs: their colour images as the page shows them."""

    views: tuple[geometry.View, geometry.View]
    jpegs: tuple[bytes, bytes]
    color_from_depth: np.ndarray
    color_K: np.ndarray
    color_shape: tuple[int, int]


def _example(made: Made, name: str, pair: int) -> Html:
    pairs, scene = made.pairs, scene_of(made, pair)
    frames = tuple(int(pairs.frame_index[side[pair]]) for side in (pairs.a, pairs.b))
    title = html.tag("h3", f"{name}: {100 * pairs.overlap[pair]:.0f} %")
    both = read(made.clouds[scene], lambda path: load_images(path, frames))
    if both is None:
        sentence = f"clouds/{scene}.h5 has no colour images of frames {frames[0]} and {frames[1]}."
        return html.join([title, html.missing(sentence)])
    points = pairs.frame_points[pairs.a[pair]], pairs.frame_points[pairs.b[pair]]
    caption = (
        f"{scene}, frame {frames[0]} (left) and frame {frames[1]} (right). "
        f"{pairs.matches_ab[pair]:,} of {points[0]:,} points of the left frame are found in "
        f"the right one, {pairs.matches_ba[pair]:,} of {points[1]:,} the other way."
    )
    a, b = _drawn_matches(both, made.ledger["radius_m"])
    return html.join([title, html.figure(drawing(both, a, b, _colors(a[:, 0])), caption)])


def load_images(path: Path, frames: tuple[int, int]) -> Images | None:
    """Two frames of a clouds file; None where it has not both, or no colour."""
    with Clouds(path) as clouds:
        rows = [np.flatnonzero(clouds.index == frame) for frame in frames]
        if not all(map(len, rows)):
            return None
        a, b = (int(row[0]) for row in rows)
        jpegs = _stored_or_smaller(clouds, a), _stored_or_smaller(clouds, b)
        if not all(jpegs):
            return None
        views = clouds.view(a), clouds.view(b)
        return Images(views, jpegs, clouds.color_from_depth, clouds.color_K, clouds.color_shape)


def _stored_or_smaller(clouds: Clouds, row: int) -> bytes:
    """The frame's JPEG as it is stored, or a smaller one where it is large."""
    jpeg = clouds.color_jpeg(row)
    height, width = clouds.color_shape
    if not jpeg or height <= _MOST_ROWS:
        return jpeg
    shape = _MOST_ROWS, round(width * _MOST_ROWS / height)
    pixels = images.decode_color(jpeg, "jpeg", clouds.color_shape, _MOST_ROWS)
    return images.encode_color(images.area_resize(pixels, shape))


def drawing(both: Images, a: np.ndarray, b: np.ndarray, colors: list[str]) -> Html:
    """Both images side by side with coloured lines from a to b [n, 2] (x, y), as SVG."""
    height, width = both.color_shape
    left, unit = width + _GAP, width / 400  # of the second image; a thin line's width
    parts = [
        f'<svg viewBox="0 0 {left + width} {height}" width="{left + width}" role="img" '
        'style="width:100%" aria-label="Two images with lines between corresponding pixels">'
    ]
    for jpeg, x in zip(both.jpegs, (0, left)):
        parts.append(
            f'<image href="{html.data_uri(jpeg, "jpeg")}" x="{x}" y="0" width="{width}" '
            f'height="{height}"/>'
        )
    # The middle of pixel (0, 0) is at (0.5, 0.5) in a picture.
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


def _drawn_matches(both: Images, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """At most `LINES` correspondences as positions (x, y) in the two colour images, [n, 2] each."""
    depth = both.views[0].depth
    step = max(1, int(np.sqrt(depth.size / _ASKED)))
    pixels = np.argwhere(depth > 0)
    pixels = pixels[(pixels % step == step // 2).all(axis=1)]
    found = nearest(*both.views, radius, pixels)[:2]
    (a, seen_a), (b, seen_b) = (_in_color(both, v, p) for v, p in zip(both.views, found))
    a, b = a[seen_a & seen_b], b[seen_a & seen_b]
    chosen = _evenly(a, LINES)
    return a[chosen], b[chosen]


def _in_color(
    both: Images, view: geometry.View, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Depth pixels (row, column) to positions (x, y) in the colour image, and whether inside."""
    points = geometry.unproject(view.depth, view.K)[0][pixels[:, 0], pixels[:, 1]]
    points = geometry.transform(both.color_from_depth, points)
    return geometry.project(points, both.color_K, both.color_shape)


def _evenly(points: np.ndarray, most: int) -> np.ndarray:
    """Rows of points [n, 2] far from each other: each next one is the farthest from those taken."""
    if len(points) <= most:
        return np.arange(len(points))
    taken = [int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())]
    distance = np.full(len(points), np.inf)
    while len(taken) < most:
        distance = np.minimum(distance, np.linalg.norm(points - points[taken[-1]], axis=1))
        taken.append(int(distance.argmax()))
    return np.array(taken)


def _colors(values: np.ndarray) -> list[str]:
    """A colour for each line by its place in the left image, so that neighbours stay together."""
    import matplotlib
    from matplotlib.colors import to_hex

    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    places = 0.35 + 0.65 * order / max(1, len(values) - 1)
    return [to_hex(color) for color in matplotlib.colormaps["plasma"](places)]
