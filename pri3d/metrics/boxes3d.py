"""3D boxes (`pri3d.boxes`): overlap, non-maximum suppression and average precision.

Shapes: N, M boxes, P points.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from pri3d.boxes import Boxes, corners


class PredictedBox(NamedTuple):
    """One predicted box.

    scene: any number; kind: its class; score; center, size: [3] in meters; heading: radians.
    """

    scene: int
    kind: int
    score: float
    center: np.ndarray
    size: np.ndarray
    heading: float


def iou(a: Boxes, b: Boxes) -> np.ndarray:
    """Intersection over union of all pairs of boxes, float64 [N, M]; 0 if both have no volume.

    Footprints are intersected as polygons, heights as intervals.
    """
    out = np.zeros((len(a.heading), len(b.heading)))
    footprint_a = np.ascontiguousarray(corners(a)[:, :4, :2])
    footprint_b = np.ascontiguousarray(corners(b)[:, :4, :2])
    _iou(footprint_a, footprint_b, a.center[:, 2], a.size, b.center[:, 2], b.size, out)
    return out


@njit(cache=True, nogil=True)
def _iou(footprint_a, footprint_b, z_a, size_a, z_b, size_b, out):
    for i in range(len(footprint_a)):
        for j in range(len(footprint_b)):
            top = min(z_a[i] + size_a[i, 2] / 2, z_b[j] + size_b[j, 2] / 2)
            bottom = max(z_a[i] - size_a[i, 2] / 2, z_b[j] - size_b[j, 2] / 2)
            if top <= bottom:
                continue
            both = _common_area(footprint_a[i], footprint_b[j]) * (top - bottom)
            volume_a = size_a[i, 0] * size_a[i, 1] * size_a[i, 2]
            volume_b = size_b[j, 0] * size_b[j, 1] * size_b[j, 2]
            union = volume_a + volume_b - both
            if union > 0:
                out[i, j] = both / union


@njit(cache=True, nogil=True)
def _common_area(subject, clip):
    """Area common to two convex polygons [4, 2], both clockwise (Sutherland-Hodgman)."""
    polygon, count = np.empty((12, 2)), 4
    polygon[:4] = subject
    other = np.empty((12, 2))
    for k in range(4):
        ax, ay = clip[k - 1]
        bx, by = clip[k]
        kept = 0
        for i in range(count):
            px, py = polygon[i - 1] if i else polygon[count - 1]
            qx, qy = polygon[i]
            p = (bx - ax) * (py - ay) - (by - ay) * (px - ax)
            q = (bx - ax) * (qy - ay) - (by - ay) * (qx - ax)
            if (p <= 0) != (q <= 0):  # the edge crosses the line
                t = p / (p - q)
                other[kept, 0], other[kept, 1] = px + t * (qx - px), py + t * (qy - py)
                kept += 1
            if q <= 0:
                other[kept, 0], other[kept, 1] = qx, qy
                kept += 1
        count = kept
        if count == 0:
            return 0.0
        polygon[:count] = other[:count]
    area = 0.0
    for i in range(count):
        px, py = polygon[i - 1] if i else polygon[count - 1]
        area += px * polygon[i, 1] - py * polygon[i, 0]
    return abs(area) / 2


def suppress(
    hull_N: np.ndarray,
    score_N: np.ndarray,
    threshold: float,
    kind_N: np.ndarray | None = None,
    of_smaller: bool = False,
) -> np.ndarray:
    """Non-maximum suppression: drop each box that overlaps one with a higher score.

    Args:
        hull_N: [N, 2 * D], the min then the max corner of each box in D dimensions.
        score_N: scores.
        threshold: of the overlap.
        kind_N: classes; boxes of different classes do not suppress each other. Default: all do.
        of_smaller: measure overlap as a share of the box with the lower score, not as IoU.

    Returns:
        Rows int64 of the remaining boxes, the highest score first.
    """
    dimensions = hull_N.shape[1] // 2
    low, high = hull_N[:, :dimensions], hull_N[:, dimensions:]
    volume = (high - low).prod(axis=1)
    order, picked = np.argsort(score_N, kind="stable")[::-1], []
    while len(order):
        best, rest = order[0], order[1:]
        picked.append(best)
        sides = np.minimum(high[best], high[rest]) - np.maximum(low[best], low[rest])
        both = np.clip(sides, 0, None).prod(axis=1)
        share = both / (volume[rest] if of_smaller else volume[best] + volume[rest] - both)
        if kind_N is not None:
            share = share * (kind_N[rest] == kind_N[best])
        order = rest[~(share > threshold)]
    return np.array(picked, np.int64)


def average_precision(
    truths: dict[int, tuple[np.ndarray, Boxes]], predictions: list[PredictedBox], threshold: float
) -> dict[int, tuple[float, float]]:
    """Average precision by the rule of VoteNet's evaluation.

    The predictions of a class are matched in order of their scores, over all scenes: each with the
    box of its scene that it overlaps most, if their IoU is above the threshold and the box is not
    matched yet. The average precision is the area under the precision envelope (PASCAL VOC since
    2010).

    Args:
        truths: scene -> (classes int [N], boxes).
        predictions: of all scenes.
        threshold: of the IoU.

    Returns:
        Class -> (average precision, recall) of all classes that occur in the truth.
    """
    kinds = sorted({int(kind) for classes, _ in truths.values() for kind in classes})
    return {kind: _of_class(truths, predictions, kind, threshold) for kind in kinds}


def _of_class(
    truths: dict[int, tuple[np.ndarray, Boxes]],
    predictions: list[PredictedBox],
    kind: int,
    threshold: float,
) -> tuple[float, float]:
    true_boxes: dict[int, Boxes] = {}
    is_matched: dict[int, np.ndarray] = {}
    number = 0
    for scene, (classes, boxes) in truths.items():
        rows = np.flatnonzero(np.asarray(classes) == kind)
        true_boxes[scene] = Boxes(boxes.center[rows], boxes.size[rows], boxes.heading[rows])
        is_matched[scene] = np.zeros(len(rows), bool)
        number += len(rows)
    candidates = [box for box in predictions if box.kind == kind]
    order = np.argsort([-box.score for box in candidates], kind="stable")
    correct = np.zeros(len(order), bool)
    for position, index in enumerate(order):
        box = candidates[index]
        if box.scene not in true_boxes or not len(is_matched[box.scene]):
            continue
        own = Boxes(box.center[None], box.size[None], np.array([box.heading]))
        overlap = iou(own, true_boxes[box.scene])[0]
        best = int(overlap.argmax())
        if overlap[best] > threshold and not is_matched[box.scene][best]:
            is_matched[box.scene][best] = correct[position] = True
    if not len(order):
        return 0.0, 0.0
    true = np.cumsum(correct)
    recall, precision = true / number, true / np.arange(1, len(order) + 1)
    return area_under_envelope(recall, precision), float(recall[-1])


def area_under_envelope(recall: np.ndarray, precision: np.ndarray) -> float:
    """The area under the envelope: at each recall, the max precision at this or a higher recall."""
    recall = np.concatenate([[0], recall, [1]])
    precision = np.concatenate([[0], precision, [0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(((recall[1:] - recall[:-1]) * envelope[1:]).sum())
