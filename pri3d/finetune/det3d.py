"""Detection of objects in clouds with VoteNet: from proposals to boxes."""

import numpy as np
import torch
from torch import Tensor

from pri3d.metrics import boxes3d
from pri3d.metrics.boxes3d import Boxes, Found
from pri3d.models.votenet import Proposals, boxes_of

LEAST_POINTS = 5  # a box with fewer is empty


def predictions(
    proposals: Proposals,
    mean_size_Z3: Tensor,
    scene: int,
    cloud: np.ndarray | None = None,
    by_class: bool = True,
    all_classes: bool = True,
    in_plane: bool = False,
    of_smaller: bool = False,
    threshold: float = 0.25,
    least: float = 0.05,
) -> tuple[np.ndarray, list[Found]]:
    """Which proposals [K] of a scene of the batch remain, and the boxes that they are.

    cloud: the scene's points [P, 3]; boxes with fewer than five are left out. by_class: only boxes
    of one class suppress each other. all_classes: every box is given for every class, with the
    class's probability as a factor of its score. in_plane: suppression by the footprints' hulls,
    and of_smaller as in `boxes3d.suppress`. least: lowest score of an object.
    """
    center, size, heading = (
        part[scene].detach().double().cpu().numpy() for part in boxes_of(proposals, mean_size_Z3)
    )
    boxes = Boxes(center, size, heading)
    score = torch.softmax(proposals.objectness[scene].detach().double(), dim=1)[:, 1].cpu().numpy()
    kinds = torch.softmax(proposals.classes[scene].detach().double(), dim=1).cpu().numpy()
    kind = kinds.argmax(axis=1)
    rows = np.arange(len(score))
    if cloud is not None:
        number = [boxes3d.inside(cloud, *box).sum() for box in zip(center, size, heading)]
        rows = rows[np.array(number) >= LEAST_POINTS]
    hull = boxes3d.hulls(boxes)[rows]
    if in_plane:
        hull = hull[:, [0, 1, 3, 4]]
    same = kind[rows] if by_class and not in_plane else None
    picked = rows[boxes3d.suppress(hull, score[rows], threshold, same, of_smaller)]
    remains = np.zeros(len(score), bool)
    remains[picked] = True
    kept = np.flatnonzero(remains & (score > least))

    def found(row: int, cls: int, value: float) -> Found:
        return Found(scene, int(cls), float(value), center[row], size[row], float(heading[row]))

    if all_classes:
        every = range(kinds.shape[1])
        return remains, [found(i, cls, kinds[i, cls] * score[i]) for cls in every for i in kept]
    return remains, [found(i, kind[i], score[i]) for i in kept]
