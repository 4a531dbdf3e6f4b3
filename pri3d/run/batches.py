"""Micro-batches from a data set, prepared by worker processes."""

import functools
import multiprocessing.synchronize
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from pri3d.errors import Pri3DError
from pri3d.run import processes
from pri3d.run.signals import ignore_signals_until


class Lengths(Protocol):
    """The settings that say how long a training is, and how its batches are divided."""

    @property
    def batch(self) -> int: ...
    @property
    def micro_batch(self) -> int | None: ...
    @property
    def workers(self) -> int: ...


def micro_batch_of(settings: Lengths, ranks: int) -> int:
    """Number of samples that each of several processes holds in memory at once."""
    share = max(1, settings.batch // ranks)
    return min(settings.micro_batch or share, share)


def order_of_rank(
    first_step: int, steps: int, settings: Lengths, rank: int, ranks: int, section: str
) -> Iterator[list[int]]:
    """Items of each micro-batch that one of several processes trains on, step after step.

    Steps are counted from 0. Of the micro-batches of each step, rank r takes those with
    i % ranks == r; all ranks together take what a single process would.

    Raises:
        Pri3DError: a batch cannot be divided evenly.
    """
    batch, share = settings.batch, max(1, settings.batch // ranks)
    micro = micro_batch_of(settings, ranks)
    if batch % (micro * ranks):
        parts = f" and micro-batches of {micro} ({section}.micro_batch)" if micro < share else ""
        multiple = ranks * micro if micro < share else ranks
        raise Pri3DError(
            f"{section}.batch: {batch} samples cannot be divided evenly over {ranks} "
            f"processes{parts}; make it a multiple of {multiple}"
        )
    return (
        list(range(step * batch + first, step * batch + first + micro))
        for step in range(first_step, steps)
        for first in range(rank * micro, batch, micro * ranks)
    )


def batches_of_steps(
    samples: "Dataset[Any]",
    collate: Any,
    settings: Lengths,
    first_step: int,
    steps: int,
    section: str,
    here: processes.Processes,
    closing: multiprocessing.synchronize.Event,
) -> Iterator[Sequence[Any]]:
    """The micro-batches of this process, a list per step after `first_step`, on its device.

    closing: set when the training ends; until then, workers ignore signals.

    Raises:
        Pri3DError: a batch cannot be divided evenly, a file that is read is missing or damaged, or
            a worker ended.
    """
    order = order_of_rank(first_step, steps, settings, here.rank, here.size, section)
    per_step = settings.batch // (micro_batch_of(settings, here.size) * here.size)
    loader = iter(
        DataLoader(
            samples,
            batch_sampler=order,  # type: ignore[arg-type]  # any iterable of lists will do
            num_workers=settings.workers,
            # Workers prepare the next step while this one computes.
            prefetch_factor=2 + per_step // settings.workers if settings.workers else None,
            collate_fn=collate,
            worker_init_fn=functools.partial(ignore_signals_until, closing),
            generator=torch.Generator(),  # without one it draws from the generator of the weights
            pin_memory=here.device.type == "cuda",
        )
    )
    for _ in range(first_step, steps):
        yield [processes.move(_next(loader), here.device) for _ in range(per_step)]


def _next(loader: Iterator[Any]) -> Any:
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
            "run out of memory: lower training.workers"
        ) from None
