"""Predicted boxes: what remains of a detector's proposals.

Shapes: K proposals, P points, Z size clusters.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pri3d.boxes import Boxes, hulls, inside
from pri3d.metrics import boxes3d
from pri3d.metrics.boxes3d import PredictedBox
from pri3d.models.votenet import Proposals, boxes_of

MIN_POINTS = 5  # a box with fewer points is empty


class Suppression(NamedTuple):
    """How overlapping proposals suppress each other; the defaults are those of VoteNet's release.

    by_class: only boxes of one class suppress each other. all_classes: every box is predicted for
    every class, its score multiplied by the probability of the class. in_plane: overlap of the
    footprints' hulls instead of the boxes' hulls. of_smaller: see `boxes3d.suppress`.
    iou_threshold: overlap above which the worse box is dropped. min_score: boxes with a lower score
    are dropped.
    """

    by_class: bool = True
    all_classes: bool = True
    in_plane: bool = False
    of_smaller: bool = False
    iou_threshold: float = 0.25
    min_score: float = 0.05


PUBLISHED = Suppression()


def predict_boxes(
    proposals: Proposals,
    mean_size_Z3: Tensor,
    scene: int,
    points_P3: np.ndarray | None = None,
    rule: Suppression = PUBLISHED,
) -> tuple[np.ndarray, list[PredictedBox]]:
    """The boxes of one scene of a batch.

    Args:
        proposals: of the batch.
        mean_size_Z3: mean sizes of the classes, meters.
        scene: index in the batch.
        points_P3: points of the scene, meters; boxes with fewer than five are dropped. None: all
            boxes are kept.
        rule: how proposals suppress each other.

    Returns:
        bool [K], which proposals are not suppressed; and the boxes.
    """
    center, size, heading = (
        part[scene].detach().double().cpu().numpy() for part in boxes_of(proposals, mean_size_Z3)
    )
    boxes = Boxes(center=center, size=size, heading=heading)
    score = torch.softmax(proposals.objectness[scene].detach().double(), dim=1)[:, 1].cpu().numpy()
    probability = torch.softmax(proposals.classes[scene].detach().double(), dim=1).cpu().numpy()
    kind = probability.argmax(axis=1)
    rows = np.arange(len(score))
    if points_P3 is not None:
        number = [inside(points_P3, *box).sum() for box in zip(center, size, heading)]
        rows = rows[np.array(number) >= MIN_POINTS]
    hull = hulls(boxes)[rows]
    if rule.in_plane:
        hull = hull[:, [0, 1, 3, 4]]
    same_kind = kind[rows] if rule.by_class and not rule.in_plane else None
    remaining = boxes3d.suppress(hull, score[rows], rule.iou_threshold, same_kind, rule.of_smaller)
    remains = np.zeros(len(score), bool)
    remains[rows[remaining]] = True
    kept = np.flatnonzero(remains & (score > rule.min_score))

    def box(row: int, cls: int, value: float) -> PredictedBox:
        return PredictedBox(
            scene=scene,
            kind=cls,
            score=value,
            center=center[row],
            size=size[row],
            heading=float(heading[row]),
        )

    rows_kept = kept.tolist()
    if not rule.all_classes:
        return remains, [box(row, int(kind[row]), float(score[row])) for row in rows_kept]
    return remains, [
        box(row, cls, float(probability[row, cls] * score[row]))
        for cls in range(probability.shape[1])
        for row in rows_kept
    ]
