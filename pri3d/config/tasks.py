"""The finetuning tasks, as records: their kind, their data set and their settings.

A task is one row of TASKS. A kind of task is one row of KINDS, its settings in
`pri3d.config.finetune` and one module of the same name in `pri3d.finetune.tasks`.
"""

from typing import Literal, NamedTuple

Task2dName = Literal["semseg_scannet", "semseg_nyuv2", "insseg_scannet", "insseg_nyuv2"]
Task3dName = Literal["semseg3d_scannet", "semseg3d_s3dis", "det3d_scannet", "det3d_sunrgbd"]
TaskName = Literal[
    "semseg_scannet",
    "semseg_nyuv2",
    "insseg_scannet",
    "insseg_nyuv2",
    "semseg3d_scannet",
    "semseg3d_s3dis",
    "det3d_scannet",
    "det3d_sunrgbd",
]


class Kind(NamedTuple):
    """A kind of task. summary: one line for --help. network: the shared network that it finetunes.
    unit: what its data sets consist of, in the plural.
    """

    summary: str
    network: Literal["network2d", "network3d"]
    unit: Literal["images", "clouds", "scenes"]


class Task(NamedTuple):
    """One task: the name of its kind, which is its section of the settings, and of its data set."""

    kind: Literal["semseg", "insseg", "semseg3d", "det3d"]
    dataset: Literal["scannet", "nyuv2", "scannet3d", "s3dis", "sunrgbd"]


DATASET_TITLES: dict[str, str] = {
    "scannet": "ScanNet",
    "nyuv2": "NYU Depth v2",
    "scannet3d": "ScanNet",
    "s3dis": "S3DIS",
    "sunrgbd": "SUN RGB-D",
}

KINDS: dict[str, Kind] = {
    "semseg": Kind("semantic segmentation of images", "network2d", "images"),
    "insseg": Kind("instance segmentation of images", "network2d", "images"),
    "semseg3d": Kind("semantic segmentation of point clouds", "network3d", "clouds"),
    "det3d": Kind("object detection in point clouds", "network3d", "scenes"),
}

TASKS: dict[str, Task] = {
    "semseg_scannet": Task("semseg", "scannet"),
    "semseg_nyuv2": Task("semseg", "nyuv2"),
    "insseg_scannet": Task("insseg", "scannet"),
    "insseg_nyuv2": Task("insseg", "nyuv2"),
    "semseg3d_scannet": Task("semseg3d", "scannet3d"),
    "semseg3d_s3dis": Task("semseg3d", "s3dis"),
    "det3d_scannet": Task("det3d", "scannet3d"),
    "det3d_sunrgbd": Task("det3d", "sunrgbd"),
}


def kind_of(task: str) -> Kind:
    """The record of a task's kind."""
    return KINDS[TASKS[task].kind]
