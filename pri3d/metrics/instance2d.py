"""ScanNet's measure of 2D instance segmentation: average precision over pixel masks.

It follows the benchmark's script (Dai et al., CVPR 2017) and differs from COCO: a match needs an
IoU *above* the threshold; of several predictions that match one object, the one with the highest
score is correct and the others are wrong; a prediction without a match is ignored if it mostly
covers objects that are too small to count (but not if it covers pixels without annotation: the
script's mask of them is always empty); and the area under the precision curve is summed over the
midpoints of recall.
"""

from typing import NamedTuple

import numpy as np

THRESHOLDS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist())
MIN_PIXELS = 100  # of an object that counts


class Predicted(NamedTuple):
    """One predicted object: mask bool [H, W], class 1..K, and score."""

    mask: np.ndarray
    kind: int
    score: float


class Match(NamedTuple):
    """The result of one image for one class and threshold.

    scores, correct: of the predictions that count; objects: number of objects; missed: number of
    objects without a match.
    """

    scores: list[float]
    correct: list[bool]
    objects: int
    missed: int


class InstanceAP:
    """Average precision over images: `add` one after another, then `result`.

    Args:
        classes: number K of classes.
    """

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
        """Add one image.

        Args:
            number: i32 [H, W], the object of each pixel, 0 for none.
            class_of: the class of each object.
            predictions: for this image.
        """
        size = np.bincount(number.ravel(), minlength=max(class_of, default=0) + 1)
        class_of = {n: kind for n, kind in class_of.items() if size[n]}
        shared = [np.bincount(number[p.mask], minlength=len(size)) for p in predictions]
        area = [int(p.mask.sum()) for p in predictions]
        for kind in range(1, self.classes + 1):
            objects = [n for n, its_kind in class_of.items() if its_kind == kind]
            own = [i for i, p in enumerate(predictions) if p.kind == kind]
            small = [n for n in objects if size[n] < MIN_PIXELS]
            large = [n for n in objects if size[n] >= MIN_PIXELS]
            iou = {
                (i, n): shared[i][n] / (area[i] + size[n] - shared[i][n])
                for i in own
                for n in large
                if shared[i][n]
            }
            if not own and not large:
                continue
            on_small = {i: sum(int(shared[i][n]) for n in small) / max(area[i], 1) for i in own}
            for threshold in THRESHOLDS:
                self.matches[kind, threshold].append(
                    _match(own, large, iou, on_small, predictions, threshold)
                )

    def result(self) -> dict[str, np.ndarray]:
        """ap and ap50, f64 [K] each; nan for a class without objects."""
        table = np.array(
            [
                [_average_precision(self.matches[kind, threshold]) for threshold in THRESHOLDS]
                for kind in range(1, self.classes + 1)
            ]
        )
        return {"ap": table.mean(axis=1), "ap50": table[:, 0]}


def _match(
    own: list[int],
    objects: list[int],
    iou: dict[tuple[int, int], float],
    on_small: dict[int, float],
    predictions: list[Predicted],
    threshold: float,
) -> Match:
    """Match the predictions of one class (rows `own`) with its objects.

    iou: (prediction, object) -> overlap; on_small: prediction -> its share on small objects.
    """
    scores: list[float] = []
    correct: list[bool] = []
    matched: set[int] = set()
    missed = 0
    for n in objects:
        candidates = [i for i in own if iou.get((i, n), 0) > threshold]
        matched.update(candidates)
        candidates.sort(key=lambda i: -predictions[i].score)
        missed += not candidates
        scores += [predictions[i].score for i in candidates]
        correct += [rank == 0 for rank in range(len(candidates))]
    for i in own:
        if i not in matched and on_small[i] <= threshold:
            scores.append(predictions[i].score)
            correct.append(False)
    return Match(scores, correct, len(objects), missed)


def _average_precision(matches: list[Match]) -> float:
    objects = sum(match.objects for match in matches)
    if not objects:
        return float("nan")
    scores = np.array([score for match in matches for score in match.scores])
    correct = np.array([good for match in matches for good in match.correct], bool)
    if not len(scores):
        return 0.0
    missed = sum(match.missed for match in matches)
    order = np.argsort(scores)
    scores, correct = scores[order], correct[order]
    # One point of the curve for each distinct score: all predictions with at least this score.
    _, first = np.unique(scores, return_index=True)
    correct_below = np.append(0, np.cumsum(correct))[first]
    correct_above = correct.sum() - correct_below
    above = len(scores) - first
    precision = np.append(correct_above / above, 1.0)
    recall = np.append(correct_above / (correct.sum() + missed), 0.0)
    # Each point counts for half of the distance to both neighbors.
    padded = np.concatenate([[recall[0]], recall, [0.0]])
    width = np.convolve(padded, [-0.5, 0, 0.5], "valid")
    return float(precision @ width)
