"""Overlap matrices of some scans, and the histogram of all tested pairs."""

from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pri3d.artefacts import Overlap
from pri3d.report import charts, html
from pri3d.report.gather import Made, read, spread
from pri3d.report.html import Html

MOST_MATRICES = 12
_BINS = 50


def overlaps(made: Made) -> Html:
    if not made.overlap:
        return html.missing(
            "There are no files in overlap/, which the pictures are made from; "
            "snakemake overlap makes them."
        )
    threshold = made.pairs.settings["min_overlap"] if made.pairs else None
    with_pairs = []
    counts, nothing_shared, kept = np.zeros(_BINS, np.int64), 0, 0
    for scene, path in tqdm(made.overlap.items(), desc="overlap", unit="scan", disable=None):
        shares, _ = read(path, matrix)
        values = shares[np.triu_indices(len(shares), 1)]
        if len(values):
            with_pairs.append(scene)
        nothing_shared += int((values == 0).sum())
        kept += int((values >= threshold).sum()) if threshold is not None else 0
        counts += np.histogram(values[values > 0], _BINS, (0, 1))[0]
    if not with_pairs:
        return html.missing("No scan has two frames to compare.")
    tested = int(counts.sum()) + nothing_shared
    caption = (
        f"How far the {tested:,} tested pairs overlap; {nothing_shared:,} of them share no "
        "point at all and are not drawn. "
    )
    if threshold is not None:
        caption += (
            f"{kept:,} pairs reach the threshold of {threshold:g} (dashed) and are kept. Good: "
            "bars on both sides of the line, so that there is something to learn from and the "
            "threshold chooses; everything near zero means wrong poses or too few frames."
        )
    chart = html.image(histogram(counts, threshold), "svg+xml", "Histogram of overlaps")
    parts = [
        html.figure(chart, caption, "halves"),
        html.tag("h3", "Every frame against every other"),
        html.paragraph(
            "Each square compares two frames of a scan, by their numbers: dark, they share "
            "nothing; bright, they see the same surface. Good: a bright band along the diagonal "
            "(neighbours in time see the same), and bright patches away from it where the camera "
            "came back. "
            + (
                f"White outlines surround the pairs that are kept (overlap of {threshold:g} or "
                "more, also marked beside the colours). "
                if threshold is not None
                else ""
            )
            + "The diagonal, each frame with itself, is left grey."
        ),
    ]
    chosen = spread(with_pairs, MOST_MATRICES)
    panels = []
    for scene in chosen:
        shares, index = read(made.overlap[scene], matrix)
        picture = matrix_picture(scene, shares, index, threshold)
        panels.append(html.image(picture, "png", f"Overlap matrix of {scene}"))
    parts.append(
        html.figure(html.grid(panels), f"Overlap of all frames; scans drawn: {len(chosen)}.")
    )
    drawn, able = set(chosen), set(with_pairs)
    others = [scene for scene in with_pairs if scene not in drawn]
    if others:
        parts.append(_names(f"{len(others)} more are not drawn", others))
    empty = [scene for scene in made.scenes if scene not in able]
    if empty:
        parts.append(_names("No overlap file, or fewer than two frames to compare", empty))
    return html.join(parts)


def _names(summary: str, scenes: list[str]) -> Html:
    if len(scenes) <= 12:
        return html.paragraph(f"{summary}: {', '.join(scenes)}.", class_="note")
    return html.details(summary, html.paragraph(", ".join(scenes)))


def matrix(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Overlaps float64 [F, F] by the rule that the file was made with, and frame numbers [F]."""
    with Overlap(path) as source:
        return source.shares(), source.index


def matrix_picture(
    scene: str, shares: np.ndarray, index: np.ndarray, threshold: float | None
) -> bytes:
    """One scan's matrix as PNG; axes are frame numbers."""
    shown = shares.copy()
    np.fill_diagonal(shown, np.nan)
    with charts.style():
        figure = charts.new_figure(3.6, 3.1)
        axes = figure.add_subplot()
        axes.set_facecolor("#c9ced2")
        drawn = axes.imshow(shown, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        at = range(0, len(index), max(1, -(-len(index) // 5)))
        axes.set_xticks(at, [str(index[i]) for i in at])
        axes.set_yticks(at, [str(index[i]) for i in at])
        axes.set_title(scene, parse_math=False)
        axes.set_xlabel("frame")
        axes.set_ylabel("frame")
        bar = figure.colorbar(drawn, ax=axes, shrink=0.9, aspect=18)
        bar.set_label("overlap")
        bar.outline.set_visible(False)
        if threshold is not None:
            bar.ax.axhline(threshold, color="white", lw=2)
            _outline(axes, shown >= threshold)
        return charts.png(figure, 130)


def _outline(axes: Any, inside: np.ndarray) -> None:
    """White lines between the cells that are inside and those that are not."""
    from matplotlib.collections import LineCollection

    padded = np.pad(inside, 1)
    rows, columns = np.nonzero(padded[1:] != padded[:-1])  # below row `rows` - 1 of the matrix
    flat = [((c - 1.5, r - 0.5), (c - 0.5, r - 0.5)) for r, c in zip(rows, columns)]
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    upright = [((c - 0.5, r - 1.5), (c - 0.5, r - 0.5)) for r, c in zip(rows, columns)]
    width = 1.2 if len(inside) <= 60 else 0.6
    axes.add_collection(LineCollection(flat + upright, colors="white", linewidths=width))
    axes.set_xlim(-0.5, len(inside) - 0.5)
    axes.set_ylim(len(inside) - 0.5, -0.5)


def histogram(counts: np.ndarray, threshold: float | None) -> bytes:
    """Bars over overlaps from 0 to 1 as SVG; those of kept pairs in another colour."""
    edges = np.linspace(0, 1, len(counts) + 1)
    kept = edges[:-1] >= (0 if threshold is None else threshold) - 1e-9
    with charts.style():
        figure = charts.new_figure(4.6, 2.7)
        axes = figure.add_subplot()
        colors = np.where(kept, charts.BLUE, "#b4bdc3")
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colors, ec="white", lw=0.4)
        if threshold is not None:
            axes.axvline(threshold, color="#1c2328", lw=1.2, ls="--")
            above = axes.get_xaxis_transform()
            axes.text(threshold, 1.02, "kept →", transform=above, va="bottom")
            axes.text(threshold, 1.02, "← left out  ", transform=above, va="bottom", ha="right")
        axes.set_xlim(0, 1)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("overlap")
        axes.set_ylabel("pairs of frames")
        return charts.svg(figure)
