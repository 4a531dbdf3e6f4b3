"""Random changes of clouds, against what they claim to keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pri3d import augment3d


def points(seed: int, n: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-2, 3, (n, 3))


def distances(p: np.ndarray) -> np.ndarray:
    return np.linalg.norm(p[:, None] - p, axis=-1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_turned_and_mirrored_clouds_keep_distances_and_stay_upright(seed):
    cloud = points(seed)
    rng = np.random.default_rng(seed)
    changed = augment3d.augment_points(cloud, ["rotate", "flip"], rng)
    np.testing.assert_allclose(distances(changed), distances(cloud), atol=1e-9)
    matrix = np.linalg.lstsq(cloud, changed, rcond=None)[0].T
    assert matrix[2, 2] > np.cos(augment3d.TILT) ** 2 - 1e-9


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_scaling_is_one_factor(seed):
    cloud = points(seed)
    changed = augment3d.augment_points(cloud, ["scale"], np.random.default_rng(seed))
    factor = changed / cloud
    np.testing.assert_allclose(factor, factor[0, 0])
    assert 0.9 <= factor[0, 0] <= 1.1


def test_all_angles_occur_and_mirrors_half_of_the_time():
    rng = np.random.default_rng(0)
    turned = np.array([augment3d.rotation(rng) @ (1, 0, 0) for _ in range(400)])
    angles = np.arctan2(turned[:, 1], turned[:, 0])
    counts, _ = np.histogram(angles, 8, (-np.pi, np.pi))
    assert counts.min() > 25
    signs = np.array(
        [augment3d.augment_points(np.ones((1, 3)), ["flip"], rng)[0] for _ in range(400)]
    )
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert (signs[:, 2] == 1).all()
    assert (np.abs(signs[:, :2].mean(axis=0)) < 0.15).all()


def test_distortion_is_smooth_and_about_as_large_as_asked():
    grid = np.stack(np.meshgrid(*[np.arange(0, 4, 0.1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    for spacing, size in augment3d.ELASTIC:
        moved = augment3d.distort(grid, spacing, size, np.random.default_rng(1)) - grid
        shifts = moved.reshape(40, 40, 40, 3)
        step = np.linalg.norm(np.diff(shifts, axis=0), axis=-1)
        assert 0.02 * size < shifts.std() < 0.5 * size
        assert step.max() < size * 0.1 / spacing  # no fold: neighbours stay neighbours
    assert len(augment3d.distort(np.zeros((0, 3)), 0.2, 0.4, np.random.default_rng(0))) == 0


def test_a_way_draws_the_same_whatever_others_are_asked_for():
    cloud = points(1)
    only = augment3d.augment_points(cloud, ["scale"], np.random.default_rng(4))
    both = augment3d.augment_points(cloud, ["scale", "flip"], np.random.default_rng(4))
    np.testing.assert_allclose(np.abs(only), np.abs(both))
    np.testing.assert_array_equal(
        augment3d.augment_points(cloud, [], np.random.default_rng(4)), cloud
    )


@pytest.mark.parametrize("seed", range(5))
def test_colours_stay_colours(seed):
    rng = np.random.default_rng(seed)
    color = rng.random((500, 3)).astype(np.float32)
    changed = augment3d.augment_colors(color, rng)
    assert changed.dtype == np.float32
    assert changed.shape == color.shape
    assert 0 <= changed.min() <= changed.max() <= 1
    assert 0.005 < np.abs(changed - color).mean() < 0.3
    assert augment3d.augment_colors(color[:0], rng).shape == (0, 3)
