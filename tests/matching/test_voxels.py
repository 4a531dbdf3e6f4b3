"""The look-up against brute force (exactly, ties included) and scipy's KD-tree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial import cKDTree

from pri3d.errors import Pri3DError
from pri3d.matching.voxels import build_table, nearest_voxel, voxelize

LIMIT = 1 << 20


def brute_force(voxel, points, voxel_m, radius):
    """All distances; the first of the nearest, as argmin takes it."""
    apart = points[:, None] - (voxel[None] + 0.5) * voxel_m
    distance = np.sqrt((apart**2).sum(axis=2))
    rows = distance.argmin(axis=1)
    nearest = distance[np.arange(len(points)), rows]
    near = nearest < radius
    return np.where(near, rows, -1), np.where(near, nearest, np.inf)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 300),
    spread=st.integers(1, 12),
    center=hnp.arrays(np.int64, 3, elements=st.integers(-LIMIT + 20, LIMIT - 20)),
    voxel_m=st.sampled_from([0.02, 0.05, 1.0, 0.0173]),
    ratio=st.sampled_from([0.3, 0.5, 0.99, 1.0, 1.3, 2.0, 3.4]),
    lattice=st.booleans(),
)
def test_every_point_finds_its_nearest_voxel(seed, count, spread, center, voxel_m, ratio, lattice):
    rng = np.random.default_rng(seed)
    voxel = (center + rng.integers(-spread, spread, (count, 3))).astype(np.int32)
    if lattice:  # corners, faces and centers of voxels: ties, and distances at the very radius
        cells = center + rng.integers(-2 * spread, 2 * spread, (100, 3)) / 2
    else:
        cells = center + rng.uniform(-spread - 3, spread + 3, (100, 3))
    points, radius = cells * voxel_m, ratio * voxel_m
    rows, distance = nearest_voxel(build_table(voxel), points, voxel_m, radius)
    expected_rows, expected = brute_force(voxel, points, voxel_m, radius)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(distance, expected)


def test_a_large_cloud_agrees_with_a_kd_tree():
    rng = np.random.default_rng(5)
    surface = rng.uniform(-3, 3, (60_000, 3))
    surface[:, 2] = np.sin(surface[:, 0]) - 0.5  # a sheet, as surfaces are
    voxel, _ = voxelize(surface, np.zeros(surface.shape, np.uint8), 0.02)
    points = surface[:20_000] + rng.normal(0, 0.02, (20_000, 3))
    rows, distance = nearest_voxel(build_table(voxel), points, 0.02, 0.02)
    expected, expected_rows = cKDTree((voxel + 0.5) * 0.02).query(points)
    near = expected < 0.02
    assert 0.2 < near.mean() < 0.9
    np.testing.assert_array_equal(rows >= 0, near)
    np.testing.assert_array_equal(rows[near], expected_rows[near])
    np.testing.assert_allclose(distance[near], expected[near], rtol=1e-12)


def test_equal_distances_go_to_the_lowest_row():
    voxel = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]], np.int32)
    table = build_table(voxel)
    rows, distance = nearest_voxel(table, np.array([[1.0, 0.5, 0.5], [0.5, 1.0, 0.5]]), 1.0, 1.0)
    assert rows.tolist() == [0, 1]
    assert distance.tolist() == [0.5, 0.5]


def test_the_radius_itself_is_too_far():
    table = build_table(np.array([[0, 0, 0]], np.int32))
    at_radius, inside = [1.5, 0.5, 0.5], [np.nextafter(1.5, 0), 0.5, 0.5]
    rows, _ = nearest_voxel(table, np.array([at_radius, inside]), 1.0, 1.0)
    assert rows.tolist() == [-1, 0]


def test_points_nowhere_near_or_not_finite_have_none():
    table = build_table(np.array([[0, 0, 0], [LIMIT - 1] * 3, [-LIMIT] * 3], np.int32))
    points = np.array([[np.nan, 0, 0], [np.inf, 0, 0], [0, -np.inf, 0], [1e300, 0, 0], [0, 0, 9]])
    rows, distance = nearest_voxel(table, points, 1.0, 2.0)
    assert (rows == -1).all()
    assert np.isposinf(distance).all()


def test_the_corners_of_the_numbered_space():
    """Neighbors beyond the last number must not wrap round to the other side."""
    voxel = np.array([[LIMIT - 1, 0, LIMIT - 1], [-LIMIT, 1, -LIMIT], [0, -LIMIT, 0]], np.int32)
    table = build_table(voxel)
    rows, _ = nearest_voxel(table, voxel + 0.5, 1.0, 1.0)
    assert rows.tolist() == [0, 1, 2]
    beyond = np.array([[LIMIT + 0.2, 0.5, LIMIT - 0.5], [0.5, -LIMIT - 0.2, 0.5]])
    assert nearest_voxel(table, beyond, 1.0, 1.0)[0].tolist() == [0, 2]
    wrapped = np.array([[-0.5, LIMIT + 0.2, 0.5], [-LIMIT + 0.5, 0.5, LIMIT + 0.2]])
    assert nearest_voxel(table, wrapped, 1.0, 1.0)[0].tolist() == [-1, -1]


def test_nothing_to_ask_and_nothing_to_find():
    empty = build_table(np.zeros((0, 3), np.int32))
    assert nearest_voxel(empty, np.zeros((2, 3)), 0.02, 0.02)[0].tolist() == [-1, -1]
    rows, distance = nearest_voxel(empty, np.zeros((0, 3)), 0.02, 0.02)
    assert rows.shape == distance.shape == (0,)


@pytest.mark.parametrize("bad", [[0, 0, LIMIT], [-LIMIT - 1, 0, 0]])
def test_voxels_that_cannot_be_numbered_are_an_error(bad):
    with pytest.raises(Pri3DError, match=r"point 1: .*metres"):
        build_table(np.array([[0, 0, 0], bad], np.int64))
    with pytest.raises(Pri3DError, match=r"point 1: .*metres"):
        voxelize(np.array([[0, 0, 0], bad]) * 1.0, np.zeros((2, 3), np.uint8), 1.0)


@settings(max_examples=60, deadline=None)
@given(
    points=hnp.arrays(
        np.float64, st.tuples(st.integers(0, 60), st.just(3)), elements=st.floats(-1, 1)
    ),
    seed=st.integers(0, 1000),
    voxel_m=st.sampled_from([0.02, 0.25, 1.0]),
)
def test_voxels_are_floor_divided_points_with_their_mean_colour(points, seed, voxel_m):
    rng = np.random.default_rng(seed)
    color = rng.integers(0, 256, points.shape, np.uint8)
    expected = {}
    for point, value in zip(points, color):
        key = tuple(int(np.floor(c / voxel_m)) for c in point)
        expected.setdefault(key, []).append(value.astype(int))
    order = rng.permutation(len(points))
    for arrangement in (slice(None), order):
        voxel, mean = voxelize(points[arrangement], color[arrangement], voxel_m)
        assert [tuple(v) for v in voxel.tolist()] == sorted(expected)
        assert voxel.dtype == np.int32
        assert mean.dtype == np.uint8
        for key, value in zip(sorted(expected), mean):
            exact = np.mean(expected[key], axis=0)
            assert (np.abs(value - exact) <= 0.5).all()
