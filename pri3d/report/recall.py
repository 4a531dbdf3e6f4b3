"""How well each run finds matches in scans that it has not seen, and a picture of it."""

import re

import numpy as np

from pri3d.report import examples, html
from pri3d.report.curves import read_json
from pri3d.report.gather import Made, read
from pri3d.report.html import Html
from pri3d.store import file_digest

RIGHT, WRONG = "#009e73", "#d55e00"
NEAR = 3  # cells from the true place that the picture calls right
KINDS = {"pixels": "two images (cells)", "voxels": "image and chunk (voxels)"}
FIGURES = {
    "recall_1": "within 1",
    "recall_3": "within 3",
    "recall_5": "within 5",
    "top1": "first of the matches",
}


def recall(made: Made) -> Html:
    results = {path.stem: read(path, read_json) for path in made.evaluations}
    results = {name: result for name, result in results.items() if "task" not in result}
    if not results:
        return html.missing(
            "Nothing was evaluated: name scans in held_out, and snakemake evaluate measures how "
            "well the runs find matches in them."
        )
    parts = [
        html.paragraph(
            "Scans that no training has seen. For a cell of one image, the most similar feature "
            "of the whole other image (or of all voxels of the chunk) is taken for its match: how "
            "often it lies within 1, 3 or 5 cells (voxels) of the true one, before pretraining, "
            "after it, and by guessing. The last rows ask less: the most similar among a pair's "
            "drawn matches only. Needs no labels."
        )
    ]
    for name, result in results.items():
        parts.append(_one(made, name, result))
    return html.join(parts)


def _one(made: Made, name: str, result: dict) -> Html:
    parts = [html.tag("h3", f"Run {name}")]
    scenes = ", ".join(result["scenes"])
    told = f"{result['pairs']:,} pairs of {scenes}."
    if result["skipped"]:
        reasons = "; ".join(f"{count:,} x {why}" for why, count in result["skipped"].items())
        told += f" Left out: {reasons}."
    parts.append(html.paragraph(told))
    weights = made.results / "runs" / name / "model.safetensors"
    if not weights.exists() or file_digest(weights) != result["model"]:
        parts.append(
            html.paragraph(
                "These figures are of other weights than those of this run that are there now; "
                "snakemake evaluate measures it again.",
                class_="warning",
            )
        )
    rows = []
    for kind in result["after"]:
        for figure, words in FIGURES.items():
            before, after, chance = (
                result[when][kind][figure] for when in ("before", "after", "chance")
            )
            if figure == "top1":
                words = f"first of {result['after'][kind]['candidates']:.0f}"
            rows.append([KINDS[kind], words, *map(_percent, (before, after, chance))])
    head = ["matches of", "found", "before", "after", "guessing"]
    parts.append(html.table(head, rows))
    parts.append(_pictures(made, result["example"]))
    return html.join(parts)


def _percent(share: float) -> Html:
    return html.Number(f"{100 * share:.2f} %")


def _pictures(made: Made, example: dict) -> Html:
    scene, *frames = re.fullmatch(r"(.*) frames (\d+) and (\d+)", example["pair"]).groups()
    both = None
    if scene in made.clouds:
        numbers = tuple(map(int, frames))
        both = read(made.clouds[scene], lambda path: examples.load_images(path, numbers))
    if both is None:
        return html.missing(f"clouds/{scene}.h5 has no images of its example.")
    place = _in_color(example["anchor"], example, both)
    pictures = []
    for when in ("before", "after"):
        found = _in_color(example[when], example, both)
        cells = np.subtract(example[when], example["true"])
        right = np.linalg.norm(cells, axis=1) <= NEAR
        colors = [RIGHT if good else WRONG for good in right]
        caption = (
            f"{when.capitalize()} pretraining: {scene}, frame {frames[0]} (left) and frame "
            f"{frames[1]} (right). Each line ends where the most similar feature is; green: within "
            f"{NEAR} cells of the true place ({right.sum()} of {len(right)} drawn, "
            f"{100 * example['recall_3'][when]:.0f} % of all matches of the pair)."
        )
        pictures.append(html.figure(examples.drawing(both, place, found, colors), caption))
    note = "The pair is the one of median recall after pretraining."
    return html.join([*pictures, html.paragraph(note, class_="note")])


def _in_color(cells: list, example: dict, both: examples.Images) -> np.ndarray:
    """Cells (row, column) as places (x, y) in the colour image as stored, integers at centres."""
    y, x = (2 * np.array(cells, float) + 1).T  # edges of the input's pixels: a cell has two
    height, width = example["input_shape"]
    scale = both.color_shape[1] / width, both.color_shape[0] / height
    return np.stack([x * scale[0], y * scale[1]], axis=1) - 0.5
