"""The order in which the samples of an epoch are trained on."""

import functools

import numpy as np


@functools.lru_cache(maxsize=2)
def order_of_epoch(seed: int, epoch: int, number: int) -> np.ndarray:
    """The permutation, int64 [number], of the pairs or frames in one epoch."""
    return np.random.default_rng([seed, 0, epoch]).permutation(number)
