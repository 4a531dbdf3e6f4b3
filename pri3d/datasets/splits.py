"""The three shapes of a split of a labeled data set: images, clouds, and scenes with boxes.

Every split lists its samples in `frames` and reads one of them by its position in that list. A
damaged sample raises Pri3DError with one sentence; the others stay usable.
"""

from pathlib import Path
from typing import Protocol

import numpy as np

from pri3d.classes import ClassSet
from pri3d.datasets.frames import Frame, Objects
from pri3d.datasets.labeled_clouds import LabeledCloud
from pri3d.datasets.scenes import Kinds, Scene


class LabeledImages(Protocol):
    """A split of a data set of images with labels and objects.

    name: of the data set; split: "train", "val" or "test". classes: of the labels; things: the
    classes that have objects. problems: what was left out and why; without_objects: images whose
    objects are not annotated; one sentence each.
    """

    name: str
    split: str
    classes: ClassSet
    things: ClassSet
    frames: list[Frame]
    problems: list[str]
    without_objects: list[str]

    @property
    def root(self) -> Path:
        """The folder of the data set."""

    def color(self, index: int, min_height: int | None = None) -> np.ndarray:
        """RGB u8 [H, W, 3], with at least `min_height` rows if the stored image has them.

        Raises:
            Pri3DError: the image is damaged.
        """

    def labels(self, index: int) -> np.ndarray:
        """Labels u8 [h, w], k for the k-th class, 0 where nothing is annotated.

        Their size may differ from the size of the color image.

        Raises:
            Pri3DError: the label image is damaged.
        """

    def unknown_ids(self, index: int) -> list[int]:
        """Ids in the label image that the data set does not define.

        Raises:
            Pri3DError: the label image is damaged.
        """

    def has_objects(self, index: int) -> bool:
        """Whether the objects of the image are annotated."""

    def objects(self, index: int) -> Objects:
        """The objects of the image, of the classes `things`.

        Raises:
            Pri3DError: the label or the instance image is damaged.
        """


class LabeledClouds(Protocol):
    """A split of a data set of point clouds with a class for each point.

    name: of the data set; split: "train", "val" or "test". classes: of the labels. problems: what
    was left out and why, one sentence each.
    """

    name: str
    split: str
    classes: ClassSet
    frames: list[Frame]
    problems: list[str]

    def cloud(self, index: int) -> LabeledCloud:
        """One cloud; its `notes` say what was repaired, dropped or ignored.

        Raises:
            Pri3DError: a file is damaged, or the files do not fit each other.
        """


class LabeledScenes(Protocol):
    """A split of a data set of point clouds with boxes around their objects.

    name: of the data set; split: "train" or "val". classes: names and mean sizes; oriented: whether
    boxes have headings. problems: what was left out and why, one sentence each.
    """

    name: str
    split: str
    classes: Kinds
    oriented: bool
    frames: list[Frame]
    problems: list[str]

    def scene(self, index: int) -> Scene:
        """One scene; its `notes` say what was ignored.

        Raises:
            Pri3DError: a file is damaged, or the files do not fit each other.
        """
