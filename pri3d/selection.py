"""Choices from a list: evenly spaced items, and points far from each other."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numba import njit

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


def farthest_point_sampling(points_ND: np.ndarray, count: int, first: int = 0) -> np.ndarray:
    """Farthest point sampling of one cloud on the CPU (`pri3d.models.votenet` has it for batches).

    Args:
        points_ND: float64 [N, D].
        count: number of points to choose.
        first: row of the first one.

    Returns:
        Rows int64 [count]: the first point, then always the one farthest from all chosen before it.
        If there are not more than `count` points, they are repeated in order.
    """
    rows = np.arange(count) % max(len(points_ND), 1)
    if len(points_ND) > count:
        rows[0] = first
        _choose_farthest(np.ascontiguousarray(points_ND, np.float64), rows)
    return rows


@njit(cache=True, nogil=True)
def _choose_farthest(points, rows):
    nearest = np.full(len(points), np.inf)
    for i in range(1, len(rows)):
        last, farthest, best = rows[i - 1], -1.0, 0
        for j in range(len(points)):
            squared = 0.0
            for axis in range(points.shape[1]):
                squared += (points[j, axis] - points[last, axis]) ** 2
            if squared < nearest[j]:
                nearest[j] = squared
            if nearest[j] > farthest:
                farthest, best = nearest[j], j
        rows[i] = best
