"""Pretraining: the last figures and the curves of all runs, by variant."""

import json
from typing import Any, NamedTuple

import numpy as np

from pri3d.config import MODES, RUNTIME, used_settings
from pri3d.report import charts, html
from pri3d.report.charts import Curve
from pri3d.report.gather import Results
from pri3d.report.html import Cell, Html
from pri3d.report.means import mean
from pri3d.report.metrics import (
    Metrics,
    last_line_with,
    load_metrics,
    mean_curve,
    series,
    terms_of,
    thinned,
)
from pri3d.report.names import colors, rank_of_run
from pri3d.run.folder import InitialWeights, Provenance, Run

ID = "training"
TITLE = "Pretraining"


class _Trained(NamedTuple):
    """A pretraining run; run: None while it is not finished."""

    name: str
    run: Run | None
    metrics: Metrics


class _Group(NamedTuple):
    """The runs of one variant, which differ in their seeds."""

    variant: str
    runs: list[_Trained]


def render(results: Results) -> Html:
    """A comparison of all variants, and one part per variant."""
    groups = _groups(results)
    if not groups:
        return html.missing(
            "There are no pretraining runs; snakemake pretrain_joint (or another mode) makes one."
        )
    parts = [
        html.paragraph(
            "For each anchor (a pixel or a point), the network has to identify its match among "
            "many candidates. The loss measures its errors; dashed is the loss of guessing, "
            "ln(candidates). Match recall is the share of anchors whose match is ranked first; "
            "dashed is guessing again. Look for: the loss falls clearly below the dashed line, and "
            "recall rises. If the loss falls but recall stays at the dashed line, the network "
            "learns something other than matching. Losses without candidates have no recall; "
            "there, guessing means one answer for all frames."
        )
    ]
    if sum(len(group.runs) for group in groups) > 1:
        parts.append(_comparison(groups))
    for group in groups:
        parts += _group(results, groups, group)
    return html.join(parts)


def _groups(results: Results) -> list[_Group]:
    """Pretraining runs by variant, ordered by mode; then unfinished runs."""
    runs = sorted(
        results.runs,
        key=lambda run: (rank_of_run(run.variant or run.name, run.mode), run.settings.seed),
    )
    groups: dict[str, _Group] = {}
    for run in runs:
        trained = _Trained(run.name, run, load_metrics(run.folder))
        name = run.variant or run.name
        groups.setdefault(name, _Group(name, [])).runs.append(trained)
    for folder in results.unfinished:
        metrics = load_metrics(folder)
        # Finetuning has no chance level, so only pretraining has terms.
        if terms_of(metrics) or not metrics:
            name = folder.name
            groups.setdefault(name, _Group(name, [])).runs.append(_Trained(name, None, metrics))
    return list(groups.values())


def _comparison(groups: list[_Group]) -> Html:
    """The last figures of all variants, and charts of the terms that several runs have."""
    rows: list[list[Cell]] = []
    for group in groups:
        for term in terms_of(line for each in group.runs for line in each.metrics):
            rows.append([group.variant, len(group.runs), *_last(group, term)])
    if not rows:
        return Html("")
    head = ["run", "seeds", *_LAST]
    parts = [html.heading("All runs"), html.table(*html.known_columns(head, rows))]
    if any(len(group.runs) > 1 for group in groups):
        parts.append(
            html.paragraph(
                "Means over seeds with their standard errors; bands of the curves are standard "
                "deviations.",
                class_="note",
            )
        )
    if shared := _shared_charts(groups):
        parts.append(html.grid(shared, halves=True))
    return html.join(parts)


def _shared_charts(groups: list[_Group]) -> list[Html]:
    """One chart for each term that several runs have, with one curve per variant."""
    color = colors(group.variant for group in groups)
    drawn = []
    for term in terms_of(line for group in groups for each in group.runs for line in each.metrics):
        figure = next(
            name
            for name in ("recall", "loss")
            if any(f"{term}_{name}" in line for g in groups for r in g.runs for line in r.metrics)
        )
        curves, runs = [], 0
        for group in groups:
            metrics = [
                each.metrics
                for each in group.runs
                if any(f"{term}_{figure}" in line for line in each.metrics)
            ]
            if metrics:
                curves.append(
                    mean_curve(group.variant, metrics, f"{term}_{figure}", color[group.variant])
                )
                runs += len(metrics)
        if runs > 1:
            recall = figure == "recall"
            title = f"{'Match recall' if recall else 'Loss'} of term {term}"
            drawn.append(charts.lines(title, curves, percent=recall))
    return drawn


_LAST = ["term", "step", "loss", "loss of guessing", "recall", "recall of guessing", "ratio"]


def _last(group: _Group, term: str) -> list[Cell]:
    """The last figures of a term, as the columns _LAST; means over seeds."""
    lines = [last_line_with(each.metrics, f"{term}_loss") for each in group.runs]
    known = [line for line in lines if line is not None]

    def number(name: str, factor: float = 1, unit: str = "") -> Html | None:
        value = mean(line.get(f"{term}_{name}") for line in known)
        if value is None:
            return None
        size = factor * abs(value.value)
        digits = 2 if factor > 1 else 3 if size >= 0.1 else 5
        return html.Number(f"{value.number(digits, factor)}{unit}")

    ratio = mean(
        line[f"{term}_recall"] / line[f"{term}_recall_chance"]
        for line in known
        if f"{term}_recall" in line
    )
    return [
        term,
        max(int(line["step"]) for line in known),
        number("loss"),
        number("loss_chance"),
        number("recall", 100, " %"),
        number("recall_chance", 100, " %"),
        html.Number(f"{ratio.number(1)} times") if ratio else None,
    ]


def _group(results: Results, groups: list[_Group], group: _Group) -> list[Html]:
    """A variant: its only run, or one drawer per seed."""
    parts = [html.heading(f"Run {group.variant}")]
    first = group.runs[0].run
    if first is not None:
        parts += _changes(groups, group.variant, first)
    if len(group.runs) == 1:
        return [*parts, _run(results, group.runs[0])]
    return parts + [html.details(f"Run {each.name}", _run(results, each)) for each in group.runs]


def _changes(groups: list[_Group], variant: str, run: Run) -> list[Html]:
    """The settings in which a variant differs from its mode, where the results have both."""
    if variant == run.mode:
        return []
    plain = [each.run for group in groups if group.variant == run.mode for each in group.runs]
    sentence = f"A variant of {run.mode}"
    if plain and plain[0] is not None:
        ignored = {*RUNTIME, "seed"}
        before = plain[0].settings.model_dump(exclude=ignored)
        after = run.settings.model_dump(exclude=ignored)
        changed = [
            f"{name} = {json.dumps(value)}"
            for name, value in after.items()
            if value != before.get(name)
        ]
        sentence += f", with {', '.join(changed)}" if changed else ", with the same settings"
    return [html.paragraph(f"{sentence}.")]


def _run(results: Results, trained: _Trained) -> Html:
    """The settings, curves, last figures and skipped samples of one run."""
    run, metrics = trained.run, trained.metrics
    step = int(metrics[-1]["step"]) if metrics else 0
    if run is None:
        sentence = f"Not finished: step {step:,} so far. Settings are written at the end."
        parts = [html.paragraph(sentence)]
    else:
        parts = [html.paragraph(_description(run, step))]
        used = _pairs_digest(run.provenance)
        if used and results.pairs and used != results.pairs.digest:
            parts.append(
                html.warning("This run was trained on other pairs than those of this report.")
            )
    if not metrics:
        parts.append(html.missing("There are no metrics yet."))
        return html.join(parts)
    terms = terms_of(metrics)
    parts.append(html.grid(_charts(metrics, terms), halves=True))
    if len(thinned(np.arange(len(metrics)))) < len(metrics):
        parts.append(
            html.paragraph(
                f"metrics.jsonl has {len(metrics):,} lines; each point of a curve is the mean of "
                "several.",
                class_="note",
            )
        )
    group = _Group(trained.name, [trained])
    rows = [_last(group, term) for term in terms]
    return html.join([*parts, html.table(_LAST, rows), _pace(metrics[-1]), _skipped(metrics[-1])])


def _description(run: Run, step: int) -> str:
    """Mode, networks, initial weights, batch and length of a run."""
    assert run.mode is not None
    mode, settings = MODES[run.mode], run.pretrain
    origins = run.provenance.initial_weights if run.provenance else {}
    pixels = f"images of {settings.width} x {settings.height} pixels"
    sentences = [f"{run.mode}, {mode.summary}."]
    if "network2d" in mode.trains:
        sentences.append(f"2D network: {settings.network2d}, on {pixels}.")
    elif "frame_voxel_m" in mode.uses:
        sentences.append(f"Input: clouds in voxels of {100 * settings.frame_voxel_m:g} cm.")
    if mode.teacher:
        weights = _weights(origins.get("teacher"))
        sentences.append(f"Teacher: {settings.teacher} with {weights}, on {pixels}.")
    for network, title in (("backbone", "2D"), ("backbone3d", "3D")):
        if network in origins:
            sentences.append(f"{title} network initialized with {_weights(origins[network])}.")
    unit = "frames" if mode.teacher else "pairs"
    matches = f", with up to {settings.matches:,} matches each"
    has_matches = "matches" in used_settings(run.mode)
    sentences.append(f"{settings.batch} {unit} per step{matches if has_matches else ''}.")
    end = "" if run.weights.exists() else "; the weights are missing"
    sentences.append(f"{step:,} of {settings.steps:,} steps{end}.")
    return " ".join(sentences)


def _weights(weights: InitialWeights | None) -> str:
    if weights is None:
        return "unknown weights"
    if weights.kind == "random":
        return "random weights"
    if weights.kind == "imagenet":
        return "ImageNet weights"
    return f"weights of {weights.name}"


def _pairs_digest(provenance: Provenance | None) -> str | None:
    """The digest of the pairs that a run was trained on, if it used any."""
    record = provenance.inputs.get("pairs") if provenance else None
    if not record:
        return None
    if "digest" in record:
        return str(record["digest"])
    return str(next(iter(record.values()))["digest"])  # by name of the file


def _charts(metrics: Metrics, terms: list[str]) -> list[Html]:
    """Loss, match recall, loss of depth, learning rate and pace over steps."""
    color = colors(terms)

    def curve(label: str, name: str, color: str, dashed: bool = False) -> Curve:
        steps, values = thinned(series(metrics, "step")), thinned(series(metrics, name))
        return Curve(label, steps, values, color, dashed)

    def with_chance(figure: str) -> list[Curve]:
        shown = [term for term in terms if any(f"{term}_{figure}" in line for line in metrics)]
        return [curve(term, f"{term}_{figure}", color[term]) for term in shown] + [
            curve(f"guessing, {term}", f"{term}_{figure}_chance", color[term], dashed=True)
            for term in shown
        ]

    drawn = []
    if terms:
        drawn.append(charts.lines("Loss", with_chance("loss")))
        if recall := with_chance("recall"):
            drawn.append(charts.lines("Match recall", recall, percent=True))
    if any("depth_loss" in line for line in metrics):
        drawn.append(charts.lines("Depth loss", [curve("depth", "depth_loss", charts.GREEN)]))
    lr = curve("learning rate", "lr", charts.GREEN)
    pace = curve("pairs per second", "pairs_per_s", charts.ORANGE)
    drawn.append(charts.lines("Learning rate", [lr]))
    drawn.append(charts.lines("Pairs per second", [pace]))
    return drawn


def _pace(last: dict[str, Any]) -> Html:
    sentence = (
        f"{last['pairs']:,} pairs in {_duration(last['elapsed_s'])}; memory: "
        f"{last['memory_mb']:,.0f} MB"
    )
    if "gpu_memory_mb" in last:
        sentence += f"; GPU memory: {last['gpu_memory_mb']:,.0f} MB"
    wait = f"waiting for data: {100 * last['data_wait_share']:.0f} % of the time (last steps)"
    return html.paragraph(f"{sentence}; {wait}.")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"


def _skipped(last: dict[str, Any]) -> Html:
    counts = last.get("skipped") or {}
    if not counts:
        return html.paragraph("No sample was skipped: every pair contributed to every loss term.")
    rows: list[list[Cell]] = [[reason, int(n)] for reason, n in sorted(counts.items())]
    return html.join(
        [
            html.paragraph(f"Samples without a loss term, of {last['pairs']:,} pairs:"),
            html.table(["term: reason", "number"], rows),
        ]
    )
