"""The overlap counts against a KD-tree over float64 world points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_views import bumpy, camera, pose, views_of, world_points
from scipy.spatial import cKDTree

from pri3d import config
from pri3d.artefacts import Clouds
from pri3d.geometry import View
from pri3d.matching.overlap import count_matches
from pri3d.stages import clouds

RADIUS = 0.02


def count_by_tree(a: View, b: View, radius: float = RADIUS) -> int:
    points, others = world_points(a), world_points(b)
    if len(points) == 0 or len(others) == 0:
        return 0
    distance, _ = cKDTree(others).query(points)
    return int((distance < radius).sum())


def tolerance(count: int) -> float:
    return max(2, 1e-4 * count)


def assert_exact(views: list[View], radius: float = RADIUS, decisive: int = 0) -> np.ndarray:
    """Compare all counts with KD-trees.

    decisive: minimum number of ordered pairs whose count is well above the tolerance, so that an
    engine that finds nothing fails.
    """
    matches = count_matches(views, radius)
    n_decisive = 0
    for i, a in enumerate(views):
        for j, b in enumerate(views):
            expected = 0 if i == j else count_by_tree(a, b, radius)
            assert abs(int(matches[i, j]) - expected) <= tolerance(expected), (i, j)
            n_decisive += expected > 4 * tolerance(expected)
    assert n_decisive >= decisive
    return matches


def one_surface(seed: int, radius: float) -> list[View]:
    """One surface, seen four times with noise and small motions on the scale of the radius."""
    rng = np.random.default_rng(seed)
    shape = (90, 130)
    depth = bumpy(rng, shape, 1.5, 0.004)
    return [
        View(
            np.where(depth > 0, depth + 0.4 * radius * rng.standard_normal(shape), 0),
            camera(shape, 120.0),
            pose(rng, 0.2 * radius, 0.4 * radius),
        )
        for _ in range(4)
    ]


@pytest.mark.parametrize("mean", [0.03, 0.3, 1.5, 6.0])
def test_noisy_surfaces_near_and_far(mean):
    shift = min(0.1, mean / 3)
    assert_exact(views_of(1, mean=mean, noise=0.003 * mean, shift=shift), decisive=12)


@pytest.mark.parametrize("radius", [0.001, 0.02, 0.3])
def test_radii(radius):
    """A point has its match in the same pixel, or in one next to it, or in none."""
    views = one_surface(2, radius)
    matches = assert_exact(views, radius, decisive=12)[~np.eye(4, dtype=bool)]
    assert matches.min() > 3000
    if radius < 0.01:  # less than the distance of neighboring points
        assert matches.max() < 0.95 * np.count_nonzero(views[0].depth)


@pytest.mark.parametrize("radius", [0.02, 0.3])
def test_radii_of_different_surfaces(radius):
    assert_exact(views_of(2), radius, decisive=12)


def test_depths_below_three_radii():
    rng = np.random.default_rng(3)
    K = camera((60, 80), 70.0)
    views = [View(rng.uniform(0.001, 0.06, (60, 80)), K, pose(rng, 0.5, 0.05)) for _ in range(5)]
    assert_exact(views, decisive=16)


def test_points_behind_and_beside_the_other_camera():
    rng = np.random.default_rng(4)
    views = [
        view._replace(world_from_camera=pose(rng, angle, 0.4))
        for view, angle in zip(views_of(4, mean=0.5), (0.0, 1.2, 2.4, 3.1))
    ]
    assert_exact(views, decisive=4)


@pytest.mark.parametrize("stretch", [4e-4, 5e-3])
def test_poses_that_are_not_orthonormal(stretch):
    rng = np.random.default_rng(5)
    views = []
    for view in views_of(5, noise=0.01):
        bent = view.world_from_camera.copy()
        bent[:3, :3] = bent[:3, :3] @ (np.eye(3) + stretch * rng.uniform(-1, 1, (3, 3)))
        views.append(view._replace(world_from_camera=bent))
    assert_exact(views, decisive=12)


def test_identical_frames_match_everywhere():
    view = views_of(6)[0]
    points = np.count_nonzero(view.depth)
    assert count_matches([view, view], RADIUS).tolist() == [[0, points], [points, 0]]


def test_one_pixel_frames():
    K = np.array([[500.0, 0, 0], [0, 500, 0], [0, 0, 1]])
    views = [View(np.full((1, 1), z), K, np.eye(4)) for z in (1.0, 1.0199, 1.0201, 3.0)]
    expected = [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert count_matches(views, RADIUS).tolist() == expected


def test_frames_without_depth_and_no_frames():
    empty = views_of(7)[0]._replace(depth=np.zeros((90, 130)))
    matches = count_matches([*views_of(7), empty], RADIUS)
    assert matches[-1].tolist() == [0] * 5
    assert matches[:, -1].tolist() == [0] * 5
    assert matches[:4, :4].any()
    assert count_matches([], RADIUS).shape == (0, 0)


def test_values_that_are_no_depth():
    view = views_of(8)[0]
    broken = view.depth.copy()
    broken[::3, ::3], broken[1::3, ::3], broken[2::3, ::3] = np.nan, np.inf, -1
    clean = np.where(np.isfinite(broken) & (broken > 0), broken, 0)
    got = count_matches([view, view._replace(depth=broken)], RADIUS)
    assert np.array_equal(got, count_matches([view, view._replace(depth=clean)], RADIUS))
    assert got[1, 0] == np.count_nonzero(clean)


def test_cameras_looking_away():
    about = np.diag([-1.0, 1, -1, 1])
    view = views_of(9)[0]
    assert not count_matches([view, view._replace(world_from_camera=about)], RADIUS).any()


def test_frames_of_different_shapes_and_cameras():
    rng = np.random.default_rng(10)
    shapes = [(33, 65), (1, 50), (97, 31), (64, 64)]
    views = [
        View(bumpy(rng, shape, 1.0, 0.005), camera(shape, 60.0 + 20 * k), pose(rng, 0.05, 0.03))
        for k, shape in enumerate(shapes)
    ]
    assert_exact(views, decisive=7)


def test_a_world_far_from_the_origin():
    far = np.eye(4)
    far[:3, 3] = 1000, -2000, 500
    views = [view._replace(world_from_camera=far @ view.world_from_camera) for view in views_of(11)]
    assert_exact(views, decisive=12)


def test_threads_do_not_change_the_counts():
    views = views_of(12, frames=6)
    one = count_matches(views, RADIUS, threads=1)
    assert np.array_equal(one, count_matches(views, RADIUS, threads=3))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    mean=st.floats(0.01, 8),
    noise=st.floats(0, 0.1),
    angle=st.floats(0, 3.2),
    share=st.floats(0.01, 0.99),
)
def test_any_pair_of_frames(seed, height, width, mean, noise, angle, share):
    """The radius is chosen such that about `share` of the points of one frame have a match."""
    rng = np.random.default_rng(seed)
    shape = (height, width)
    views = [
        View(bumpy(rng, shape, mean, noise), camera(shape, 60.0), pose(rng, angle, 0.3))
        for _ in range(2)
    ]
    points, others = (world_points(view) for view in views)
    radius = RADIUS
    if len(points) and len(others):
        radius = max(1e-4, float(np.quantile(cKDTree(others).query(points)[0], share)))
    decisive = share * len(points) > 20 and len(others) > 0
    assert_exact(views, radius, decisive=int(decisive))


@pytest.mark.real
@pytest.mark.parametrize(
    ("scan", "every"), [("redkitchen/redkitchen.sens", 20), ("livingroom1/livingroom1.sens", 42)]
)
def test_random_pairs_of_real_scans(real_data, tmp_path, scan, every):
    """Full resolution; `benchmarks/overlap.py` does the same for many more pairs."""
    clouds.run(real_data / "scans" / scan, tmp_path / "clouds.h5", config.Frames(every=every))
    with Clouds(tmp_path / "clouds.h5") as source:
        views = [source.view(row) for row in range(len(source))]
    matches = count_matches(views, RADIUS, threads=2)
    for i in range(len(views)):
        j = (i + 1) % len(views)
        expected = count_by_tree(views[i], views[j])
        assert abs(int(matches[i, j]) - expected) <= tolerance(expected)
    assert matches.max() > 10_000
