"""Semantic segmentation: the confusion matrix, and two published rules to summarize it.

Labels are 1..K, and 0 for pixels that are not annotated or belong to no class of the task. The
confusion matrix is i64 [K + 1, K + 1]; rows are the truth, columns the prediction.
"""

from typing import NamedTuple

import numpy as np


class Semantic(NamedTuple):
    """Figures in 0..1.

    iou: f64 [K], nan for a class that the rule excludes from the mean. mean_accuracy: the share of
    correct pixels of each class that occurs, averaged over these classes.
    """

    iou: np.ndarray
    mean_iou: float
    pixel_accuracy: float
    mean_accuracy: float


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The confusion matrix i64 [K + 1, K + 1] of two label arrays of the same shape.

    Raises:
        ValueError: the shapes differ, or a label is above K = `classes`.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"labels of {truth.shape} and {predicted.shape} pixels")
    if max(truth.max(initial=0), predicted.max(initial=0)) > classes:
        raise ValueError(f"a label above {classes}")
    both = truth.astype(np.int64).ravel() * (classes + 1) + predicted.ravel()
    return np.bincount(both, minlength=(classes + 1) ** 2).reshape(classes + 1, classes + 1)


def scannet(confusion: np.ndarray) -> Semantic:
    """The rule of ScanNet's benchmark (Dai et al., CVPR 2017; its 2D evaluation script).

    Pixels without annotation do not count. Predicting no class at an annotated pixel counts against
    its class. A class that neither occurs nor is predicted is excluded from the mean.
    """
    annotated = confusion[1:]
    correct = np.diagonal(annotated[:, 1:]).astype(float)
    truth, predicted = annotated.sum(axis=1), annotated[:, 1:].sum(axis=0)
    union = truth + predicted - correct
    iou = np.divide(correct, union, out=np.full(len(correct), np.nan), where=union > 0)
    return _summary(iou, correct, truth)


def pri3d(confusion: np.ndarray) -> Semantic:
    """The rule of Pri3D's published code (Hou et al., ICCV 2021).

    Pixels without annotation *or* without prediction do not count. A class that does not occur has
    IoU 0 and is included in the mean.
    """
    inner = confusion[1:, 1:]
    correct, truth = np.diagonal(inner).astype(float), inner.sum(axis=1)
    iou = correct / (truth + inner.sum(axis=0) - correct + 1e-15)
    return _summary(iou, correct, truth)


RULES = {"scannet": scannet, "pri3d": pri3d}


def _summary(iou: np.ndarray, correct: np.ndarray, truth: np.ndarray) -> Semantic:
    occurs = truth > 0
    nan = float("nan")
    return Semantic(
        iou,
        float(np.nanmean(iou)) if not np.isnan(iou).all() else nan,
        float(correct.sum() / truth.sum()) if occurs.any() else nan,
        float((correct[occurs] / truth[occurs]).mean()) if occurs.any() else nan,
    )
