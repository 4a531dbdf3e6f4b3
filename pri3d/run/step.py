"""One step of the optimizer: gradients summed over micro-batches and over processes.

The result does not depend on how the micro-batches of a batch are distributed over processes:

- every term of the loss is a mean over the whole batch;
- batch norm normalizes with the statistics of the micro-batch (of all processes, with `sync_bn`).
  Each micro-batch starts with the running statistics from before the step, and the step ends with
  their mean over the micro-batches.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pri3d.models.sync_batch_norm import SyncBatchNorm
from pri3d.run.metrics import SKIPPED, Sums
from pri3d.run.processes import gather, several, sum_over_processes

Norm = nn.BatchNorm1d | nn.BatchNorm2d | SyncBatchNorm


class Step(NamedTuple):
    """The result of a step.

    loss, grad_norm: of the whole batch; loss is None if no sample had any term. sums: for the
    metrics, of this process only. stop: a process was requested to stop. given_up: so early that
    micro-batches were left. not_finite: samples (of all processes) that made the loss or its
    gradient NaN or infinite. A step without loss, given up, or not finite has changed nothing.
    """

    loss: float | None
    grad_norm: float
    sums: Sums
    stop: bool
    given_up: bool
    not_finite: list[str]


class Share(NamedTuple):
    """The share of one micro-batch in the loss of the whole batch; None if it has no term.

    sums: for the metrics.
    """

    loss: Tensor | None
    sums: Mapping[str, float]


def step(
    nets: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Any],
    *,
    counts: Callable[[Any], Mapping[str, float]],
    share: Callable[[int, Any, Mapping[str, float], Mapping[str, float]], Share],
    clip_norm: float | None,
    is_complete: Callable[[Any], bool] | None,
    stopping: Callable[[], bool],
) -> Step:
    """Train on the micro-batches of this process.

    Args:
        nets: networks in training mode.
        optimizer: of their parameters.
        batches: micro-batches with `names`, on the device.
        counts: term of the loss -> number of things in a micro-batch that its mean is over. The
            terms are the same for all micro-batches and processes.
        share: (position in `batches`, micro-batch, its counts, those of the whole batch) -> its
            share.
        clip_norm: maximum norm of the gradient; None: no limit.
        is_complete: whether every network has something to compute in a micro-batch; given with
            `sync_bn`, where batch norm waits for all processes. A micro-batch that one process
            cannot use is then skipped by all.
        stopping: whether this process was requested to stop. If micro-batches are left then, the
            step is given up: on a CPU, one step can take longer than a cluster waits.
    """
    device = next(nets.parameters()).device
    sums = Sums()
    if is_complete is not None:
        batches = _complete_everywhere(batches, is_complete, sums)
    own_counts = [counts(batch) for batch in batches]
    totals = _total_counts(own_counts, device)
    before = _running_statistics(nets)
    after = [torch.zeros_like(value) for value in before]
    loss = torch.zeros((), dtype=torch.float64, device=device)
    not_finite: list[str] = []
    given_up, shares = False, 0
    optimizer.zero_grad(set_to_none=True)
    for position, (batch, own) in enumerate(zip(batches, own_counts)):
        # Batch norm over all processes waits for each of them: they stop together or not at all.
        requested = stopping() if is_complete is None else any(gather(stopping()))
        if position and requested:
            given_up = True
            break
        _set_running_statistics(nets, before)
        part, figures = share(position, batch, own, totals)
        if part is not None:
            if not math.isfinite(part.item()):
                not_finite += batch.names
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
            shares += 1
        sums.add(figures)
        for total, value in zip(after, _running_statistics(nets)):
            total += value

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if several():
        _sum_gradients(parameters)
        sum_over_processes(after)
    flags = torch.tensor(
        [stopping(), given_up, bool(not_finite), shares, len(batches)],
        dtype=torch.float64,
        device=device,
    )
    sum_over_processes([loss, flags])
    stop, given_up_by, not_finite_in, all_shares, micro_batches = flags.tolist()
    norm = torch.zeros(())
    if all_shares:
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if not_finite_in or not math.isfinite(norm.item()):
        names = not_finite if not_finite_in else [n for batch in batches for n in batch.names]
        not_finite = [name for of_process in gather(names) for name in of_process]
    result = Step(
        loss=loss.item() if all_shares else None,
        grad_norm=norm.item(),
        sums=sums,
        stop=bool(stop),
        given_up=bool(given_up_by),
        not_finite=not_finite,
    )
    if result.given_up or not_finite or not all_shares:
        _set_running_statistics(nets, before)
        optimizer.zero_grad(set_to_none=True)
        return result
    _set_running_statistics(nets, [total / micro_batches for total in after])
    if clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    optimizer.step()
    return result


def set_batch_norm_momentum(nets: nn.Module, momentum: float) -> None:
    """Set the momentum of the running statistics of every batch norm."""
    for module in _norms(nets):
        module.momentum = momentum


def _sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """A process whose samples lack a term has no gradient there; what no process has stays None."""
    has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32)
    has = has.to(parameters[0].device)
    sum_over_processes([has])
    summed = [parameter for parameter, count in zip(parameters, has.tolist()) if count]
    gradients = []
    for parameter in summed:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    sum_over_processes(gradients)


def _complete_everywhere(
    batches: Sequence[Any], is_complete: Callable[[Any], bool], sums: Sums
) -> list[Any]:
    """The micro-batches in which every process has samples of every kind; others are counted."""
    complete = gather([is_complete(batch) for batch in batches])
    kept = []
    for batch, everywhere in zip(batches, (all(flags) for flags in zip(*complete))):
        if everywhere:
            kept.append(batch)
        else:
            reason = "sync_bn: another sample of the micro-batch cannot be used"
            sums[SKIPPED + reason] += len(batch.names)
    return kept


def _total_counts(
    own_counts: Sequence[Mapping[str, float]], device: torch.device
) -> dict[str, float]:
    """The counts of the whole batch, over all processes."""
    number = Sums()
    for own in own_counts:
        number.add(own)
    names = sorted(number)
    values = torch.tensor([number[name] for name in names], dtype=torch.float64, device=device)
    sum_over_processes([values])
    return dict(zip(names, values.tolist()))


def _norms(nets: nn.Module) -> Iterator[Norm]:
    for module in nets.modules():
        # Frozen networks are not in training mode, and keep their statistics.
        if isinstance(module, Norm) and module.training:
            yield module


def _running_statistics(nets: nn.Module) -> list[Tensor]:
    """Copies of all running statistics."""
    return [value.clone() for value in _statistics(nets)]


def _set_running_statistics(nets: nn.Module, values: Sequence[Tensor]) -> None:
    for value, new in zip(_statistics(nets), values):
        value.copy_(new)


def _statistics(nets: nn.Module) -> list[Tensor]:
    values = []
    for norm in _norms(nets):
        for value in (norm.running_mean, norm.running_var, norm.num_batches_tracked):
            if value is not None:
                values.append(value)
    return values
