"""The histogram of overlap of all tested pairs, and overlap matrices of some scans."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from pri3d.artefacts import Overlap
from pri3d.report import charts, html
from pri3d.report.gather import Results, read
from pri3d.report.html import Html
from pri3d.selection import spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ID = "overlap"
TITLE = "Frame overlap"

MAX_MATRICES = 12
_MAX_NAMES = 12
_BINS = 50


class _Counts(NamedTuple):
    """Over all scans. compared: scenes with at least two frames; bins: pairs with any overlap, by
    overlap; disjoint: pairs without overlap; kept: pairs that reach the threshold."""

    compared: list[str]
    bins: np.ndarray
    disjoint: int
    kept: int


def render(results: Results) -> Html:
    """The histogram and the matrices."""
    if not results.overlap:
        return html.missing(
            "There are no files in overlap/, which this section is made from; snakemake overlap "
            "makes them."
        )
    threshold = results.pairs.settings["min_overlap"] if results.pairs else None
    counts = _count(results, threshold)
    if not counts.compared:
        return html.missing("No scan has two frames to compare.")
    chosen = spread(counts.compared, MAX_MATRICES)
    parts = [
        _histogram(counts, threshold),
        html.heading("Overlap matrices"),
        html.paragraph(_explanation(threshold)),
        _matrices(results, chosen, threshold),
    ]
    if others := [scene for scene in counts.compared if scene not in chosen]:
        parts.append(_names(f"{len(others)} more scans are not shown", others))
    if empty := [scene for scene in results.scenes if scene not in counts.compared]:
        parts.append(_names("No overlap file, or fewer than two frames to compare", empty))
    return html.join(parts)


def _count(results: Results, threshold: float | None) -> _Counts:
    compared = []
    bins, disjoint, kept = np.zeros(_BINS, np.int64), 0, 0
    for scene, path in tqdm(results.overlap.items(), desc="overlap", unit="scan", disable=None):
        shares, _ = read(path, matrix)
        values = shares[np.triu_indices(len(shares), 1)]
        if len(values):
            compared.append(scene)
        disjoint += int((values == 0).sum())
        kept += int((values >= threshold).sum()) if threshold is not None else 0
        bins += np.histogram(values[values > 0], _BINS, (0, 1))[0]
    return _Counts(compared, bins, disjoint, kept)


def _histogram(counts: _Counts, threshold: float | None) -> Html:
    tested = int(counts.bins.sum()) + counts.disjoint
    caption = (
        f"Overlap of the {tested:,} tested pairs; {counts.disjoint:,} of them share no point and "
        "are not shown. "
    )
    if threshold is not None:
        caption += (
            f"{counts.kept:,} pairs reach the threshold of {threshold:g} (dashed) and are kept. "
            "Look for: bars on both sides of the threshold. If all bars are close to zero, the "
            "camera poses are wrong, or there are too few frames."
        )
    chart = html.image(histogram(counts.bins, threshold), "svg+xml", "Histogram of overlaps")
    return html.figure(chart, caption, "halves")


def _explanation(threshold: float | None) -> str:
    sentences = [
        "Each square shows the overlap of all pairs of frames of one scan, by frame number. Dark: "
        "the two frames share no surface. Bright: they show the same surface. Look for: a bright "
        "band along the diagonal (successive frames), and bright patches elsewhere, where the "
        "camera returned to a place."
    ]
    if threshold is not None:
        sentences.append(
            f"White outlines surround the pairs that are kept (an overlap of at least "
            f"{threshold:g}, which is also marked on the color bar)."
        )
    sentences.append("The diagonal (each frame with itself) is gray.")
    return " ".join(sentences)


def _matrices(results: Results, scenes: list[str], threshold: float | None) -> Html:
    panels = []
    for scene in scenes:
        shares, index = read(results.overlap[scene], matrix)
        picture = matrix_picture(scene, shares, index, threshold)
        panels.append(html.image(picture, "png", f"Overlap matrix of {scene}"))
    return html.figure(html.grid(panels), f"Overlap matrices of {len(scenes)} scans.")


def _names(summary: str, scenes: list[str]) -> Html:
    if len(scenes) <= _MAX_NAMES:
        return html.paragraph(f"{summary}: {', '.join(scenes)}.", class_="note")
    return html.details(summary, html.paragraph(", ".join(scenes)))


def matrix(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Overlaps float64 [F, F], by the rule that the file was made with, and frame numbers [F]."""
    with Overlap(path) as source:
        return source.shares(), source.index


def matrix_picture(
    scene: str, shares: np.ndarray, index: np.ndarray, threshold: float | None
) -> bytes:
    """The matrix of one scan as PNG; axes are frame numbers."""
    shown = shares.copy()
    np.fill_diagonal(shown, np.nan)
    with charts.style():
        figure = charts.new_figure(3.6, 3.1)
        axes = figure.add_subplot()
        axes.set_facecolor("#c9ced2")
        picture = axes.imshow(shown, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        at = range(0, len(index), max(1, -(-len(index) // 5)))
        axes.set_xticks(at, [str(index[i]) for i in at])
        axes.set_yticks(at, [str(index[i]) for i in at])
        axes.set_title(scene, parse_math=False)
        axes.set_xlabel("frame")
        axes.set_ylabel("frame")
        bar = figure.colorbar(picture, ax=axes, shrink=0.9, aspect=18)
        bar.set_label("overlap")
        bar.outline.set_visible(False)
        if threshold is not None:
            bar.ax.axhline(threshold, color="white", lw=2)
            _outline(axes, shown >= threshold)
        return charts.png(figure, 130)


def _outline(axes: "Axes", inside: np.ndarray) -> None:
    """White lines between the cells that are inside and the others."""
    from matplotlib.collections import LineCollection

    padded = np.pad(inside, 1)
    rows, columns = np.nonzero(padded[1:] != padded[:-1])  # below row `rows` - 1 of the matrix
    horizontal = [((c - 1.5, r - 0.5), (c - 0.5, r - 0.5)) for r, c in zip(rows, columns)]
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    vertical = [((c - 0.5, r - 1.5), (c - 0.5, r - 0.5)) for r, c in zip(rows, columns)]
    width = 1.2 if len(inside) <= 60 else 0.6
    axes.add_collection(LineCollection(horizontal + vertical, colors="white", linewidths=width))
    axes.set_xlim(-0.5, len(inside) - 0.5)
    axes.set_ylim(len(inside) - 0.5, -0.5)


def histogram(counts: np.ndarray, threshold: float | None) -> bytes:
    """Bars over overlaps from 0 to 1 as SVG; kept pairs have another color."""
    edges = np.linspace(0, 1, len(counts) + 1)
    kept = edges[:-1] >= (0 if threshold is None else threshold) - 1e-9
    with charts.style():
        figure = charts.new_figure(4.6, 2.7)
        axes = figure.add_subplot()
        colors = np.where(kept, charts.BLUE, "#b4bdc3")
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colors, ec="white", lw=0.4)
        if threshold is not None:
            axes.axvline(threshold, color=charts.INK, lw=1.2, ls="--")
            above = axes.get_xaxis_transform()
            axes.text(threshold, 1.02, "kept →", transform=above, va="bottom")
            axes.text(threshold, 1.02, "← not kept  ", transform=above, va="bottom", ha="right")
        axes.set_xlim(0, 1)
        charts.integer_ticks(axes.yaxis)
        axes.set_xlabel("overlap")
        axes.set_ylabel("pairs of frames")
        return charts.svg(figure)
