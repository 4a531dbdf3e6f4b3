"""ScanNet's average precision of 2D objects, against its definitions written out naively."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pri3d.metrics.instance2d import LEAST_PIXELS, THRESHOLDS, InstanceAP, Predicted

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


def naive(images, kind, threshold, ignored=None):
    """The script's rules, one object and prediction at a time, and its curve point by point."""
    scores, right, missed, objects = [], [], 0, 0
    for number, class_of, predictions in images:
        mine = [p for p in predictions if p.kind == kind]
        wanted = [n for n, k in class_of.items() if k == kind]
        large = [n for n in wanted if (number == n).sum() >= LEAST_PIXELS]
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
            if ignored is not None:
                passed_over += (p.mask & ignored).sum()
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


def test_predictions_on_what_is_to_be_ignored_are_passed_over():
    number, ignored = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, bool)
    number[:20, :20] = 1
    ignored[30:, 30:] = True
    right, void = Predicted(number == 1, 1, 0.5), Predicted(ignored, 1, 0.9)
    alone = naive([(number, {1: 1}, [right, void])], 1, 0.5)
    assert alone < 1
    for pixels, expected in ((None, alone), (ignored, 1.0)):
        measured = InstanceAP(1)
        measured.add(number, {1: 1}, [right, void], pixels)
        assert measured.result()["ap50"][0] == pytest.approx(expected)


def test_classes_without_objects_have_no_figure():
    measured = InstanceAP(2)
    number = np.zeros(SHAPE, np.int32)
    number[:20, :20] = 1
    measured.add(number, {1: 1}, [])
    result = measured.result()
    assert result["ap"][0] == 0
    assert np.isnan(result["ap"][1])
