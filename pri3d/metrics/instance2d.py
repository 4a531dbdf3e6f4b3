"""ScanNet's own measure of 2D instance segmentation: average precision over pixel masks.

As the benchmark's script (Dai et al., CVPR 2017) defines it, and not as COCO does: a match needs an
IoU *above* the threshold; of several predictions that match one object the most certain is right
and the others are wrong; a prediction without a match is passed over when it mostly covers objects
that are too small to count (pixels without annotation are no excuse: the script's mask of them is
always empty); and the area under the curve of precision is summed over the midpoints of recall.
"""

from typing import NamedTuple

import numpy as np

THRESHOLDS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist())
LEAST_PIXELS = 100


class Predicted(NamedTuple):
    """One predicted object: mask bool [H, W], its class 1..K, and how certain it is."""

    mask: np.ndarray
    kind: int
    score: float


class Match(NamedTuple):
    """What one image adds for one class and threshold.

    scores and right: of the predictions that count. missed: objects that nothing matched.
    """

    scores: list[float]
    right: list[bool]
    objects: int
    missed: int


class InstanceAP:
    """Feed images one by one, then ask for `result`. classes: K."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.matches: dict[tuple[int, float], list[Match]] = {
            (kind, threshold): [] for kind in range(1, classes + 1) for threshold in THRESHOLDS
        }

    def add(
        self,
        number: np.ndarray,
        class_of: dict[int, int],
        predictions: list[Predicted],
    ) -> None:
        """number i32 [H, W]: the objects (0 none), class_of: class of each."""
        size = np.bincount(number.ravel(), minlength=max(class_of, default=0) + 1)
        class_of = {n: kind for n, kind in class_of.items() if size[n]}
        shared = [np.bincount(number[p.mask], minlength=len(size)) for p in predictions]
        area = [int(p.mask.sum()) for p in predictions]
        for kind in range(1, self.classes + 1):
            objects = [n for n, of in class_of.items() if of == kind]
            mine = [i for i, p in enumerate(predictions) if p.kind == kind]
            small = [n for n in objects if size[n] < LEAST_PIXELS]
            large = [n for n in objects if size[n] >= LEAST_PIXELS]
            iou = {
                (i, n): shared[i][n] / (area[i] + size[n] - shared[i][n])
                for i in mine
                for n in large
                if shared[i][n]
            }
            if not mine and not large:
                continue
            passed_over = {i: sum(int(shared[i][n]) for n in small) / max(area[i], 1) for i in mine}
            for threshold in THRESHOLDS:
                self.matches[kind, threshold].append(
                    _match(mine, large, iou, passed_over, predictions, threshold)
                )

    def result(self) -> dict[str, np.ndarray]:
        """ap and ap50: f64 [K], nan for a class that has no object, which the mean passes over."""
        table = np.array(
            [
                [_average_precision(self.matches[kind, threshold]) for threshold in THRESHOLDS]
                for kind in range(1, self.classes + 1)
            ]
        )
        return {"ap": table.mean(axis=1), "ap50": table[:, 0]}


def _match(mine, objects, iou, passed_over, predictions, threshold) -> Match:
    scores, right, taken, missed = [], [], set(), 0
    for n in objects:
        found = [i for i in mine if iou.get((i, n), 0) > threshold]
        taken.update(found)
        found.sort(key=lambda i: -predictions[i].score)
        missed += not found
        scores += [predictions[i].score for i in found]
        right += [position == 0 for position in range(len(found))]
    for i in mine:
        if i not in taken and passed_over[i] <= threshold:
            scores.append(predictions[i].score)
            right.append(False)
    return Match(scores, right, len(objects), missed)


def _average_precision(matches: list[Match]) -> float:
    objects = sum(match.objects for match in matches)
    if not objects:
        return float("nan")
    scores = np.array([score for match in matches for score in match.scores])
    right = np.array([good for match in matches for good in match.right], bool)
    if not len(scores):
        return 0.0
    missed = sum(match.missed for match in matches)
    order = np.argsort(scores)
    scores, right = scores[order], right[order]
    # One point of the curve for each distinct score: everything at least as certain.
    _, first = np.unique(scores, return_index=True)
    right_before = np.append(0, np.cumsum(right))[first]
    right_from = right.sum() - right_before
    from_here = len(scores) - first
    precision = np.append(right_from / from_here, 1.0)
    recall = np.append(right_from / (right.sum() + missed), 0.0)
    # Each point counts for half of the way to its two neighbours.
    padded = np.concatenate([[recall[0]], recall, [0.0]])
    width = np.convolve(padded, [-0.5, 0, 0.5], "valid")
    return float(precision @ width)
