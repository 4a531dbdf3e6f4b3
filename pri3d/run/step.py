"""One step of the optimizer: gradients summed over micro-batches and over processes.

The result does not depend on how the micro-batches of a batch are distributed over processes:

- every term of the loss is a mean over the whole batch;
- batch norm normalizes with the statistics of the micro-batch (of all processes, with `sync_bn`).
  Each micro-batch starts with the running statistics from before the step, and the step ends with
  their mean over the micro-batches.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from pri3d.run.metrics import SKIPPED
from pri3d.run.processes import SyncBatchNorm, gather, several, sum_over_processes


class Batch(Protocol):
    """Samples of one micro-batch, on the device of this process."""

    @property
    def names(self) -> Sequence[str]: ...


B = TypeVar("B", bound=Batch)
Norm = nn.BatchNorm1d | nn.BatchNorm2d | SyncBatchNorm


class Step(NamedTuple):
    """What happened in a step.

    loss, grad_norm: of the whole batch; loss is None if no sample had any term. sums: figures for
    the metrics, of this process only. stop: a process was asked to stop. given_up: so early that
    micro-batches were left. not_finite: samples (of all processes) that made the loss or its
    gradient NaN or infinite. A step without loss, given up, or not finite has changed nothing.
    """

    loss: float | None
    grad_norm: float
    sums: Counter[str]
    stop: bool
    given_up: bool
    not_finite: list[str]


class Share(NamedTuple):
    """What one micro-batch contributes: its part of the loss of the whole batch (None: nothing),
    and figures for the metrics."""

    loss: Tensor | None
    sums: Mapping[str, float]


def step(
    nets: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[B],
    counts: Callable[[B], Mapping[str, float]],
    share: Callable[[int, B, Mapping[str, float]], Share],
    clip_norm: float | None = None,
    is_complete: Callable[[B], bool] | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Step:
    """Train on the micro-batches of this process.

    Args:
        counts: term of the loss -> number of things in a micro-batch that its mean is over. The
            terms are the same for all micro-batches and processes.
        share: position in `batches`, micro-batch, counts of the whole batch -> its share.
        clip_norm: maximum norm of the gradient.
        is_complete: whether every network has something to do in a micro-batch; given where batch
            norm waits for all processes (`sync_bn`). Micro-batches that one process cannot use are
            left out by all, and counted.
        stopping: whether this process was asked to stop. If micro-batches are left then, the step
            is given up: on a CPU, one step can take longer than a cluster waits.
    """
    device = next(nets.parameters()).device
    sums: Counter[str] = Counter()
    together = is_complete is not None
    if is_complete is not None:
        batches = _complete_everywhere(batches, is_complete, sums)
    totals = _total_counts(batches, counts, device)
    before = _running_statistics(nets)
    after = [torch.zeros_like(value) for value in before]
    loss = torch.zeros((), dtype=torch.float64, device=device)
    not_finite: list[str] = []
    given_up, trained = False, 0
    optimizer.zero_grad(set_to_none=True)
    for position, batch in enumerate(batches):
        # Batch norm over all processes waits for each of them: they stop together or not at all.
        asked = any(gather(stopping())) if together else stopping()
        if position and asked:
            given_up = True
            break
        _set_running_statistics(nets, before)
        part, figures = share(position, batch, totals)
        if part is not None:
            if not math.isfinite(part.item()):
                not_finite += batch.names
            part.backward()
            loss += part.detach()
            trained += 1
        sums.update(figures)
        for total, value in zip(after, _running_statistics(nets)):
            total += value

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if several():
        _sum_gradients(parameters)
        sum_over_processes(after)
    flags = torch.tensor(
        [stopping(), given_up, bool(not_finite), trained, len(batches)],
        dtype=torch.float64,
        device=device,
    )
    sum_over_processes([loss, flags])
    stop, given_up_somewhere, failed, trained_anywhere, micro_batches = flags.tolist()
    norm = torch.zeros(())
    if trained_anywhere:
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if failed or not math.isfinite(norm.item()):
        names = not_finite if failed else [name for batch in batches for name in batch.names]
        not_finite = [name for part_of_rank in gather(names) for name in part_of_rank]
    if given_up_somewhere or not_finite or not trained_anywhere:
        _set_running_statistics(nets, before)
        optimizer.zero_grad(set_to_none=True)
        value = loss.item() if trained_anywhere else None
        return Step(value, norm.item(), sums, bool(stop), bool(given_up_somewhere), not_finite)

    _set_running_statistics(nets, [total / micro_batches for total in after])
    if clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    optimizer.step()
    return Step(loss.item(), norm.item(), sums, bool(stop), False, [])


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
    batches: Sequence[B], is_complete: Callable[[B], bool], sums: Counter[str]
) -> list[B]:
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
    batches: Sequence[B], counts: Callable[[B], Mapping[str, float]], device: torch.device
) -> dict[str, float]:
    """The counts of the whole batch, over all processes."""
    number: Counter[str] = Counter()
    for batch in batches:
        number.update(counts(batch))
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
