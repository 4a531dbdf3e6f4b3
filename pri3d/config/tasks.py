"""The finetuning tasks, as records: their kind, their data set and their settings.

A task is one row of TASKS. A kind of task is one row of KINDS, its settings in
`pri3d.config.finetune` and one module of the same name in `pri3d.finetune.tasks`.
"""

from typing import Literal, NamedTuple


class TaskKind(NamedTuple):
    """A kind of task. summary: one line for --help. network: the shared network that it finetunes.
    unit: what its data sets consist of, in the plural. submission: `evaluate` writes files for the
    benchmark of a data set that has one. pictures: `evaluate` and `predict` write pictures. probe:
    `probe` measures frozen features on its tasks.
    """

    summary: str
    network: Literal["network2d", "network3d"]
    unit: Literal["images", "clouds", "scenes"]
    submission: bool
    pictures: bool
    probe: bool = False


class TaskRecord(NamedTuple):
    """One task: the name of its kind, which is its section of the settings, and of its data set."""

    kind: str
    dataset: Literal["scannet", "nyuv2", "scannet3d", "s3dis", "sunrgbd"]


DATASET_TITLES: dict[str, str] = {
    "scannet": "ScanNet",
    "nyuv2": "NYU Depth v2",
    "scannet3d": "ScanNet",
    "s3dis": "S3DIS",
    "sunrgbd": "SUN RGB-D",
}

KINDS: dict[str, TaskKind] = {
    "semseg": TaskKind(
        "semantic segmentation of images",
        network="network2d",
        unit="images",
        submission=True,
        pictures=True,
        probe=True,
    ),
    "insseg": TaskKind(
        "instance segmentation of images",
        network="network2d",
        unit="images",
        submission=True,
        pictures=True,
    ),
    "semseg3d": TaskKind(
        "semantic segmentation of point clouds",
        network="network3d",
        unit="clouds",
        submission=True,
        pictures=False,
    ),
    "det3d": TaskKind(
        "object detection in point clouds",
        network="network3d",
        unit="scenes",
        submission=False,
        pictures=False,
    ),
}

TASKS: dict[str, TaskRecord] = {
    "semseg_scannet": TaskRecord("semseg", "scannet"),
    "semseg_nyuv2": TaskRecord("semseg", "nyuv2"),
    "insseg_scannet": TaskRecord("insseg", "scannet"),
    "insseg_nyuv2": TaskRecord("insseg", "nyuv2"),
    "semseg3d_scannet": TaskRecord("semseg3d", "scannet3d"),
    "semseg3d_s3dis": TaskRecord("semseg3d", "s3dis"),
    "det3d_scannet": TaskRecord("det3d", "scannet3d"),
    "det3d_sunrgbd": TaskRecord("det3d", "sunrgbd"),
}

# Data sets with a benchmark: a split "test" without labels, and files that its server reads.
BENCHMARKS = ("scannet", "scannet3d")


def kind_of(task: str) -> TaskKind:
    """The record of a task's kind."""
    return KINDS[TASKS[task].kind]


def inapplicable_option(task: str, split: str, submission: bool, pictures: bool) -> str | None:
    """The first option of `pri3d evaluate` that does not apply to a task, as a sentence.

    Args:
        task: a key of TASKS.
        split: value of --split.
        submission: whether --submission is given.
        pictures: whether --pictures is given.
    """
    kind = kind_of(task)
    benchmark = kind.submission and TASKS[task].dataset in BENCHMARKS
    if submission and not benchmark:
        return f"--submission: there is no benchmark for {task}; leave it out"
    if split == "test" and not benchmark:
        return f"--split test: {task} has no test split without labels; measure on val"
    if pictures and not kind.pictures:
        return f"--pictures: there are none for {task}; leave it out"
    return None
