"""One step of pretraining: every term of the loss is the mean over all samples that have it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pri3d.config import Pretrain
from pri3d.pretrain.metrics import sums
from pri3d.pretrain.modes import ModeModule
from pri3d.run import step as run_step
from pri3d.run.metrics import SKIPPED, Sums
from pri3d.run.step import Share, Step


def step(
    nets: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Any],
    module: ModeModule[Any],
    settings: Pretrain,
    stopping: Callable[[], bool] = lambda: False,
) -> Step:
    """Train on the micro-batches of this process; see `pri3d.run.step`.

    Args:
        nets: networks of the mode.
        optimizer: of their parameters.
        batches: micro-batches, on the device.
        module: of the mode.
        settings: of the mode.
        stopping: whether this process was requested to stop.
    """

    def counts(batch: Any) -> dict[str, int]:
        return module.samples_per_term(batch, settings)

    def share(
        position: int, batch: Any, own: Mapping[str, float], totals: Mapping[str, float]
    ) -> Share:
        terms = module.loss(nets, batch, settings) if any(own.values()) else {}
        figures = Sums()
        for name, term in terms.items():
            figures.add(sums(name, term))
        parts = [
            term.loss_S.sum() / totals[name] for name, term in terms.items() if len(term.loss_S)
        ]
        return Share(torch.stack(parts).sum() if parts else None, figures)

    result = run_step.step(
        nets,
        optimizer,
        batches,
        counts=counts,
        share=share,
        clip_norm=settings.clip_norm,
        is_complete=module.is_complete if settings.sync_bn else None,
        stopping=stopping,
    )
    for reason in (reason for batch in batches for reason in batch.skipped):
        result.sums[SKIPPED + reason] += 1
    if not result.given_up and not result.not_finite:
        module.after_step(nets, settings)
    return result
