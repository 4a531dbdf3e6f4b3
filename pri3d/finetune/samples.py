"""What the samples of all tasks share: their seeded order, and a stand-in for an unreadable one.

Item i is sample i of an endless list in which every epoch is a permutation of the samples used, so
that the step determines which samples come next. A sample depends on (seed, epoch, position) only.
"""

import functools
from typing import NamedTuple, TypeVar

import numpy as np

IGNORED = 255  # in targets: no class is annotated here

Sample = TypeVar("Sample")


class Damaged(NamedTuple):
    """A sample that cannot be read, and why."""

    name: str
    reason: str


def resolve_item(item: int, chosen: list[int], seed: int) -> tuple[int, np.random.Generator]:
    """The position in the split of an item, and the generator of everything random about it.

    Args:
        item: index in the endless list of samples.
        chosen: positions of the samples used.
        seed: of the run.
    """
    epoch, index = divmod(item, len(chosen))
    position = chosen[_permutation(seed, epoch, len(chosen))[index]]
    return position, np.random.default_rng([seed, 4, epoch, position])


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, samples: int) -> np.ndarray:
    return np.random.default_rng([seed, 3, epoch]).permutation(samples)


def separate(samples: list[Sample | Damaged]) -> tuple[list[Sample], list[Damaged]]:
    """The samples that could be read, and the damaged ones."""
    damaged = [sample for sample in samples if isinstance(sample, Damaged)]
    return [sample for sample in samples if not isinstance(sample, Damaged)], damaged
