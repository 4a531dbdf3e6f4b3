"""The share of the training labels that a run uses."""

from pri3d.config import Task
from pri3d.datasets.frames import Frame
from pri3d.datasets.subsets import subset
from pri3d.errors import Pri3DError


def labeled_subset(frames: list[Frame], settings: Task, whole_scenes: bool = False) -> list[int]:
    """Positions of the frames used, by the settings percent, subset and seed.

    Args:
        frames: of the training split.
        settings: of the task.
        whole_scenes: each frame is a whole scene; see `subset`.

    Raises:
        Pri3DError: the share is empty.
    """
    chosen = subset(frames, settings.percent, settings.subset, settings.seed, whole=whole_scenes)
    if not chosen:
        raise Pri3DError(
            f"percent: {settings.percent:g} % of {len(frames)} labeled samples is none; raise "
            "percent, or draw scenes (subset: random)"
        )
    return chosen
