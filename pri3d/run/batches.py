"""Micro-batches: their order over the steps and processes, and their preparation by workers."""

import functools
import multiprocessing.synchronize
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from torch.utils.data import DataLoader, Dataset

from pri3d.config import Pretrain, Task
from pri3d.errors import Pri3DError
from pri3d.run.identity import Identity
from pri3d.run.processes import Processes, move
from pri3d.run.signals import ignore_signals_until


class Samples(Protocol):
    """The samples of a whole run in order: item i is sample i % batch of step i // batch."""

    def __getitem__(self, index: int, /) -> Any: ...


def micro_batch_of(settings: Pretrain | Task, ranks: int) -> int:
    """Number of samples that each of `ranks` processes holds in memory at once."""
    share = max(1, settings.batch // ranks)
    return min(settings.micro_batch or share, share)


def order_of_rank(
    settings: Pretrain | Task, section: str, first_step: int, steps: int, rank: int, ranks: int
) -> Iterator[list[int]]:
    """Items of each micro-batch of one process, step by step.

    Of each step's micro-batches, rank r trains on those with i % ranks == r; all ranks together
    train on the items that a single process would.

    Args:
        settings: batch and micro_batch.
        section: their section, for messages.
        first_step: first step, counted from 0.
        steps: number of steps of the whole run.
        rank: number of this process, 0..ranks - 1.
        ranks: number of processes.

    Raises:
        Pri3DError: the batch is no multiple of what all processes take at once.
    """
    batch, share = settings.batch, max(1, settings.batch // ranks)
    micro = micro_batch_of(settings, ranks)
    if batch % (micro * ranks):
        parts = f" and micro-batches of {micro} ({section}.micro_batch)" if micro < share else ""
        multiple = ranks * micro if micro < share else ranks
        raise Pri3DError(
            f"{section}.batch: {batch} samples cannot be divided evenly among {ranks} "
            f"processes{parts}; make it a multiple of {multiple}"
        )
    return (
        list(range(step * batch + first, step * batch + first + micro))
        for step in range(first_step, steps)
        for first in range(rank * micro, batch, micro * ranks)
    )


def batches_of_steps(
    samples: Samples,
    collate: Callable[[list[Any]], Any],
    identity: Identity,
    first_step: int,
    steps: int,
    here: Processes,
    closing: multiprocessing.synchronize.Event,
) -> Iterator[Sequence[Any]]:
    """The micro-batches of this process on its device, a list per step.

    Args:
        samples: of the whole run.
        collate: puts the samples of a micro-batch together; see `pri3d.run.processes.move`.
        identity: of the run; its settings are batch, micro_batch and workers.
        first_step: first step, counted from 0.
        steps: number of steps of the whole run.
        here: this process.
        closing: set when the training ends; until then, workers ignore signals.

    Raises:
        Pri3DError: the batch cannot be divided evenly, a file that a sample needs is missing or
            damaged, or a worker ended.
    """
    settings, section = identity.settings, identity.section
    order = order_of_rank(settings, section, first_step, steps, here.rank, here.size)
    per_step = settings.batch // (micro_batch_of(settings, here.size) * here.size)
    loader = iter(
        DataLoader(
            cast("Dataset[Any]", samples),
            batch_sampler=cast("Any", order),  # any iterable of lists of items will do
            num_workers=settings.workers,
            # Workers prepare the next step while this one computes.
            prefetch_factor=2 + per_step // settings.workers if settings.workers else None,
            collate_fn=collate,
            worker_init_fn=functools.partial(ignore_signals_until, closing),
            generator=torch.Generator(),  # without one it draws from the generator of the weights
            pin_memory=here.device.type == "cuda",
        )
    )
    return (
        [move(_next(loader, section), here.device) for _ in range(per_step)]
        for _ in range(first_step, steps)
    )


def _next(loader: Iterator[Any], section: str) -> Any:
    try:
        return next(loader)
    except Pri3DError as error:  # torch wraps what a worker raised into the worker's traceback
        message = str(error).strip().splitlines()[-1]
        raise Pri3DError(message.removeprefix("pri3d.errors.Pri3DError: ")) from None
    except RuntimeError as error:
        if "worker" not in str(error):
            raise
        raise Pri3DError(
            f"a process that prepares samples ended ({str(error).splitlines()[0]}); it may have "
            f"run out of memory: lower {section}.workers"
        ) from None
