"""Three pairs of frames, with low, medium and high overlap, and their correspondences."""

import numpy as np

from pri3d.artefacts import Pairs
from pri3d.matching.correspondences import nearest
from pri3d.report import html
from pri3d.report.gather import Results, read
from pri3d.report.html import Html
from pri3d.report.image_pairs import ImagePair, drawing, in_color_image, load_pair
from pri3d.selection import farthest_point_sampling

ID = "pairs"
TITLE = "Example pairs"

LINES = 40
_QUERIES = 8000  # pixels, evenly spaced over the image, whose correspondences are searched
_TITLES = {
    1: ["Example"],
    2: ["Low overlap", "High overlap"],
    3: ["Low overlap", "Medium overlap", "High overlap"],
}


def render(results: Results) -> Html:
    """The three pairs."""
    pairs, ledger = results.pairs, results.ledger
    if pairs is None or ledger is None:
        return html.missing("There is no pairs.h5 to take examples from.")
    if not len(pairs.a):
        return html.missing(
            "No pair reaches the threshold, so there is no example; the histogram above shows the "
            "overlaps."
        )
    chosen = choose(pairs, set(results.clouds))
    if not chosen:
        return html.missing(
            "There are no files in clouds/, which hold the images, for the scans of pairs.h5; "
            "snakemake clouds makes them."
        )
    radius_m = ledger.radius_m
    parts = [
        html.paragraph(
            f"Each line joins two pixels that show the same point of the room, within "
            f"{100 * radius_m:g} cm. At most {LINES} correspondences are shown, evenly spread. A "
            "2D network learns from them. Look for: both ends of a line lie on the same corner, "
            "edge or patch of an object, also after a large motion of the camera."
        )
    ]
    for title, pair in zip(_TITLES[len(chosen)], chosen):
        parts.append(_example(results, pairs, title, pair, radius_m))
    return html.join(parts)


def choose(pairs: Pairs, available: set[str]) -> list[int]:
    """Rows of `pairs` near the 5th, 50th and 95th percentile of overlap, lowest first.

    The extremes are often atypical. Pairs of different scans are preferred.

    Args:
        available: scenes whose images are available; other pairs are not chosen.
    """
    has_images = np.array([scene in available for scene in pairs.scenes], bool)
    rows = np.flatnonzero(has_images[pairs.frame_scene[pairs.a]])
    if not len(rows):
        return []
    rows = rows[np.argsort(pairs.overlap[rows], kind="stable")]
    scene = pairs.frame_scene[pairs.a[rows]]
    chosen: dict[int, int] = {}  # rank by overlap -> scene
    for share in (0.05, 0.5, 0.95):
        rank = round(share * (len(rows) - 1))
        distance = np.abs(np.arange(len(rows)) - rank)
        near = [n for n in distance.argsort(kind="stable") if distance[n] <= 0.05 * len(rows)]
        other_scans = [n for n in near if scene[n] not in chosen.values()]
        best = int((other_scans or [rank])[0])
        chosen[best] = int(scene[best])
    return [int(rows[rank]) for rank in sorted(chosen)]


def scene_of(pairs: Pairs, pair: int) -> str:
    """The scan that both frames of a pair belong to."""
    scene: str = pairs.scenes[pairs.frame_scene[pairs.a[pair]]]
    return scene


def _example(results: Results, pairs: Pairs, title: str, pair: int, radius_m: float) -> Html:
    scene = scene_of(pairs, pair)
    frames = int(pairs.frame_index[pairs.a[pair]]), int(pairs.frame_index[pairs.b[pair]])
    heading = html.heading(f"{title}: {100 * pairs.overlap[pair]:.0f} %")
    images = read(results.clouds[scene], lambda path: load_pair(path, frames))
    if images is None:
        sentence = f"clouds/{scene}.h5 has no color images of frames {frames[0]} and {frames[1]}."
        return html.join([heading, html.missing(sentence)])
    points = pairs.frame_points[pairs.a[pair]], pairs.frame_points[pairs.b[pair]]
    caption = (
        f"{scene}, frame {frames[0]} (left) and frame {frames[1]} (right). "
        f"{pairs.matches_ab[pair]:,} of {points[0]:,} points of the left frame have a match in the "
        f"right frame, {pairs.matches_ba[pair]:,} of {points[1]:,} points of the right frame have "
        "one in the left."
    )
    a, b = _matches(images, radius_m)
    return html.join([heading, html.figure(drawing(images, a, b, _colors(a[:, 0])), caption)])


def _matches(images: ImagePair, radius_m: float) -> tuple[np.ndarray, np.ndarray]:
    """At most `LINES` correspondences as positions (x, y) in the two color images, [n, 2] each."""
    depth = images.views[0].depth
    step = max(1, int(np.sqrt(depth.size / _QUERIES)))
    pixels = np.argwhere(depth > 0)
    pixels = pixels[(pixels % step == step // 2).all(axis=1)]
    pixels_a, pixels_b, *_ = nearest(*images.views, radius_m, pixels)
    a, inside_a = in_color_image(images, images.views[0], pixels_a)
    b, inside_b = in_color_image(images, images.views[1], pixels_b)
    a, b = a[inside_a & inside_b], b[inside_a & inside_b]
    if len(a) <= LINES:
        return a, b
    most_central = int(np.linalg.norm(a - a.mean(axis=0), axis=1).argmin())
    chosen = farthest_point_sampling(a, LINES, first=most_central)
    return a[chosen], b[chosen]


def _colors(values: np.ndarray) -> list[str]:
    """A color for each line by its rank in the left image, so that neighbors look alike."""
    import matplotlib
    from matplotlib.colors import to_hex

    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    ranks = 0.35 + 0.65 * order / max(1, len(values) - 1)
    return [to_hex(color) for color in matplotlib.colormaps["plasma"](ranks)]
