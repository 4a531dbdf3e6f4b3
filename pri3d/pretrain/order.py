"""The order in which samples are trained on, and how each batch is split into micro-batches."""

import functools
from collections.abc import Iterator

import numpy as np

from pri3d.config import Pretrain
from pri3d.errors import Pri3DError


@functools.lru_cache(maxsize=2)
def order_of_epoch(seed: int, epoch: int, number: int) -> np.ndarray:
    """The permutation, int64 [number], of the pairs or frames in one epoch."""
    return np.random.default_rng([seed, 0, epoch]).permutation(number)


def order_of_rank(
    start_step: int, settings: Pretrain, rank: int, ranks: int
) -> Iterator[list[int]]:
    """Items of each micro-batch of one process, step by step.

    Of each step's micro-batches, rank r trains on those with i % ranks == r; all ranks together
    train on the items that a single process would.

    Args:
        start_step: first step, counted from 0; the last one is settings.steps - 1.
        settings: batch, micro_batch and steps.
        rank: number of this process, 0..ranks - 1.
        ranks: number of processes.

    Raises:
        Pri3DError: the batch is no multiple of what all processes take at once.
    """
    batch, share = settings.batch, max(1, settings.batch // ranks)
    micro = micro_batch_of(settings, ranks)
    if batch % (micro * ranks):
        of = f" and micro-batches of {micro} (pretrain.micro_batch)" if micro < share else ""
        multiple = ranks * micro if micro < share else ranks
        raise Pri3DError(
            f"pretrain.batch: {batch} pairs cannot be divided evenly among {ranks} processes{of}; "
            f"make it a multiple of {multiple}"
        )
    return (
        list(range(step * batch + first, step * batch + first + micro))
        for step in range(start_step, settings.steps)
        for first in range(rank * micro, batch, micro * ranks)
    )


def micro_batch_of(settings: Pretrain, ranks: int) -> int:
    """Number of pairs (or frames) that each of `ranks` processes holds in memory at once."""
    share = max(1, settings.batch // ranks)
    return min(settings.micro_batch or share, share)
