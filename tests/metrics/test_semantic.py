"""IoU against torchmetrics and against the published rules written out pixel by pixel."""

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st

from pri3d.metrics.semantic import confusion, pri3d, scannet

CLASSES = 5


def images(seed, highest=CLASSES):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, highest + 1, (20, 30))
    predicted = np.where(
        rng.random(truth.shape) < 0.5, truth, rng.integers(0, CLASSES + 1, truth.shape)
    )
    return truth.astype(np.uint8), predicted.astype(np.uint8)


@given(st.integers(0, 10_000))
@settings(max_examples=40)
def test_confusion_counts_pixels(seed):
    truth, predicted = images(seed)
    expected = [
        [int(((truth == t) & (predicted == p)).sum()) for p in range(CLASSES + 1)]
        for t in range(CLASSES + 1)
    ]
    assert confusion(truth, predicted, CLASSES).tolist() == expected


@given(st.integers(0, 10_000), st.integers(1, CLASSES))
@settings(max_examples=40)
def test_scannets_rule_pixel_by_pixel(seed, highest):
    truth, predicted = images(seed, highest)
    figures = scannet(confusion(truth, predicted, CLASSES))
    known = truth > 0
    for k in range(1, CLASSES + 1):
        right = (known & (truth == k) & (predicted == k)).sum()
        missed = (known & (truth == k) & (predicted != k)).sum()  # also where 0 is predicted
        wrong = (known & (truth != k) & (predicted == k)).sum()  # not where nothing is annotated
        if right + missed + wrong:
            assert figures.iou[k - 1] == pytest.approx(right / (right + missed + wrong))
        else:
            assert np.isnan(figures.iou[k - 1])
    assert figures.mean_iou == pytest.approx(np.nanmean(figures.iou))
    assert figures.pixel_accuracy == pytest.approx((truth == predicted)[known].mean())
    shares = [(predicted == k)[truth == k].mean() for k in np.unique(truth[known])]
    assert figures.mean_accuracy == pytest.approx(np.mean(shares))


@given(st.integers(0, 10_000), st.integers(1, CLASSES))
@settings(max_examples=40)
def test_pri3ds_rule_pixel_by_pixel(seed, highest):
    truth, predicted = images(seed, highest)
    figures = pri3d(confusion(truth, predicted, CLASSES))
    both = (truth > 0) & (predicted > 0)
    for k in range(1, CLASSES + 1):
        right = (both & (truth == k) & (predicted == k)).sum()
        union = (both & ((truth == k) | (predicted == k))).sum()
        assert figures.iou[k - 1] == pytest.approx(right / union if union else 0)
    assert figures.mean_iou == pytest.approx(figures.iou.mean())


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_both_rules_are_torchmetrics_where_everything_is_predicted(seed):
    truth, predicted = images(seed)
    predicted = np.maximum(predicted, 1)
    truth[:2, :CLASSES] = np.arange(1, CLASSES + 1)  # every class occurs
    table = confusion(truth, predicted, CLASSES)
    target = torch.from_numpy(truth.astype(int)) - 1
    found = torch.from_numpy(predicted.astype(int)) - 1
    options = {"num_classes": CLASSES, "ignore_index": -1, "average": "none"}
    expected = torchmetrics.multiclass_jaccard_index(found, target, **options).numpy()
    for rule in (scannet, pri3d):
        np.testing.assert_allclose(rule(table).iou, expected, rtol=1e-6)
    accuracy = torchmetrics.multiclass_accuracy(found, target, **options).numpy()
    assert scannet(table).mean_accuracy == pytest.approx(accuracy.mean(), rel=1e-6)


def test_nothing_annotated_is_no_figure():
    zero = np.zeros((4, 4), np.uint8)
    figures = scannet(confusion(zero, zero + 1, CLASSES))
    assert np.isnan([figures.mean_iou, figures.pixel_accuracy, figures.mean_accuracy]).all()


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="labels of"):
        confusion(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), CLASSES)
    with pytest.raises(ValueError, match="a label above 5"):
        confusion(np.full((2, 2), 6, np.uint8), np.zeros((2, 2), np.uint8), CLASSES)
