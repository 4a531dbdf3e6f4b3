"""How well pretrained networks find matches in held-out scans, with an example."""

from typing import NamedTuple

import numpy as np

from pri3d.report import html
from pri3d.report.evaluations import Example, Matching, is_current, matching
from pri3d.report.gather import Results, read
from pri3d.report.html import Cell, Html
from pri3d.report.image_pairs import ImagePair, drawing, load_pair
from pri3d.report.means import Mean, mean
from pri3d.report.names import run_sort_key

ID = "recall"
TITLE = "Matching in held-out scans"

CORRECT, WRONG = "#009e73", "#d55e00"
NEAR = 3  # cells; a match within this distance is drawn as correct
KINDS = {"pixels": "two images (cells)", "voxels": "image and chunk (voxels)"}
FIGURES = {
    "recall_1": "recall within 1",
    "recall_3": "recall within 3",
    "recall_5": "recall within 5",
    "top1": "first of the matches",
}


class _Group(NamedTuple):
    """The evaluations of one variant, which differ in the seed of the pretraining."""

    variant: str
    runs: list[Matching]

    @property
    def kinds(self) -> list[str]:
        """Keys of KINDS that were measured."""
        return list(self.runs[0].content["after"])

    def mean(self, when: str, kind: str, figure: str) -> Mean | None:
        """The mean of a figure over the seeds; when: before, after, chance."""
        return mean(run.content[when][kind][figure] for run in self.runs)


def render(results: Results) -> Html:
    """A comparison of all variants, and one part per variant."""
    evaluations = sorted(matching(results), key=lambda e: (run_sort_key(e.variant, e.mode), e.seed))
    if not evaluations:
        return html.missing(
            "No pretraining run was evaluated: name scans in held_out, then snakemake evaluate "
            "measures how well the runs find matches in them."
        )
    variants = dict.fromkeys(evaluation.variant for evaluation in evaluations)
    groups = [_Group(name, [e for e in evaluations if e.variant == name]) for name in variants]
    parts = [
        html.paragraph(
            "Networks are evaluated in scans that pretraining has not seen, without labels. For "
            "each cell of one image, the most similar feature of the other image (or of the voxels "
            "of the chunk) is its predicted match. Recall is the share of predictions within 1, 3 "
            "or 5 cells (voxels) of the true match: before pretraining, after it, and by guessing. "
            "The last row of each kind is easier: only the sampled matches of a pair are "
            "candidates."
        )
    ]
    if len(groups) > 1:
        parts.append(_comparison(groups))
    parts += [_variant(results, group) for group in groups]
    return html.join(parts)


def _comparison(groups: list[_Group]) -> Html:
    """All variants side by side, after pretraining."""
    rows: list[list[Cell]] = []
    for group in groups:
        for kind in group.kinds:
            figures = (group.mean("after", kind, figure) for figure in FIGURES)
            rows.append([group.variant, KINDS[kind], len(group.runs), *map(_percent, figures)])
    head = ["run", "matches of", "seeds", *FIGURES.values()]
    title = html.heading("All runs, after pretraining (%)")
    return html.join([title, html.table(head, rows)])


def _variant(results: Results, group: _Group) -> Html:
    first = group.runs[0].content
    sentence = f"{first['pairs']:,} pairs of {', '.join(first['scenes'])}."
    if len(group.runs) > 1:
        sentence += f" Means of {len(group.runs)} seeds, with standard errors."
    if first["skipped"]:
        reasons = "; ".join(f"{count:,} x {why}" for why, count in first["skipped"].items())
        sentence += f" Left out: {reasons}."
    parts = [html.heading(f"Run {group.variant}"), html.paragraph(sentence)]
    stale = [run.name for run in group.runs if not is_current(results, run.name, run.content)]
    if stale:
        parts.append(
            html.warning(
                f"The weights of {', '.join(stale)} have changed since this evaluation; snakemake "
                "evaluate repeats it."
            )
        )
    rows: list[list[Cell]] = []
    for kind in group.kinds:
        for figure, title in FIGURES.items():
            if figure == "top1":
                title = f"first of {first['after'][kind]['candidates']:.0f} candidates"
            figures = (group.mean(when, kind, figure) for when in ("before", "after", "chance"))
            rows.append([KINDS[kind], title, *map(_percent, figures)])
    parts.append(html.table(["matches of", "%", "before", "after", "guessing"], rows))
    parts.append(_pictures(results, group.runs[0].example))
    return html.join(parts)


def _percent(mean: Mean | None) -> html.Number | None:
    return mean.number(factor=100) if mean else None


def _pictures(results: Results, example: Example) -> Html:
    """The predictions for one pair, before and after pretraining."""
    scene, frames = example.scene, example.frames
    pair = None
    if scene in results.clouds:
        pair = read(results.clouds[scene], lambda path: load_pair(path, frames))
    if pair is None:
        return html.missing(f"clouds/{scene}.h5 does not have the images of the example.")
    anchors = _in_color_image(example.anchors, example.input_shape, pair)
    pictures = []
    for when, cells in example.predictions.items():
        predictions = _in_color_image(cells, example.input_shape, pair)
        correct = np.linalg.norm(np.subtract(cells, example.true), axis=1) <= NEAR
        colors = [CORRECT if each else WRONG for each in correct]
        caption = (
            f"{when.capitalize()} pretraining: {scene}, frame {frames[0]} (left) and frame "
            f"{frames[1]} (right). Each line leads to the most similar feature. Green: within "
            f"{NEAR} cells of the true match ({correct.sum()} of {len(correct)} shown, "
            f"{100 * example.recall_3[when]:.0f} % of all matches of the pair)."
        )
        pictures.append(html.figure(drawing(pair, anchors, predictions, colors), caption))
    note = "The example is the pair with the median recall after pretraining."
    return html.join([*pictures, html.paragraph(note, class_="note")])


def _in_color_image(
    cells: list[list[int]], input_shape: tuple[int, int], pair: ImagePair
) -> np.ndarray:
    """Cells (row, column) of an input as positions (x, y) in the stored color image [n, 2]."""
    y, x = (2 * np.array(cells, float) + 1).T  # edges of input pixels; a cell has 2 x 2 of them
    height, width = input_shape
    scale = pair.color_shape[1] / width, pair.color_shape[0] / height
    return np.stack([x * scale[0], y * scale[1]], axis=1) - 0.5
