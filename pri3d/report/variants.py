"""Pretraining runs by variant, with their metrics."""

from typing import NamedTuple

from pri3d.report import html
from pri3d.report.gather import Results
from pri3d.report.html import Cell, Html
from pri3d.report.means import mean
from pri3d.report.metrics import Metrics, last_line_with, load_metrics, terms_of
from pri3d.report.names import run_sort_key
from pri3d.run.folder import Run


class Trained(NamedTuple):
    """A pretraining run; run: None if it has not written its settings."""

    name: str
    run: Run | None
    metrics: Metrics


class Variant(NamedTuple):
    """The runs of a mode or of a variant of one, which differ in their seeds."""

    name: str
    runs: list[Trained]

    @property
    def terms(self) -> list[str]:
        """The loss terms of its runs."""
        return terms_of(line for each in self.runs for line in each.metrics)

    def metrics_with(self, figure: str) -> list[Metrics]:
        """The metrics of the runs that have a figure."""
        return [each.metrics for each in self.runs if last_line_with(each.metrics, figure)]


def variants_of(results: Results) -> list[Variant]:
    """Pretraining runs by variant, ordered by mode; then runs without settings."""
    runs = sorted(
        results.runs,
        key=lambda run: (run_sort_key(run.variant or run.name, run.mode), run.settings.seed),
    )
    variants: dict[str, Variant] = {}
    for run in runs:
        name = run.variant or run.name
        trained = Trained(run.name, run, load_metrics(run.folder))
        variants.setdefault(name, Variant(name, [])).runs.append(trained)
    for folder in results.without_settings:
        metrics = load_metrics(folder)
        if terms_of(metrics):  # finetuning has none
            name = folder.name
            variants.setdefault(name, Variant(name, [])).runs.append(Trained(name, None, metrics))
    return list(variants.values())


LAST = ["term", "step", "loss", "loss of guessing", "recall", "recall of guessing", "ratio"]


def last_figures(variant: Variant, term: str) -> list[Cell]:
    """The last figures of a term, as the columns LAST; means over seeds."""
    lines = [last_line_with(each.metrics, f"{term}_loss") for each in variant.runs]
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
