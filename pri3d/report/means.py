"""Means over runs that differ in their seeds, with standard errors."""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import NamedTuple

import numpy as np

from pri3d.report.html import Number


class Mean(NamedTuple):
    """A mean; error: its standard error, None for a single value."""

    value: float
    error: float | None

    def number(self, digits: int = 2, factor: float = 1, sign: bool = False) -> Number:
        """The mean and its error, formatted."""
        plus = "+" if sign else ""
        rounded = round(factor * self.value, digits) + 0.0  # no negative zero
        text = f"{rounded:{plus}.{digits}f}"
        if self.error is not None:
            text += f" ± {factor * self.error:.{digits}f}"
        return Number(text)


def mean(values: Iterable[float | None]) -> Mean | None:
    """The mean of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    several = len(known) > 1
    error = float(np.std(known, ddof=1) / np.sqrt(len(known))) if several else None
    return Mean(float(np.mean(known)), error)


def mean_over_pretrainings(values: Iterable[tuple[Hashable, float | None]]) -> Mean | None:
    """The mean of runs that start from one or more pretraining runs.

    Runs that start from the same pretraining are not independent. With several pretraining runs,
    the error is therefore that of the means of each; with one, it is that of all values.

    Args:
        values: (pretraining run, value).
    """
    groups = defaultdict(list)
    for source, value in values:
        if value is not None:
            groups[source].append(value)
    if len(groups) == 1:
        return mean(next(iter(groups.values())))
    return mean(float(np.mean(group)) for group in groups.values())
