"""ScanNet's average precision of 2D objects, against its definitions written out naively."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pri3d.metrics.instance2d import MIN_PIXELS, THRESHOLDS, InstanceAP, Predicted

SHAPE = 60, 80
CLASSES = 2


def random_image(rng, masks=4):
    """Objects that do not overlap (some too small to count), and predictions near them."""
    number, class_of = np.zeros(SHAPE, np.int32), {}
    for n in range(1, masks + 1):
        height, width = rng.integers(4, 26, 2)
        top, left = rng.integers(0, SHAPE[0] - height), rng.integers(0, SHAPE[1] - width)
        number[top : top + height, left : left + width] = n
        class_of[n] = int(rng.integers(1, CLASSES + 1))
    class_of = {n: kind for n, kind in class_of.items() if (number == n).any()}
    predictions = []
    for n, kind in class_of.items():
        for _ in range(rng.integers(0, 3)):
            mask = np.roll(number == n, rng.integers(-4, 5, 2), axis=(0, 1))
            kind = kind if rng.random() < 0.8 else 3 - kind
            # Few different scores, so that some are equal.
            predictions.append(Predicted(mask, kind, float(rng.integers(1, 6)) / 5))
    return number, class_of, predictions


def naive(images, kind, threshold):
    """The script's rules, one object and prediction at a time, and its curve point by point."""
    scores, right, missed, objects = [], [], 0, 0
    for number, class_of, predictions in images:
        mine = [p for p in predictions if p.kind == kind]
        wanted = [n for n, k in class_of.items() if k == kind]
        large = [n for n in wanted if (number == n).sum() >= MIN_PIXELS]
        matched = set()
        for n in large:
            objects += 1
            truth = number == n
            hits = [
                (i, p)
                for i, p in enumerate(mine)
                if (truth & p.mask).sum() / (truth | p.mask).sum() > threshold
            ]
            matched |= {i for i, _ in hits}
            if not hits:
                missed += 1
                continue
            best = max(p.score for _, p in hits)
            scores.append(best)
            right.append(True)
            rest = sorted((p.score for _, p in hits), reverse=True)[1:]
            scores += rest
            right += [False] * len(rest)
        for i, p in enumerate(mine):
            if i in matched:
                continue
            passed_over = sum((p.mask & (number == n)).sum() for n in wanted if n not in large)
            if passed_over / p.mask.sum() <= threshold:
                scores.append(p.score)
                right.append(False)
    if not objects:
        return float("nan")
    if not scores:
        return 0.0
    scores, right = np.array(scores), np.array(right)
    points = []
    for least in sorted(set(scores)):
        found = right[scores >= least].sum()
        points.append((found / (scores >= least).sum(), found / (right.sum() + missed)))
    points.append((1.0, 0.0))
    area = 0.0
    recalls = [points[0][1], *(recall for _, recall in points), 0.0]
    for i, (precision, _) in enumerate(points):
        area += precision * (recalls[i] - recalls[i + 2]) / 2
    return area


@given(st.integers(0, 100_000))
@settings(max_examples=25, deadline=None)
def test_against_the_definitions(seed):
    rng = np.random.default_rng(seed)
    images = [random_image(rng) for _ in range(3)]
    measured = InstanceAP(CLASSES)
    for image in images:
        measured.add(*image)
    result = measured.result()
    for kind in range(1, CLASSES + 1):
        expected = [naive(images, kind, threshold) for threshold in THRESHOLDS]
        np.testing.assert_allclose(result["ap"][kind - 1], np.mean(expected))
        np.testing.assert_allclose(result["ap50"][kind - 1], expected[0])


def test_the_truth_as_prediction_is_perfect():
    rng = np.random.default_rng(3)
    measured = InstanceAP(CLASSES)
    for _ in range(4):
        number, class_of, _ = random_image(rng)
        measured.add(
            number, class_of, [Predicted(number == n, kind, 0.7) for n, kind in class_of.items()]
        )
    np.testing.assert_allclose(measured.result()["ap"], 1.0)


def test_an_overlap_of_exactly_the_threshold_is_no_match():
    number = np.zeros(SHAPE, np.int32)
    number[:20, :20] = 1
    mask = np.zeros(SHAPE, bool)
    mask[:20, :10] = True  # half of the object
    measured = InstanceAP(1)
    measured.add(number, {1: 1}, [Predicted(mask, 1, 0.9)])
    assert measured.result()["ap50"][0] == 0


def test_a_case_worked_out_by_hand():
    """Three objects of 400 pixels and one of 64, which does not count. Predictions, by certainty:
    0.9 right, 0.8 on nothing, 0.7 right, 0.7 right again on the first (a double), 0.6 on the small
    one alone. The third object is missed.

    Points of the curve (precision, recall) for certainties from 0.7, 0.8, 0.9: (2/4, 2/3),
    (1/2, 1/3), (1/1, 1/3), and (1, 0). Each counts for half the way between its neighbours:
    2/4 * (2/3 - 1/3) / 2 + 1/2 * (2/3 - 1/3) / 2 + 1 * (1/3 - 0) / 2 + 1 * (1/3 - 0) / 2 = 1/2.
    """
    number = np.zeros(SHAPE, np.int32)
    for n, left in ((1, 0), (2, 25), (3, 50)):
        number[:20, left : left + 20] = n
    number[40:48, :8] = 4
    nothing = np.zeros(SHAPE, bool)
    nothing[45:, 40:] = True
    predictions = [
        Predicted(number == 1, 1, 0.9),
        Predicted(nothing, 1, 0.8),
        Predicted(number == 2, 1, 0.7),
        Predicted(number == 1, 1, 0.7),
        Predicted(number == 4, 1, 0.6),
    ]
    measured = InstanceAP(1)
    measured.add(number, {1: 1, 2: 1, 3: 1, 4: 1}, predictions)
    assert measured.result()["ap50"][0] == pytest.approx(0.5)


def test_an_object_that_vanished_in_resizing_is_none():
    measured = InstanceAP(1)
    measured.add(np.zeros(SHAPE, np.int32), {7: 1}, [])
    assert np.isnan(measured.result()["ap"][0])


def test_classes_without_objects_have_no_figure():
    measured = InstanceAP(2)
    number = np.zeros(SHAPE, np.int32)
    number[:20, :20] = 1
    measured.add(number, {1: 1}, [])
    result = measured.result()
    assert result["ap"][0] == 0
    assert np.isnan(result["ap"][1])
