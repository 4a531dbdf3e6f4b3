"""Pretraining: loss beside match recall, learning rate and pace, and what was skipped."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pri3d.config import MODES
from pri3d.report import charts, html
from pri3d.report.gather import Made, read
from pri3d.report.html import Html

TERMS = {
    "view": "view (image to image)",
    "geo": "geo (image to surface)",
    "moco": "moco (crops of an image)",
    "ppkt": "ppkt (points to pixels)",
    "pointcontrast": "pointcontrast (points to points)",
    "crd": "crd (clouds to images)",
    "global_kd": "global_kd (whole frames)",
    "gupta": "gupta (whole frames)",
}
_COLORS = {"geo": charts.RED, "moco": charts.ORANGE}  # others: blue
_MOST_POINTS = 600  # of a curve; more are averaged


def training(made: Made) -> Html:
    if not made.runs:
        return html.missing(
            "There are no runs; snakemake pretrain_joint (or another mode) makes one."
        )
    parts = [
        html.paragraph(
            "For a pixel, the network must find its match among many candidates. The loss says how "
            "badly it does; dashed is the loss of pure guessing, ln(candidates). Match recall says "
            "how often the right candidate comes first; dashed is guessing again. Good: the loss "
            "falls clearly below the dashed line and recall climbs with it. A loss that falls "
            "while recall stays at the dashed line has learned something other than to match. "
            "(global_kd and gupta have no candidates: guessing is one answer for all frames.)"
        )
    ]
    return html.join(parts + [_run(made, folder) for folder in made.runs])


def _run(made: Made, folder: Path) -> Html:
    parts = [html.tag("h3", f"Run {folder.name}")]
    metrics = read(folder / "metrics.jsonl", read_metrics) if _has(folder, "metrics.jsonl") else []
    setting = read(folder / "settings.json", read_json) if _has(folder, "settings.json") else {}
    origin = read(folder / "provenance.json", read_json) if _has(folder, "provenance.json") else {}
    parts.append(html.paragraph(_what(folder, setting, origin, metrics)))
    used = origin.get("pairs", {}).get("digest")
    if used and made.pairs and used != made.pairs.digest:
        parts.append(
            html.paragraph(
                "This run was trained on other pairs than those of this report.", class_="warning"
            )
        )
    if not metrics:
        parts.append(html.missing("It has no metrics yet: the first line is still to come."))
        return html.join(parts)
    terms = [term for term in TERMS if any(f"{term}_loss" in line for line in metrics)]
    parts.append(html.grid(_charts(metrics, terms), halves=True))
    if thinned(np.arange(len(metrics))).shape != (len(metrics),):
        parts.append(
            html.paragraph(
                f"{len(metrics):,} lines of metrics.jsonl; each point of a curve is the mean of "
                "neighbouring ones.",
                class_="note",
            )
        )
    parts += [_last(metrics, terms), _skipped(metrics[-1])]
    return html.join(parts)


def _has(folder: Path, name: str) -> bool:
    return (folder / name).exists()


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of `metrics.jsonl`; one that is being written, or was cut by a kill, is left out."""
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _teacher(origin: dict) -> str:
    """What a teacher knows, as far as that is told in short."""
    start = origin.get("starts", {}).get("teacher_weights", "of unknown weights")
    return start.partition(",")[0]


def _what(folder: Path, setting: dict, origin: dict, metrics: list[dict]) -> str:
    step = metrics[-1]["step"] if metrics else 0
    if not setting:
        return f"Not finished: step {step:,} so far; settings are written at the end."
    ended = _has(folder, "model.safetensors")
    mode, pixels = setting["mode"], f"{setting['width']} x {setting['height']} pixels"
    what, unit = f"{setting['network2d']} on {pixels}", "pairs"
    if MODES[mode].trains == ("network3d",):
        what = f"clouds in voxels of {100 * setting['frame_voxel_m']:g} cm"
    if MODES[mode].teacher:
        what += f"; teacher {setting['teacher']} ({_teacher(origin)}) on {pixels}"
        unit = "frames"
    each = f", with up to {setting['matches']:,} matches each"
    words = [
        f"{mode}: {what}",
        f"{unit} a step: {setting['batch']}" + ("" if MODES[mode].min_frames > 1 else each),
        f"{step:,} of {setting['steps']:,} steps" + ("" if ended else "; weights are missing"),
    ]
    return "; ".join(words) + "."


def series(metrics: list[dict], name: str) -> np.ndarray:
    """One figure over all lines, float64; NaN where a line does not have it."""
    return np.array([_number(line.get(name)) for line in metrics])


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)


def thinned(values: np.ndarray) -> np.ndarray:
    """At most `_MOST_POINTS` means of neighbouring values; NaN are left out of a mean."""
    if len(values) <= _MOST_POINTS:
        return values
    groups = np.array_split(np.asarray(values, np.float64), _MOST_POINTS)
    return np.array([np.nan if np.isnan(group).all() else np.nanmean(group) for group in groups])


def _charts(metrics: list[dict], terms: list[str]) -> list[Html]:
    steps = thinned(series(metrics, "step"))

    def values(name: str) -> np.ndarray:
        return thinned(series(metrics, name))

    def with_chance(figure: str) -> list[tuple[str, np.ndarray, str, str]]:
        drawn = []
        has = [term for term in terms if any(f"{term}_{figure}" in line for line in metrics)]
        for what, of, dashes in (("{}", figure, "-"), ("guessing, {}", f"{figure}_chance", "--")):
            for term in has:
                name = what.format(TERMS[term] if dashes == "-" else term)
                color = _COLORS.get(term, charts.BLUE)
                drawn.append((name, values(f"{term}_{of}"), color, dashes))
        return drawn

    drawn = []
    if terms:
        loss = charts.lines("Loss", steps, with_chance("loss"))
        drawn.append((loss, "Loss over steps"))
        if recalled := with_chance("recall"):
            recall = charts.lines("Match recall", steps, recalled, percent=True)
            drawn.append((recall, "Match recall over steps"))
    if any("depth_loss" in line for line in metrics):
        depth = [("depth", values("depth_loss"), charts.GREEN, "-")]
        drawn.append((charts.lines("Loss of depth", steps, depth), "Loss of depth over steps"))
    lr = [("learning rate", values("lr"), charts.GREEN, "-")]
    pace = [("pairs a second", values("pairs_per_s"), charts.ORANGE, "-")]
    drawn.append((charts.lines("Learning rate", steps, lr), "Learning rate over steps"))
    drawn.append((charts.lines("Pairs a second", steps, pace), "Pairs a second over steps"))
    return [html.image(svg, "svg+xml", description) for svg, description in drawn]


def _last(metrics: list[dict], terms: list[str]) -> Html:
    """The last line in figures; a term that it lacks is taken from the last line that has it."""
    rows = []
    for term in terms:
        line = next(line for line in reversed(metrics) if f"{term}_loss" in line)
        row = [TERMS[term], int(line["step"])]
        row += [html.Number(_digits(line[f"{term}_{of}"])) for of in ("loss", "loss_chance")]
        if f"{term}_recall" in line:
            recall, chance = line[f"{term}_recall"], line[f"{term}_recall_chance"]
            row += [html.Number(f"{100 * share:.2f} %") for share in (recall, chance)]
            row.append(html.Number(f"{recall / chance:.1f} times"))
        rows.append(row + [None] * (7 - len(row)))
    head = ["term", "at step", "loss", "loss of guessing", "recall", "recall of guessing", "ratio"]
    last = metrics[-1]
    pace = (
        f"{last['pairs']:,} pairs in {_duration(last['elapsed_s'])}; memory "
        f"{last['memory_mb']:,.0f} MB"
    )
    if "gpu_memory_mb" in last:
        pace += f", on the GPU {last['gpu_memory_mb']:,.0f} MB"
    wait = f"{100 * last['data_wait_share']:.0f} % of the last steps' time was waiting for data"
    return html.join([html.table(head, rows), html.paragraph(f"{pace}; {wait}.")])


def _digits(loss: float) -> str:
    return f"{loss:.3f}" if loss >= 0.1 else f"{loss:.3g}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"


def _skipped(last: dict) -> Html:
    counts = last.get("skipped") or {}
    if not counts:
        return html.paragraph("Nothing was skipped: every pair gave every term of the loss.")
    rows = [[reason, int(n)] for reason, n in sorted(counts.items())]
    return html.join(
        [
            html.paragraph(f"Left out of the loss, of {last['pairs']:,} pairs drawn:"),
            html.table(["term: reason", "times"], rows),
        ]
    )
