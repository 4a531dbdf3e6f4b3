"""Pretraining: the last figures and the curves of all runs, by variant."""

import json
from typing import Any

import numpy as np

from pri3d.config import MODES, RUNTIME, used_settings
from pri3d.report import charts, html
from pri3d.report.charts import Curve
from pri3d.report.gather import Results
from pri3d.report.html import Cell, Html
from pri3d.report.metrics import Metrics, load_metrics, mean_curve, series, terms_of, thinned
from pri3d.report.names import colors, names_in
from pri3d.report.variants import LAST, Trained, Variant, last_figures, variants_of
from pri3d.run.folder import InitialWeights, Provenance, Run

ID = "training"
TITLE = "Pretraining"


def render(results: Results) -> Html:
    """A comparison of all variants, and one part per variant."""
    variants = variants_of(results)
    empty = [folder.name for folder in results.without_settings if not load_metrics(folder)]
    note = Html("")
    if empty:
        note = html.paragraph(
            f"Runs without metrics and settings (just started, or empty): {', '.join(empty)}.",
            class_="note",
        )
    if not variants:
        sentence = (
            "There are no pretraining runs; snakemake pretrain_joint (or another mode) makes one."
        )
        return html.join([html.missing(sentence), note])
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
    if sum(len(variant.runs) for variant in variants) > 1:
        color = colors([*names_in(results), *(variant.name for variant in variants)])
        parts.append(_comparison(variants, color))
    for variant in variants:
        parts += _variant(results, variants, variant)
    return html.join([*parts, note])


def _comparison(variants: list[Variant], color: dict[str, str]) -> Html:
    """The last figures of all variants, and charts of the terms that several runs have."""
    rows: list[list[Cell]] = []
    for variant in variants:
        seeds = len(variant.runs) if len(variant.runs) > 1 else None
        for term in variant.terms:
            rows.append([variant.name, seeds, *last_figures(variant, term)])
    if not rows:
        return Html("")
    parts = [
        html.heading("All runs"),
        html.table(*html.known_columns(["run", "seeds", *LAST], rows)),
    ]
    if any(len(variant.runs) > 1 for variant in variants):
        parts.append(
            html.paragraph(
                "Means over seeds with their standard errors; bands of the curves are standard "
                "deviations.",
                class_="note",
            )
        )
    terms = dict.fromkeys(term for variant in variants for term in variant.terms)
    shared = [chart for term in terms if (chart := _shared_chart(variants, term, color))]
    if shared:
        parts.append(html.grid(shared, halves=True))
    return html.join(parts)


def _shared_chart(variants: list[Variant], term: str, color: dict[str, str]) -> Html | None:
    """Match recall of a term (the loss if it has none), one curve per variant.

    None if fewer than two runs have the term.
    """
    with_recall = any(variant.metrics_with(f"{term}_recall") for variant in variants)
    figure = f"{term}_recall" if with_recall else f"{term}_loss"
    metrics = {variant.name: variant.metrics_with(figure) for variant in variants}
    if sum(map(len, metrics.values())) < 2:
        return None
    curves = [mean_curve(name, runs, figure, color[name]) for name, runs in metrics.items() if runs]
    title = f"{'Match recall' if with_recall else 'Loss'}, term {term}"
    return charts.lines(title, curves, percent=with_recall)


def _variant(results: Results, variants: list[Variant], variant: Variant) -> list[Html]:
    """The only run of a variant, or one drawer per seed."""
    parts = [html.heading(f"Run {variant.name}")]
    first = variant.runs[0].run
    if first is not None and first.mode != variant.name:
        parts.append(html.paragraph(_changes(variants, first)))
    if len(variant.runs) == 1:
        return [*parts, _run(results, variant.runs[0])]
    drawers = [html.details(f"Run {each.name}", _run(results, each)) for each in variant.runs]
    return parts + drawers


def _changes(variants: list[Variant], run: Run) -> str:
    """The settings in which a variant differs from its mode, if the results have both."""
    plain = [each.run for variant in variants if variant.name == run.mode for each in variant.runs]
    if not plain or plain[0] is None:
        return f"A variant of {run.mode}."
    ignored = {*RUNTIME, "seed"}
    before = plain[0].settings.model_dump(exclude=ignored)
    after = run.settings.model_dump(exclude=ignored)
    changed = [
        f"{name} = {json.dumps(value)}" for name, value in after.items() if value != before[name]
    ]
    return f"A variant of {run.mode}, with {', '.join(changed) if changed else 'equal settings'}."


def _run(results: Results, trained: Trained) -> Html:
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
    variant = Variant(trained.name, [trained])
    rows = [last_figures(variant, term) for term in terms]
    return html.join([*parts, html.table(LAST, rows), _pace(metrics[-1]), _skipped(metrics[-1])])


def _description(run: Run, step: int) -> str:
    """Mode, networks, initial weights, batch and length of a run."""
    assert run.mode is not None
    mode, settings = MODES[run.mode], run.pretrain
    origins = run.provenance.initial_weights if run.provenance else {}
    pixels = f"images of {settings.width} x {settings.height} pixels"
    sentences = [f"Mode {run.mode} ({mode.summary})."]
    if "network2d" in mode.trains:
        weights = _weights(origins.get("backbone"))
        sentences.append(
            f"2D network: {settings.network2d} on {pixels}, initialized with {weights}."
        )
    if "network3d" in mode.trains:
        clouds = "chunks"
        if "frame_voxel_m" in mode.uses:
            clouds = f"clouds in voxels of {100 * settings.frame_voxel_m:g} cm"
        weights = _weights(origins.get("backbone3d"))
        sentences.append(f"3D network: on {clouds}, initialized with {weights}.")
    if mode.teacher:
        weights = _weights(origins.get("teacher"))
        sentences.append(f"Teacher: {settings.teacher} on {pixels}, with {weights}.")
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

    panels = []
    if terms:
        panels.append(charts.lines("Loss", with_chance("loss")))
        if recall := with_chance("recall"):
            panels.append(charts.lines("Match recall", recall, percent=True))
    if any("depth_loss" in line for line in metrics):
        panels.append(charts.lines("Depth loss", [curve("depth", "depth_loss", charts.GREEN)]))
    lr = curve("learning rate", "lr", charts.GREEN)
    pace = curve("pairs per second", "pairs_per_s", charts.ORANGE)
    panels.append(charts.lines("Learning rate", [lr]))
    panels.append(charts.lines("Pairs per second", [pace]))
    return panels


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
