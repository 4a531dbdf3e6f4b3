"""Evenly spaced choices from a list."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def evenly_spaced(count: int, max_count: int | None) -> np.ndarray:
    """Positions int64 in a list of `count` items: at most `max_count`, the first and last included.

    None: all positions.
    """
    if max_count is None or count <= max_count:
        return np.arange(count)
    return np.linspace(0, count - 1, max_count).round().astype(np.int64)


def spread(items: Sequence[T], max_items: int | None) -> list[T]:
    """At most `max_items` items, evenly spaced over a list, in its order; None: all."""
    return [items[i] for i in evenly_spaced(len(items), max_items)]
