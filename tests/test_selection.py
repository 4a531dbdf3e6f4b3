"""Choices from lists: evenly spaced items, and farthest points against the definition."""

import numpy as np
import pytest

from pri3d.selection import evenly_spaced, farthest_point_sampling, spread


@pytest.mark.parametrize(("count", "max_count"), [(10, 3), (7, 7), (5, 9), (100, 1), (1, 1)])
def test_evenly_spaced_positions(count, max_count):
    positions = evenly_spaced(count, max_count)
    assert len(positions) == min(count, max_count)
    assert positions[0] == 0
    if max_count > 1:
        assert positions[-1] == count - 1
    assert len(positions) < 3 or np.ptp(np.diff(positions)) <= 1
    items = [str(i) for i in range(count)]
    assert spread(items, max_count) == [items[i] for i in positions]
    assert spread(items, None) == items


@pytest.mark.parametrize("dimensions", [2, 3])
def test_farthest_points_by_their_definition(dimensions):
    points = np.random.default_rng(0).random((200, dimensions))
    rows = farthest_point_sampling(points, 20, first=7)
    assert rows[0] == 7
    for i in range(1, 20):
        chosen = points[rows[:i]]
        distance = np.linalg.norm(points[:, None] - chosen, axis=2).min(axis=1)
        assert distance[rows[i]] == distance.max()
    assert farthest_point_sampling(points[:3], 7).tolist() == [0, 1, 2, 0, 1, 2, 0]
