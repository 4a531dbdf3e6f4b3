"""Boxes in space (`pri3d.boxes`): overlap, non-maximum suppression and average precision.

Shapes: N, M boxes, P points.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from pri3d.boxes import Boxes, corners


class Found(NamedTuple):
    """One predicted box of a class: scene (any number), kind, score, and the box as arrays [3],
    [3] and a float.
    """

    scene: int
    kind: int
    score: float
    center: np.ndarray
    size: np.ndarray
    heading: float


def iou(a: Boxes, b: Boxes) -> np.ndarray:
    """Intersection over union of all pairs of boxes, float64 [N, M]; two without volume have 0.

    Footprints are clipped as polygons; heights overlap as intervals.
    """
    out = np.zeros((len(a.heading), len(b.heading)))
    feet = [np.ascontiguousarray(corners(boxes)[:, :4, :2]) for boxes in (a, b)]
    _iou(*feet, a.center[:, 2], a.size, b.center[:, 2], b.size, out)
    return out


@njit(cache=True, nogil=True)
def _iou(feet_a, feet_b, z_a, size_a, z_b, size_b, out):
    for i in range(len(feet_a)):
        for j in range(len(feet_b)):
            top = min(z_a[i] + size_a[i, 2] / 2, z_b[j] + size_b[j, 2] / 2)
            bottom = max(z_a[i] - size_a[i, 2] / 2, z_b[j] - size_b[j, 2] / 2)
            if top <= bottom:
                continue
            both = _common_area(feet_a[i], feet_b[j]) * (top - bottom)
            volume_a = size_a[i, 0] * size_a[i, 1] * size_a[i, 2]
            volume_b = size_b[j, 0] * size_b[j, 1] * size_b[j, 2]
            union = volume_a + volume_b - both
            if union > 0:
                out[i, j] = both / union


@njit(cache=True, nogil=True)
def _common_area(subject, clip):
    """Area common to two convex polygons [4, 2], both clockwise (Sutherland and Hodgman)."""
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
    """Rows that remain, the highest score first: a box goes that overlaps a better one by more than
    the threshold.

    hull_N: [N, 2 * D], lowest then highest corner in D dimensions. kind_N: only boxes of one kind
    suppress each other. of_smaller: overlap is the share of the worse box, in place of the IoU.
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
    truths: dict[int, tuple[np.ndarray, Boxes]], found: list[Found], threshold: float
) -> dict[int, tuple[float, float]]:
    """Class -> (average precision, recall) of all classes that occur in the truth.

    truths: scene -> (classes int [N], boxes). Predictions of a class are matched the best first,
    over all scenes, each with the box of its scene that it overlaps most, if that is by more than
    `threshold` IoU and the box is not taken yet. The area under the precision envelope (PASCAL VOC
    since 2010), as VoteNet's evaluation has it.
    """
    kinds = sorted({int(kind) for classes, _ in truths.values() for kind in classes})
    return {kind: _of_class(truths, found, kind, threshold) for kind in kinds}


def _of_class(truths, found, kind: int, threshold: float) -> tuple[float, float]:
    of_scene, number = {}, 0
    for scene, (classes, boxes) in truths.items():
        rows = np.flatnonzero(np.asarray(classes) == kind)
        of_scene[scene] = Boxes(*(part[rows] for part in boxes)), np.zeros(len(rows), bool)
        number += len(rows)
    candidates = [each for each in found if each.kind == kind]
    order = np.argsort([-each.score for each in candidates], kind="stable")
    right = np.zeros(len(order), bool)
    for place, index in enumerate(order):
        each = candidates[index]
        boxes, taken = of_scene.get(each.scene, (None, ()))
        if not len(taken):
            continue
        own = Boxes(each.center[None], each.size[None], np.array([each.heading]))
        overlap = iou(own, boxes)[0]
        best = int(overlap.argmax())
        if overlap[best] > threshold and not taken[best]:
            taken[best] = right[place] = True
    if not len(order):
        return 0.0, 0.0
    true = np.cumsum(right)
    recall, precision = true / number, true / np.arange(1, len(order) + 1)
    return area_under_envelope(recall, precision), float(recall[-1])


def area_under_envelope(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area under the precision that is reached at each recall or a higher one."""
    recall = np.concatenate([[0], recall, [1]])
    precision = np.concatenate([[0], precision, [0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(((recall[1:] - recall[:-1]) * envelope[1:]).sum())
