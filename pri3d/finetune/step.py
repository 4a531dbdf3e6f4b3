"""One step of finetuning: the loss is the mean over what is labeled in a batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pri3d.config import Task
from pri3d.finetune.tasks import Batch, TrainingModule
from pri3d.run import step as run_step
from pri3d.run.metrics import SKIPPED
from pri3d.run.processes import Processes
from pri3d.run.step import Share, Step


def step(
    nets: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    number: int,
    module: TrainingModule[Any, Any, Any],
    settings: Task,
    unit: str,
    here: Processes,
    stopping: Callable[[], bool] = lambda: False,
) -> Step:
    """Train on the micro-batches of this process; see `pri3d.run.step`.

    The losses of a micro-batch are weighted with its share of the `weight` of the batch. Where they
    are means over what `weight` counts (labeled pixels or voxels), a batch gives the same gradient
    however it is divided. The losses of detectors are means over regions or proposals, whose number
    differs from image to image: with them, the weights are close to that only.

    Args:
        nets: networks of the task.
        optimizer: of their parameters.
        batches: micro-batches, on the device.
        number: number of the step, counted from 1.
        module: of the task's kind.
        settings: of the task.
        unit: what the data set consists of, in the plural.
        here: this process.
        stopping: whether this process was requested to stop.
    """

    def counts(batch: Batch) -> dict[str, float]:
        return {"labels": module.weight(batch, settings)}

    def share(
        position: int, batch: Batch, own: Mapping[str, float], totals: Mapping[str, float]
    ) -> Share:
        micro_batch = here.rank + position * here.size
        torch.manual_seed(seed_of(settings.seed, number, micro_batch))
        losses = module.losses(nets, batch, settings) if own["labels"] else {}
        if not losses:
            return Share(None, {f"{SKIPPED}batch without labels": 1})
        part = own["labels"] / totals["labels"]
        figures = {f"{name}_loss": part * value.item() for name, value in losses.items()}
        return Share(part * torch.stack(list(losses.values())).sum(), figures)

    result = run_step.step(
        nets,
        optimizer,
        batches,
        counts=counts,
        share=share,
        clip_norm=settings.clip_norm,
        is_complete=_has_labels(module, settings) if settings.sync_bn else None,
        stopping=stopping,
    )
    if damaged := sum(len(batch.damaged) for batch in batches):
        result.sums[f"{SKIPPED}{unit.removesuffix('s')} cannot be read"] += damaged
    return result


def seed_of(seed: int, step: int, micro_batch: int) -> int:
    """The seed of what is random inside a network: dropout, and the regions of Mask R-CNN.

    Args:
        seed: of the run.
        step: number of the step, counted from 1.
        micro_batch: number of the micro-batch in the batch, over all processes.
    """
    return seed * 1_000_003 + step + micro_batch * 15_485_863


def _has_labels(module: TrainingModule[Any, Any, Any], settings: Task) -> Callable[[Batch], bool]:
    return lambda batch: module.weight(batch, settings) > 0
