"""Boxes in space, against counting points and against cases by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pri3d.boxes import Boxes, corners, inside
from pri3d.metrics import boxes3d
from pri3d.metrics.boxes3d import PredictedBox


def random_boxes(rng, n: int) -> Boxes:
    center = rng.uniform(-0.5, 0.5, (n, 3))
    return Boxes(center, rng.uniform(0.3, 1.5, (n, 3)), rng.uniform(-np.pi, np.pi, n))


def box(center, size, heading=0.0) -> Boxes:
    return Boxes(np.array([center], float), np.array([size], float), np.array([float(heading)]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_overlap_is_what_counting_points_gives(seed):
    rng = np.random.default_rng(seed)
    a, b = random_boxes(rng, 1), random_boxes(rng, 1)
    points = rng.uniform(-2, 2, (200_000, 3))
    in_a, in_b = (inside(points, *(part[0] for part in boxes)) for boxes in (a, b))
    expected = (in_a & in_b).sum() / (in_a | in_b).sum()
    assert boxes3d.iou(a, b)[0, 0] == pytest.approx(expected, abs=0.03)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_overlap_is_symmetric_and_moves_with_both(seed):
    rng = np.random.default_rng(seed)
    a, b = random_boxes(rng, 4), random_boxes(rng, 5)
    found = boxes3d.iou(a, b)
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(found, boxes3d.iou(b, a).T, atol=1e-12)
    np.testing.assert_allclose(np.diagonal(boxes3d.iou(a, a)), 1)
    turn = rng.uniform(-3, 3)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])  # as a heading turns
    moved = [Boxes(c @ matrix.T + (1, 2, 3), s, h + turn) for c, s, h in (a, b)]
    np.testing.assert_allclose(boxes3d.iou(*moved), found, atol=1e-9)


def test_a_heading_turns_from_x_towards_minus_y():
    long = box((0, 0, 0), (4, 1, 1), np.pi / 2 - 0.1)
    assert inside([(0, -1.9, 0)], *(part[0] for part in long)).all()
    a_quarter = box((0, 0, 0), (4, 1, 1), np.pi / 4)
    diagonal = np.array([(1.2, -1.2, 0), (1.2, 1.2, 0)])
    found = inside(diagonal, *(part[0] for part in a_quarter))
    np.testing.assert_array_equal(found, [True, False])
    # Corners say the same.
    eight = corners(a_quarter)[0]
    far = eight[np.argmax(eight[:, 0] - eight[:, 1])]
    assert far[0] > 1
    assert far[1] < -1


def test_known_overlaps():
    unit = box((0, 0, 0), (1, 1, 1))
    for other, expected in [
        (box((0.5, 0, 0), (1, 1, 1)), 1 / 3),
        (box((0, 0, 0.5), (1, 1, 1)), 1 / 3),
        (box((1, 0, 0), (1, 1, 1)), 0),
        (box((0, 0, 5), (1, 1, 1)), 0),
        (box((0, 0, 0), (0.5, 0.5, 0.5)), 1 / 8),
        (box((0, 0, 0), (1, 1, 1), np.pi / 2), 1),
        # A square and the same turned by 45 degrees share a regular octagon.
        (box((0, 0, 0), (1, 1, 1), np.pi / 4), (o := 2 * (np.sqrt(2) - 1)) / (2 - o)),
        (box((0, 0, 0), (0, 1, 1)), 0),
    ]:
        assert boxes3d.iou(unit, other)[0, 0] == pytest.approx(expected, abs=1e-12)


def test_suppression_keeps_the_best_of_each_place():
    low = np.array([(0, 0, 0), (0.1, 0, 0), (5, 0, 0), (0, 0, 0)], float)
    hulls = np.hstack([low, low + 1])
    score = np.array([0.8, 0.9, 0.1, 0.3])
    np.testing.assert_array_equal(boxes3d.suppress(hulls, score, 0.25), [1, 2])
    kind = np.array([0, 0, 0, 1])
    np.testing.assert_array_equal(boxes3d.suppress(hulls, score, 0.25, kind), [1, 3, 2])
    assert len(boxes3d.suppress(hulls[:0], score[:0], 0.25)) == 0


def found_of(scene, kind, score, boxes: Boxes, row=0) -> PredictedBox:
    return PredictedBox(scene, kind, score, boxes.center[row], boxes.size[row], boxes.heading[row])


@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.95])
def test_the_truth_as_prediction_is_perfect(threshold):
    rng = np.random.default_rng(0)
    truths, found = {}, []
    for scene in range(3):
        boxes, kinds = random_boxes(rng, 6), rng.integers(0, 4, 6)
        truths[scene] = kinds, boxes
        found += [found_of(scene, int(kinds[i]), rng.random(), boxes, i) for i in range(6)]
    result = boxes3d.average_precision(truths, found, threshold)
    assert all(figures == (1.0, 1.0) for figures in result.values())


def test_average_precision_of_a_case_by_hand():
    """Hits 1, 0, 1, 1, 0 of four boxes: the area under the envelope is 0.625."""
    places = [(10.0 * i, 0, 0) for i in range(4)]
    size = np.ones((4, 3))
    truths = {7: (np.zeros(4, int), Boxes(np.array(places), size, np.zeros(4)))}
    nowhere = box((0, 100, 0), (1, 1, 1))
    hits = [found_of(7, 0, 0.9 - 0.1 * i, truths[7][1], i) for i in range(3)]
    misses = [found_of(7, 0, score, nowhere) for score in (0.85, 0.1)]
    result = boxes3d.average_precision(truths, [*misses, *hits], 0.25)
    assert result[0] == (pytest.approx(0.625), 0.75)
    # Of a class without truth nothing is told; one without predictions has 0.
    other = [found_of(7, 3, 0.5, nowhere)]
    assert boxes3d.average_precision(truths, other, 0.25) == {0: (0.0, 0.0)}
    # A second prediction of the same box is wrong.
    twice = [hits[0], hits[0]._replace(score=0.95)]
    assert boxes3d.average_precision(truths, twice, 0.25)[0] == (0.25, 0.25)
    # Another scene's box is no match.
    elsewhere = [each._replace(scene=8) for each in hits]
    assert boxes3d.average_precision(truths, elsewhere, 0.25)[0] == (0.0, 0.0)
