"""Finetuned networks: what each start is worth, over shares of the labels, and pictures."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pri3d.config import MODES
from pri3d.report import charts, html, paper
from pri3d.report.curves import read_json
from pri3d.report.gather import Made, read, spread
from pri3d.report.html import Html
from pri3d.store import file_digest

TITLES = {
    "semseg_scannet": "Semantic segmentation, ScanNet",
    "semseg_nyuv2": "Semantic segmentation, NYU Depth v2",
    "insseg_scannet": "Objects, ScanNet",
    "insseg_nyuv2": "Objects, NYU Depth v2",
    "semseg3d_scannet": "Semantic segmentation of clouds, ScanNet",
    "semseg3d_s3dis": "Semantic segmentation of clouds, S3DIS",
    "det3d_scannet": "Boxes in clouds, ScanNet",
    "det3d_sunrgbd": "Boxes in clouds, SUN RGB-D",
}
STARTS = {
    "scratch": charts.GREY,
    "imagenet": "#000000",
    "moco": charts.ORANGE,
    "view": charts.BLUE,
    "geo": charts.RED,
    "joint": charts.GREEN,
    "global_kd": "#9a7fb8",
    "crd": "#c0a060",
    "gupta": "#7a6a5a",
    "pointcontrast": charts.ORANGE,
    "ppkt": charts.BLUE,
}
_NAME = re.compile(r"\w+-(?P<start>\w+)-(?P<percent>[\d.]+)-(?P<seed>\d+)")
_PICTURES = 2


class Measured(NamedTuple):
    """One evaluation. start, percent and seed are told by the run's name, else its settings."""

    name: str
    start: str
    percent: float
    seed: int
    result: dict[str, Any]
    path: Path


def tasks(made: Made) -> Html:
    by_task = defaultdict(list)
    for path in made.evaluations:
        result = read(path, read_json)
        if "task" in result:
            by_task[result["task"]].append(_measured(path, result))
    if not by_task:
        return html.missing(
            "Nothing was finetuned; snakemake finetune_semseg_scannet (or another task) does it."
        )
    parts = [
        html.paragraph(
            "Networks that learned a task on labelled images, each from another start, and what "
            "they reach on images that they have not seen. Runs of one seed saw the same labels in "
            "the same order. Good: the pretrained starts are above scratch, and the more so the "
            "fewer labels there are. A run of a few steps, as in the demo, says nothing of that: "
            "it shows that everything works."
        )
    ]
    for task in [name for name in TITLES if name in by_task]:
        parts.append(_task(made, task, by_task[task]))
    return html.join(parts)


def _measured(path: Path, result: dict[str, Any]) -> Measured:
    settings = result["settings"]
    if match := _NAME.fullmatch(path.stem):
        start, percent, seed = match["start"], float(match["percent"]), int(match["seed"])
    else:
        start, percent, seed = path.stem, settings["percent"], settings["seed"]
    return Measured(path.stem, start, percent, seed, result, path)


def figures_of(result: dict[str, Any]) -> dict[str, float | None]:
    """Name -> share of the figures that a table shows; the first is the task's own."""
    if "boxes" in result:
        ap25, ap50 = result["boxes"]["ap25"], result["boxes"]["ap50"]
        return {
            "mAP@0.25": ap25["mean"],
            "mAP@0.5": ap50["mean"],
            "recall@0.25": ap25["recall"],
            "recall@0.5": ap50["recall"],
        }
    if _is_3d(result):
        points, voxels = result["rules"]["points"], result["rules"]["voxels"]
        return {
            "mIoU": points["mean_iou"],
            "mean accuracy": points["mean_accuracy"],
            "overall accuracy": points["pixel_accuracy"],
            "mIoU on voxels": voxels["mean_iou"],
        }
    if "rules" in result:
        scannet, pri3d = result["rules"]["scannet"], result["rules"]["pri3d"]
        return {
            "mIoU": scannet["mean_iou"],
            "mIoU (Pri3D's rule)": pri3d["mean_iou"],
            "pixels right": scannet["pixel_accuracy"],
            "mean over classes": scannet["mean_accuracy"],
        }
    boxes, masks = result["coco"]["boxes"], result["coco"]["masks"]
    return {
        "mask AP50": masks["ap50"],
        "mask AP": masks["ap"],
        "mask AP75": masks["ap75"],
        "box AP50": boxes["ap50"],
        "box AP": boxes["ap"],
        "box AP75": boxes["ap75"],
        "ScanNet's AP50": result["scannet"]["ap50"],
    }


def _is_3d(result: dict[str, Any]) -> bool:
    return "points" in result.get("rules", {})


def _task(made: Made, task: str, measured: list[Measured]) -> Html:
    groups = defaultdict(list)
    for each in measured:
        groups[each.start, each.percent].append(each)
    order = {start: i for i, start in enumerate(STARTS)}
    keys = sorted(groups, key=lambda k: (k[1], order.get(k[0], len(order)), k[0]))
    names = list(figures_of(measured[0].result))
    rows = []
    for start, percent in keys:
        group = groups[start, percent]
        values = [[figures_of(each.result)[name] for each in group] for name in names]
        published = _published(made, task, group[0])
        gain = _gain(group, groups.get(("scratch", percent), []), names[0])
        share = html.Number(f"{percent:g} %")
        rows.append([start, share, len(group), *map(_mean, values), gain, published])
    head = ["start", "labels", "runs", *names, f"{names[0]} over scratch", "paper"]
    told = [i for i in range(len(head)) if any(row[i] is not None for row in rows)]
    head, rows = [head[i] for i in told], [[row[i] for i in told] for row in rows]
    parts = [html.tag("h3", TITLES[task]), html.table(head, rows)]
    first = measured[0].result
    unit = "clouds" if "clouds" in first else "images"
    told = f"{first[unit]:,} {unit} of the validation split"
    lost = max(len(each.result["left_out"]) for each in measured)
    parts.append(html.paragraph(f"{told}; left out: {lost:,}. {_rules(measured)}", class_="note"))
    stale = [each.name for each in measured if not _current(made, each)]
    if stale:
        parts.append(
            html.paragraph(
                f"Of other weights than those that are there now: {', '.join(stale)}; measure "
                "again.",
                class_="warning",
            )
        )
    if len({percent for _, percent in keys}) > 1:
        parts.append(_curve(task, names[0], groups))
    parts += _classes(groups, keys)
    parts += _pictures(made, measured)
    return html.join(parts)


def _rules(measured: list[Measured]) -> str:
    first = measured[0].result
    if "boxes" in first:
        described = f" of {first['described_by']}" if first.get("described_by") else ""
        return (
            f"{first['objects']:,} objects{described}. Area under the precision envelope, every "
            "box given for every class, as in VoteNet's evaluation; means over the classes that "
            "occur."
        )
    if _is_3d(first):
        return (
            "On every original point, which has the prediction of its voxel; on voxels those with "
            "points of several classes do not count, and its mIoU is what is published."
        )
    if "rules" in first:
        return (
            "mIoU by the rule of ScanNet's benchmark at 640 x 480 pixels; Pri3D's counts classes "
            "that do not occur as 0, at 320 x 240, and is that of the paper's figures."
        )
    scores = sorted({each.result["settings"]["score"] for each in measured})
    said = f"{first['objects']:,} objects. Detections under a score of {scores[0]:g} were dropped"
    if len(scores) > 1:
        return f"{said} in some runs, under {scores[-1]:g} in others: do not compare those."
    return f"{said}: figures of other thresholds cannot be compared."


def _mean(values: list[float | None]) -> Html | None:
    known = [100 * value for value in values if value is not None]
    if not known:
        return None
    if len(known) == 1:
        return html.Number(f"{known[0]:.2f}")
    return html.Number(f"{np.mean(known):.2f} ± {_standard_error(known):.2f}")


def _gain(group: list[Measured], scratch: list[Measured], name: str) -> Html | None:
    """Of a figure over scratch, in points: the mean of the runs of equal seeds, which saw the same
    labels, with its standard error."""
    without = {each.seed: figures_of(each.result)[name] for each in scratch}
    gains = []
    for each in group:
        value = figures_of(each.result)[name]
        if each.start != "scratch" and value is not None and without.get(each.seed) is not None:
            gains.append(100 * (value - without[each.seed]))
    if not gains:
        return None
    error = f" ± {_standard_error(gains):.2f}" if len(gains) > 1 else ""
    return html.Number(f"{np.mean(gains):+.2f}{error}")


def _standard_error(values: list[float]) -> float:
    return np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0


def _published(made: Made, task: str, each: Measured) -> Html | None:
    """The paper's figure, where data set, network and protocol are the paper's."""
    settings, share = each.result["settings"], each.percent
    if "boxes" in each.result or _is_3d(each.result):
        figure = paper.PPKT[task].get(each.start, {}).get(share)
        return html.Number(figure) if figure and _is_ppkts(made, task, each) else None
    tables = {
        "semseg_scannet": {"": paper.SEMSEG_SCANNET},
        "semseg_nyuv2": {"": paper.SEMSEG_NYUV2},
        "insseg_scannet": {"mask ": paper.INSSEG_SCANNET, "box ": paper.DETECTION_SCANNET},
        "insseg_nyuv2": {"mask ": paper.INSSEG_NYUV2, "box ": paper.DETECTION_NYUV2},
    }[task]
    if not _is_the_papers(task, each):
        return None
    start = each.start
    if start in ("view", "geo", "joint") and not _began_with_imagenet(made, start):
        start += ", from scratch"
    found = {
        what: table.get(settings["network2d"], {}).get(start, {}).get(share)
        for what, table in tables.items()
    }
    said = [f"{what}{figure:.1f}" for what, figure in found.items() if figure is not None]
    return html.Number(", ".join(said)) if said else None


def _is_ppkts(made: Made, task: str, each: Measured) -> bool:
    """Whether the whole split was measured, with PPKT's settings and a teacher like PPKT's."""
    result, settings = each.result, each.result["settings"]
    measured = result["clouds"] + len(result["left_out"])
    return (
        measured >= result["clouds_of_split"] == paper.CLOUDS[task]
        and all(settings[name] == value for name, value in paper.PPKT_SETTINGS[task].items())
        and result.get("described_by") in (None, paper.SUNRGBD_FILE)
        and (
            not (each.start in MODES and MODES[each.start].teacher)
            or _began_with_imagenet(made, each.start, "teacher_weights")
        )
    )


def _is_the_papers(task: str, each: Measured) -> bool:
    """Whether the whole of the paper's split was measured, as the paper does."""
    result, settings = each.result, each.result["settings"]
    whole = result["images"] + len(result["left_out"]) >= result["images_of_split"]
    if task.endswith("scannet"):
        whole &= result["scenes"] == paper.VAL_SCENES
        whole &= settings["subset"] == "published" or each.percent >= 100
    else:
        whole &= result["images_of_split"] == paper.VAL_IMAGES
    if task.startswith("insseg"):
        return whole and settings["score"] == paper.SCORE
    return whole and settings["net"] == "unet" and not settings["frozen"]


def _began_with_imagenet(made: Made, mode: str, what: str = "initial_weights_2d") -> bool:
    path = made.results / "runs" / mode / "provenance.json"
    if not path.exists():
        return True  # not made here: published weights, say
    return read(path, read_json).get("starts", {}).get(what, "").startswith("ImageNet")


def _current(made: Made, each: Measured) -> bool:
    weights = made.results / "runs" / each.name / "model.safetensors"
    return weights.exists() and file_digest(weights) == each.result["model"]


def _curve(task: str, name: str, groups: dict) -> Html:
    """The main figure over the share of labels, with the standard error of its mean."""
    with charts.style():
        figure = charts.new_figure(6.2, 3.6)
        axes = figure.add_subplot()
        for start in [*STARTS, *sorted({s for s, _ in groups} - set(STARTS))]:
            shares = sorted(percent for s, percent in groups if s == start)
            drawn = []
            for share in shares:
                values = [figures_of(each.result)[name] for each in groups[start, share]]
                values = [100 * value for value in values if value is not None]
                if values:
                    drawn.append((share, np.mean(values), _standard_error(values)))
            if drawn:
                x, y, error = np.array(drawn).T
                color = STARTS.get(start)
                axes.errorbar(x, y, error, color=color, label=start, lw=1.5, marker="o", ms=3)
        axes.set_xlabel("share of the labels, %")
        axes.set_ylabel(f"{name}, %")
        axes.grid(axis="y", color="#e6eaed", lw=0.7)
        axes.set_axisbelow(True)
        axes.legend(fontsize=8)
        svg = charts.svg(figure)
    caption = f"{TITLES[task]}: {name} over the share of the labels; bars are standard errors."
    return html.figure(html.image(svg, "svg+xml", caption), caption)


def _classes(groups: dict, keys: list) -> list[Html]:
    """IoU (or AP) of each class, one column a start and share."""
    columns, names = [], []
    for start, percent in keys:
        tables = []
        for each in groups[start, percent]:
            result = each.result
            if "boxes" in result:
                tables.append(result["boxes"]["ap25"]["classes"])
                continue
            table = (
                result["rules"]["points" if _is_3d(result) else "scannet"]["iou"]
                if "rules" in result
                else result["coco"]["masks"]["classes"]
            )
            tables.append(table)
        names = list(dict.fromkeys([*names, *(name for table in tables for name in table)]))
        columns.append(tables)
    rows = [
        [name, *(_mean([table.get(name) for table in tables]) for tables in columns)]
        for name in names
    ]
    rows = [row for row in rows if any(cell is not None for cell in row[1:])]
    if not rows:
        return []
    head = ["class", *(f"{start}, {percent:g} %" for start, percent in keys)]
    return [html.details("Each class", html.table(head, rows))]


def _pictures(made: Made, measured: list[Measured]) -> list[Html]:
    """Predictions of the best run on some images."""
    best = max(measured, key=lambda each: next(iter(figures_of(each.result).values())) or 0)
    folder = best.path.with_name(best.path.stem + "_pictures")
    parts = []
    for path in spread(sorted(folder.glob("*.jpg")), _PICTURES):
        panels = "image, truth, prediction" + (
            ", and where they differ (red)" if "rules" in best.result else ""
        )
        caption = f"{best.name}, {path.stem}: {panels}."
        parts.append(html.figure(html.image(path.read_bytes(), "jpeg", caption), caption))
    return parts
