"""PointInfoNCE against its formula in numpy, and its edges; match recall."""

import doctest
import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pri3d.pretrain import losses
from pri3d.pretrain.losses import match_recall, point_info_nce


def rows(n, channels=16, seed=0, dtype=torch.float64):
    return torch.randn(n, channels, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_formula(anchors, candidates, temperature, normalize):
    """The equation, one anchor at a time."""
    a, c = anchors.numpy(), candidates.numpy()
    if normalize:
        a = a / np.sqrt((a**2).sum(1, keepdims=True))
        c = c / np.sqrt((c**2).sum(1, keepdims=True))
    total = 0.0
    for i in range(len(a)):
        scores = [math.exp(float(np.dot(a[i], c[k])) / temperature) for k in range(len(c))]
        total -= math.log(scores[i] / sum(scores))
    return total / len(a)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("n", "temperature"), [(1, 0.4), (2, 0.07), (50, 0.4), (50, 1.0)])
def test_loss_is_the_formula(n, temperature, normalize):
    a, c = rows(n, seed=1) / 4, rows(n, seed=2) / 4
    there = by_formula(a, c, temperature, normalize)
    back = by_formula(c, a, temperature, normalize)
    loss = point_info_nce(a, c, temperature, normalize=normalize)
    assert math.isclose(loss.item(), there, rel_tol=1e-12, abs_tol=1e-14)
    loss = point_info_nce(a, c, temperature, normalize=normalize, symmetric=True)
    assert math.isclose(loss.item(), (there + back) / 2, rel_tol=1e-12, abs_tol=1e-14)


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(0, 1000), st.floats(0.05, 2))
def test_order_of_matches_and_length_of_rows_do_not_matter(n, seed, temperature):
    a, c = rows(n, seed=seed), rows(n, seed=seed + 1)
    loss = point_info_nce(a, c, temperature)
    order = torch.randperm(n)
    lengths = torch.rand(n, 1, dtype=torch.float64) + 0.1
    other = point_info_nce((a * lengths)[order], (3 * c)[order], temperature)
    assert math.isclose(other.item(), loss.item(), rel_tol=1e-9)


def test_what_knows_nothing_has_the_logarithm_of_all_candidates():
    same = torch.ones(64, 8)
    assert math.isclose(point_info_nce(same, same, 0.4).item(), math.log(64), rel_tol=1e-6)
    a, c = rows(512, 256, seed=3), rows(512, 256, seed=4)
    assert abs(point_info_nce(a, c, 1.0).item() - math.log(512)) < 0.05


def test_gradients():
    a, c = rows(6, 4, seed=1).requires_grad_(), rows(6, 4, seed=2).requires_grad_()
    for normalize in (True, False):
        assert torch.autograd.gradcheck(
            lambda a, c, n=normalize: point_info_nce(a, c, 0.4, normalize=n, symmetric=True), (a, c)
        )


def test_rows_of_length_zero_stay_finite():
    a, c = rows(8, seed=1, dtype=torch.float32), rows(8, seed=2, dtype=torch.float32)
    a[3] = 0
    c[5] = 0
    a.requires_grad_()
    c.requires_grad_()
    loss = point_info_nce(a, c, 0.4, symmetric=True)
    loss.backward()
    assert loss.isfinite()
    assert a.grad.isfinite().all()
    assert c.grad.isfinite().all()
    assert a.grad.abs().max() < 100
    assert a.grad[3].abs().max() > 0
    # A zero row is equally similar to everything: it adds ln(N) to the sum.
    others = [row for row in range(8) if row != 3]
    logits = torch.nn.functional.normalize(a) @ torch.nn.functional.normalize(c).t() / 0.4
    rest = torch.nn.functional.cross_entropy(logits[others], torch.tensor(others), reduction="sum")
    expected = (rest + math.log(8)) / 8
    assert math.isclose(point_info_nce(a, c, 0.4).item(), expected.item(), rel_tol=1e-6)


def test_ignored_candidates_are_no_negatives():
    a, c = rows(5, seed=1), rows(5, seed=2)
    ignore = torch.zeros(5, 5, dtype=torch.bool)
    ignore[:, 4] = True
    ignore[4, 4] = False
    loss = point_info_nce(a, c, 0.4, ignore_NN=ignore)
    without = point_info_nce(a[:4], c[:4], 0.4)
    logits = torch.nn.functional.normalize(a[4:]) @ torch.nn.functional.normalize(c).t() / 0.4
    last = torch.nn.functional.cross_entropy(logits, torch.tensor([4]))
    assert math.isclose(loss.item(), (4 * without.item() + last.item()) / 5, rel_tol=1e-12)


def test_half_precision_is_computed_in_float32():
    a, c = rows(32, seed=1, dtype=torch.float32), rows(32, seed=2, dtype=torch.float32)
    expected = point_info_nce(a.bfloat16().float(), c.bfloat16().float(), 0.07)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(point_info_nce(a.bfloat16(), c.bfloat16(), 0.07), expected)
        full = point_info_nce(a, c, 0.07)
    assert torch.equal(full, point_info_nce(a, c, 0.07))
    assert point_info_nce((100 * a).half(), (100 * c).half(), 0.07, normalize=False).isfinite()


@pytest.mark.parametrize(("measure", "more"), [(point_info_nce, [0.4]), (match_recall, [])])
@pytest.mark.parametrize(
    ("a", "c"),
    [((0, 4), (0, 4)), ((3, 4), (2, 4)), ((3, 4), (3, 5)), ((3,), (3,)), ((1, 3, 4), (1, 3, 4))],
)
def test_shapes_that_do_not_fit_are_refused(measure, more, a, c):
    # Without the checks of shapes that tests add to functions.
    measure = inspect.unwrap(measure)
    with pytest.raises(ValueError, match=r"expected the same \[N, C\]"):
        measure(torch.ones(a), torch.ones(c), *more)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_the_temperature_is_positive(temperature):
    with pytest.raises(ValueError, match="must be positive"):
        point_info_nce(torch.ones(2, 2), torch.ones(2, 2), temperature)


def test_match_recall_counts_the_first_choice():
    a = torch.eye(10)
    assert match_recall(a, a) == 1
    assert match_recall(a, a.roll(1, dims=0)) == 0
    swapped = a.clone()
    swapped[[0, 1]] = a[[1, 0]]
    assert match_recall(a, swapped) == pytest.approx(0.8)


def test_match_recall_of_a_collapsed_network_is_chance():
    assert match_recall(torch.ones(8, 4), torch.ones(8, 4)) == pytest.approx(1 / 8)
    assert match_recall(torch.zeros(8, 4), torch.zeros(8, 4)) == pytest.approx(1 / 8)
    assert match_recall(rows(2000, seed=1), rows(2000, seed=2)) < 0.01
    assert match_recall(torch.full((4, 2), math.nan), torch.ones(4, 2)) == 0


def test_match_recall_compares_as_the_loss_does():
    a = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    c = torch.tensor([[1.0, 0.0], [10.0, 8.0]])
    assert match_recall(a, c) == 1
    assert match_recall(a, c, normalize=False) == 0.5


def test_match_recall_keeps_no_graph():
    a = rows(4).requires_grad_()
    assert isinstance(match_recall(a, a), float)


def test_examples_in_the_documentation():
    outcome = doctest.testmod(losses)
    assert outcome.attempted >= 4
    assert outcome.failed == 0
