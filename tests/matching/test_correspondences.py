"""Nearest correspondences against a KD-tree over float64 world points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_views import bumpy, camera, pose, views_of, world_points
from scipy.spatial import cKDTree

from pri3d.geometry import View, transform, unproject
from pri3d.matching.correspondences import nearest
from pri3d.matching.overlap import count_matches

RADIUS = 0.02


def assert_nearest(a: View, b: View, radius: float) -> None:
    pixels_a, pixels_b, distance = nearest(a, b, radius)
    points = [unproject(view.depth, view.K)[0] for view in (a, b)]
    tree = cKDTree(world_points(b)) if (b.depth > 0).any() else None
    if tree is None or not (a.depth > 0).any():
        assert len(distance) == 0
        return
    expected, _ = tree.query(world_points(a))
    inside = expected < radius
    assert np.array_equal(pixels_a, np.argwhere(a.depth > 0)[inside])
    np.testing.assert_allclose(distance, expected[inside], rtol=1e-9, atol=1e-12)
    ends = [
        transform(view.world_from_camera, xyz[tuple(pixels.T)])
        for view, xyz, pixels in zip((a, b), points, (pixels_a, pixels_b))
    ]
    np.testing.assert_allclose(np.linalg.norm(ends[0] - ends[1], axis=1), distance, atol=1e-12)


@pytest.mark.parametrize("mean", [0.03, 0.5, 3.0])
def test_every_pixel_gets_its_nearest(mean):
    a, b = views_of(1, mean=mean, noise=0.003, frames=2, shift=0.02)
    assert_nearest(a, b, RADIUS)


def test_bent_poses_measure_in_the_world():
    a, b = views_of(2, frames=2, shift=0.02)
    bent = b.world_from_camera.copy()
    bent[:3, :3] *= 1.004
    assert_nearest(a, b._replace(world_from_camera=bent), RADIUS)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    mean=st.floats(0.01, 5),
    angle=st.floats(0, 3.2),
    radius=st.floats(0.002, 0.3),
)
def test_any_pair_of_frames(seed, shape, mean, angle, radius):
    rng = np.random.default_rng(seed)
    a, b = (
        View(bumpy(rng, shape, mean, 0.01), camera(shape, 50.0), pose(rng, angle, 0.3))
        for _ in range(2)
    )
    assert_nearest(a, b, radius)


def test_as_many_as_the_overlap_counts():
    a, b = views_of(3, frames=2, shift=0.02)
    assert len(nearest(a, b, RADIUS)[0]) == count_matches([a, b], RADIUS)[0, 1]


def test_only_the_pixels_asked_for_in_their_order():
    a, b = views_of(4, frames=2, shift=0.02)
    pixels = np.argwhere(np.ones_like(a.depth))[::-7]  # with and without depth
    all_a, all_b, all_distance = nearest(a, b, RADIUS)
    answer = {tuple(p): (tuple(q), d) for p, q, d in zip(all_a, all_b, all_distance)}
    got = nearest(a, b, RADIUS, pixels)
    assert [tuple(p) for p in got[0]] == [tuple(p) for p in pixels if tuple(p) in answer]
    assert all((tuple(q), d) == answer[tuple(p)] for p, q, d in zip(*got))
    assert 0 < len(got[0]) < len(pixels)
