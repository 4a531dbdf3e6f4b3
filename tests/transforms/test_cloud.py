"""Augmentation of clouds, checked by the properties it has to keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pri3d.transforms.cloud import (
    ELASTIC,
    MAX_TILT,
    augment_colors,
    augment_points,
    distort,
    random_rotation,
)


def points(seed: int, n: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-2, 3, (n, 3))


def distances(p: np.ndarray) -> np.ndarray:
    return np.linalg.norm(p[:, None] - p, axis=-1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_rotated_and_flipped_clouds_keep_distances_and_stay_upright(seed):
    cloud = points(seed)
    rng = np.random.default_rng(seed)
    changed = augment_points(cloud, ["rotate", "flip"], rng)
    np.testing.assert_allclose(distances(changed), distances(cloud), atol=1e-9)
    matrix = np.linalg.lstsq(cloud, changed, rcond=None)[0].T
    assert matrix[2, 2] > np.cos(MAX_TILT) ** 2 - 1e-9


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_scaling_is_one_factor(seed):
    cloud = points(seed)
    changed = augment_points(cloud, ["scale"], np.random.default_rng(seed))
    factor = changed / cloud
    np.testing.assert_allclose(factor, factor[0, 0])
    assert 0.9 <= factor[0, 0] <= 1.1


def test_all_angles_occur_and_flips_have_probability_one_half():
    rng = np.random.default_rng(0)
    rotated = np.array([random_rotation(rng) @ (1, 0, 0) for _ in range(400)])
    angles = np.arctan2(rotated[:, 1], rotated[:, 0])
    counts, _ = np.histogram(angles, 8, (-np.pi, np.pi))
    assert counts.min() > 25
    signs = np.array([augment_points(np.ones((1, 3)), ["flip"], rng)[0] for _ in range(400)])
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert (signs[:, 2] == 1).all()
    assert (np.abs(signs[:, :2].mean(axis=0)) < 0.15).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("spacing", "size"), ELASTIC)
def test_distortion_has_the_published_size_and_folds_nothing(spacing, size, seed):
    rng = np.random.default_rng([seed, 1])
    direction = rng.standard_normal((20_000, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    apart = rng.uniform(0.001, spacing, (20_000, 1))
    first = rng.uniform(0, 4, (20_000, 3))
    both = np.concatenate([first, first + apart * direction])
    shifts = distort(both, spacing, size, np.random.default_rng(seed)) - both
    # Normal noise, averaged twice over three knots along each axis, has a deviation of 0.11.
    assert 0.05 * size < shifts.std() < 0.15 * size
    # Points closer than a knot are shifted relative to each other by less than their distance:
    # along the line through them they keep their order.
    relative = np.linalg.norm(shifts[:20_000] - shifts[20_000:], axis=1)
    assert (relative < apart[:, 0]).all()


def test_a_cloud_without_points_is_distorted_to_one_without_points():
    assert distort(np.zeros((0, 3)), 0.2, 0.4, np.random.default_rng(0)).shape == (0, 3)


def test_a_transform_does_not_depend_on_the_others():
    cloud = points(1)
    only = augment_points(cloud, ["scale"], np.random.default_rng(4))
    both = augment_points(cloud, ["scale", "flip"], np.random.default_rng(4))
    np.testing.assert_allclose(np.abs(only), np.abs(both))
    np.testing.assert_array_equal(augment_points(cloud, [], np.random.default_rng(4)), cloud)


@pytest.mark.parametrize("seed", range(5))
def test_colors_stay_in_range(seed):
    rng = np.random.default_rng(seed)
    color = rng.random((500, 3)).astype(np.float32)
    changed = augment_colors(color, rng)
    assert changed.dtype == np.float32
    assert changed.shape == color.shape
    assert 0 <= changed.min() <= changed.max() <= 1
    assert 0.005 < np.abs(changed - color).mean() < 0.3
    assert augment_colors(color[:0], rng).shape == (0, 3)
