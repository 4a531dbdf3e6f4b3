"""Point clouds with boxes around their objects: the records of a scene and of its classes.

Shapes: N points, K boxes, C classes.
"""

from typing import NamedTuple

import numpy as np

from pri3d.boxes import Boxes


class Scene(NamedTuple):
    """A point cloud with the boxes of its objects.

    points: float64 [N, 3], meters, z up; color: u8 [N, 3]; boxes: K boxes; kind: int64 [K], their
    classes from 0. member: int32 [N, 3], the boxes that each point belongs to: the first of them in
    all three columns, a second and a third in columns 1 and 2; -1 for a point in no box. notes:
    what was ignored, one sentence each.
    """

    points: np.ndarray
    color: np.ndarray
    boxes: Boxes
    kind: np.ndarray
    member: np.ndarray
    notes: list[str]


class Kinds(NamedTuple):
    """The classes that have boxes: their names, and their mean full sizes [C, 3] in meters."""

    names: tuple[str, ...]
    sizes: np.ndarray
