"""One step of the optimiser: gradients added up over micro-batches and over processes.

What comes out does not depend on how the micro-batches of a batch are dealt out to processes:

- every term of the loss is the mean over all samples of the batch that have it;
- batch norm normalises with the statistics of the micro-batch (of all processes, with `sync_bn`);
  each micro-batch begins with the running statistics of the step's beginning, and the step ends
  with their mean over the micro-batches.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pri3d.config import Pretrain
from pri3d.pretrain.metrics import sums
from pri3d.pretrain.modes import ModeModule
from pri3d.run.metrics import SKIPPED
from pri3d.run.processes import SyncBatchNorm, gather, several, sum_over_processes


class Step(NamedTuple):
    """What happened in a step.

    loss, grad_norm: of the whole batch; loss is None where no sample had any term. figures: sums
    for the metrics, of this process only. stop: a process was asked to stop. given_up: so much so
    that micro-batches were left. not_finite: samples (of all processes) that made the loss or its
    gradient NaN or infinite. A step without loss, given up, or not finite has changed nothing.
    """

    loss: float | None
    grad_norm: float
    figures: Counter
    stop: bool
    given_up: bool
    not_finite: list[str]


def step(
    nets: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Any],
    mode: ModeModule,
    settings: Pretrain,
    stopping: Callable[[], bool] = lambda: False,
) -> Step:
    """Train on the micro-batches of this process (already on its device).

    stopping: whether this process was asked to stop. Where micro-batches are left then, the step is
    given up: on a CPU one step can take longer than a cluster waits.
    """
    device = next(nets.parameters()).device
    figures = Counter(SKIPPED + reason for batch in batches for reason in batch.skipped)
    if settings.sync_bn:
        batches = _complete_everywhere(batches, mode, figures)
    number = _total_counts(batches, mode, settings, device)
    before = _running(nets)
    after = [torch.zeros_like(value) for value in before]
    loss = torch.zeros((), dtype=torch.float64, device=device)
    not_finite, given_up = [], False
    optimizer.zero_grad(set_to_none=True)
    for i, batch in enumerate(batches):
        # Batch norm over all processes waits for each of them: they stop together or not at all.
        asked = any(gather(stopping())) if settings.sync_bn else stopping()
        if i and asked:
            given_up = True
            break
        _set_running(nets, before)
        terms = {}
        if any(mode.counts(batch, settings).values()):
            terms = mode.loss(nets, batch, settings)
        parts = [
            term.loss_S.sum() / number[name] for name, term in terms.items() if len(term.loss_S)
        ]
        if parts:
            part = torch.stack(parts).sum()
            if not math.isfinite(part.item()):
                not_finite += batch.names
            part.backward()
            loss += part.detach()
        for name, term in terms.items():
            figures.update(sums(name, term))
        for total, value in zip(after, _running(nets)):
            total += value

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if several():
        _sum_gradients(parameters)
        sum_over_processes(after)
    flags = [stopping(), given_up, bool(not_finite), len(batches)]
    flags = torch.tensor(flags, dtype=torch.float64, device=device)
    sum_over_processes([loss, flags])
    stop, given_up, failed, micro_batches = flags.tolist()
    norm = torch.zeros(())
    if any(number.values()):
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if failed or not math.isfinite(norm.item()):
        names = not_finite if failed else [name for batch in batches for name in batch.names]
        not_finite = [name for some in gather(names) for name in some]
    if given_up or not_finite or not any(number.values()):
        _set_running(nets, before)
        optimizer.zero_grad(set_to_none=True)
        value = loss.item() if any(number.values()) else None
        return Step(value, norm.item(), figures, bool(stop), bool(given_up), not_finite)

    _set_running(nets, [total / micro_batches for total in after])
    if settings.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, settings.clip_norm, norm)
    optimizer.step()
    return Step(loss.item(), norm.item(), figures, bool(stop), False, [])


def _sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """A process whose samples lack a term has no gradient there; what nobody has stays None."""
    has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32)
    has = has.to(parameters[0].device)
    sum_over_processes([has])
    there = [parameter for parameter, count in zip(parameters, has.tolist()) if count]
    for parameter in there:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    sum_over_processes([parameter.grad for parameter in there])


def _complete_everywhere(batches: Sequence[Any], mode: ModeModule, figures: Counter) -> list[Any]:
    """The micro-batches in which every process has samples of every kind; others are counted.

    Batch norm over all processes waits for each of them: none may leave out a network.
    """
    complete = gather([mode.is_complete(batch) for batch in batches])
    kept = []
    for batch, everywhere in zip(batches, (all(flags) for flags in zip(*complete))):
        if everywhere:
            kept.append(batch)
        else:
            reason = "sync_bn: another sample of the micro-batch cannot be used"
            figures[SKIPPED + reason] += len(batch.names)
    return kept


def _total_counts(
    batches: Sequence[Any], mode: ModeModule, settings: Pretrain, device: torch.device
) -> dict[str, float]:
    """Samples of the whole batch that have each term."""
    number = Counter()
    for batch in batches:
        number.update(mode.counts(batch, settings))
    names = sorted(number)
    values = torch.tensor([number[name] for name in names], dtype=torch.float64, device=device)
    sum_over_processes([values])
    return dict(zip(names, values.tolist()))


def set_bn_momentum(nets: nn.Module, momentum: float) -> None:
    """Of the running statistics of every batch norm."""
    for module in _norms(nets):
        module.momentum = momentum


def _norms(nets: nn.Module) -> list[nn.Module]:
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, SyncBatchNorm)
    # Those of a frozen network are not in training, and stay as they are to the bit.
    return [module for module in nets.modules() if isinstance(module, kinds) and module.training]


def _running(nets: nn.Module) -> list[Tensor]:
    """Copies of all running statistics."""
    return [
        value.clone()
        for module in _norms(nets)
        for value in (module.running_mean, module.running_var, module.num_batches_tracked)
    ]


def _set_running(nets: nn.Module, values: Sequence[Tensor]) -> None:
    values = iter(values)
    for module in _norms(nets):
        for value in (module.running_mean, module.running_var, module.num_batches_tracked):
            value.copy_(next(values))
