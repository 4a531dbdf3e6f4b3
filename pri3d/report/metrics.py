"""Series of the metrics of runs, for charts."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pri3d.report.charts import Curve
from pri3d.run.folder import METRICS, read_metrics

Metrics = list[dict[str, Any]]  # the lines of metrics.jsonl

_MAX_POINTS = 600  # of a curve; longer series are averaged
_CHANCE = "_loss_chance"


def load_metrics(folder: Path) -> Metrics:
    """The metrics of a run; none if it has not written any yet."""
    return read_metrics(folder) if (folder / METRICS).exists() else []


def terms_of(metrics: Iterable[dict[str, Any]]) -> list[str]:
    """The loss terms of pretraining, in order of appearance: those with a chance level."""
    names = dict.fromkeys(key for line in metrics for key in line if key.endswith(_CHANCE))
    return [name.removesuffix(_CHANCE) for name in names]


def last_line_with(metrics: Metrics, name: str) -> dict[str, Any] | None:
    """The last line that has a figure."""
    return next((line for line in reversed(metrics) if line.get(name) is not None), None)


def series(metrics: Metrics, name: str) -> np.ndarray:
    """A figure over all lines, float64; NaN for lines without it."""
    return np.array([np.nan if line.get(name) is None else line[name] for line in metrics], float)


def thinned(values: np.ndarray) -> np.ndarray:
    """At most `_MAX_POINTS` means of successive values; NaN is left out of a mean."""
    if len(values) <= _MAX_POINTS:
        return values
    groups = np.array_split(np.asarray(values, np.float64), _MAX_POINTS)
    return np.array([np.nan if np.isnan(group).all() else np.nanmean(group) for group in groups])


def mean_curve(label: str, runs: list[Metrics], name: str, color: str) -> Curve:
    """The mean of a figure over runs at the steps that all of them have.

    The band of several runs is the standard deviation.
    """
    values = [
        {line["step"]: line[name] for line in run if line.get(name) is not None} for run in runs
    ]
    steps = sorted(set.intersection(*map(set, values)))
    table = np.array([[run[step] for step in steps] for run in values], float)
    band = thinned(table.std(axis=0, ddof=1)) if len(runs) > 1 else None
    return Curve(
        label, thinned(np.array(steps, float)), thinned(table.mean(axis=0)), color, spread=band
    )
