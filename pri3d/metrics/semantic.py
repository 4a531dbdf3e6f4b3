"""Semantic segmentation: confusion of all pixels, and what two published rules make of it.

Labels are 0 (nothing annotated, or no class of the task) and 1..K. Confusion is i64
[K + 1, K + 1]: row the truth, column the prediction.
"""

from typing import NamedTuple

import numpy as np


class Semantic(NamedTuple):
    """Shares 0..1. iou: f64 [K], nan for a class that the rule leaves out of the mean.

    mean_accuracy: mean over the classes that occur of the share of their pixels that is right.
    """

    iou: np.ndarray
    mean_iou: float
    pixel_accuracy: float
    mean_accuracy: float


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """i64 [K + 1, K + 1] of two label images of one size, with K classes.

    Raises ValueError when the sizes differ or a label is above K.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"labels of {truth.shape} and {predicted.shape} pixels")
    if max(truth.max(initial=0), predicted.max(initial=0)) > classes:
        raise ValueError(f"a label above {classes}")
    both = truth.astype(np.int64).ravel() * (classes + 1) + predicted.ravel()
    return np.bincount(both, minlength=(classes + 1) ** 2).reshape(classes + 1, classes + 1)


def scannet(confusion: np.ndarray) -> Semantic:
    """The rule of ScanNet's benchmark (Dai et al., CVPR 2017; its 2D evaluation script).

    What is predicted where nothing is annotated costs nothing; predicting nothing where a class is
    costs that class. A class that neither is there nor is predicted is left out of the mean.
    """
    annotated = confusion[1:]
    right = np.diagonal(annotated[:, 1:]).astype(float)
    truth, predicted = annotated.sum(axis=1), annotated[:, 1:].sum(axis=0)
    union = truth + predicted - right
    iou = np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)
    return _summary(iou, right, truth)


def pri3d(confusion: np.ndarray) -> Semantic:
    """The rule of Pri3D's published code (Hou et al., ICCV 2021).

    Pixels without annotation *or* without prediction do not count at all; a class that does not
    occur has IoU 0 and stays in the mean.
    """
    inner = confusion[1:, 1:]
    right, truth = np.diagonal(inner).astype(float), inner.sum(axis=1)
    iou = right / (truth + inner.sum(axis=0) - right + 1e-15)
    return _summary(iou, right, truth)


RULES = {"scannet": scannet, "pri3d": pri3d}


def _summary(iou: np.ndarray, right: np.ndarray, truth: np.ndarray) -> Semantic:
    there = truth > 0
    nothing = float("nan")
    return Semantic(
        iou,
        float(np.nanmean(iou)) if not np.isnan(iou).all() else nothing,
        float(right.sum() / truth.sum()) if there.any() else nothing,
        float((right[there] / truth[there]).mean()) if there.any() else nothing,
    )
