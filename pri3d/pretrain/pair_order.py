"""The pairs of frames that a run trains on, and their order."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pri3d.artefacts import Pairs
from pri3d.errors import Pri3DError
from pri3d.pretrain.order import order_of_epoch


class TrainingPair(NamedTuple):
    """Two frames of one scan to train on.

    name: for messages. scene: the scan. frames: frame numbers in the scan. rng: source of all that
    is random about the sample; it depends on (seed, epoch, pair) only.
    """

    name: str
    scene: str
    frames: tuple[int, int]
    rng: np.random.Generator


class PairOrder:
    """The pairs of a `pairs.h5` without those of held-out scans, in the order of training.

    Item i is pair i % batch of step i // batch; every epoch is a seeded permutation of all pairs.

    Args:
        pairs: file made by `pri3d pairs`.
        seed: setting `pretrain.seed`.
        held_out: names of scenes whose pairs are left out.

    Raises:
        Pri3DError: the file is missing or damaged, a held-out scene is not in it, or no pair is
            left.
    """

    def __init__(self, pairs: Path, seed: int, held_out: Collection[str] = ()):
        self.seed = seed
        with Pairs(pairs) as source:
            if not len(source.a):
                raise Pri3DError(
                    f"{pairs}: holds no pairs to train on; lower pairs.min_overlap or give scans "
                    "whose frames overlap"
                )
            self.scenes = source.scenes
            if unknown := sorted(set(held_out) - set(self.scenes)):
                raise Pri3DError(
                    f"{pairs}: has no scene {', '.join(unknown)} to hold out; it has "
                    f"{', '.join(self.scenes[:5])}{' ...' if len(self.scenes) > 5 else ''}"
                )
            self._frame_scene, self._frame_number = source.frame_scene, source.frame_index
            left_out = np.isin(self.scenes, list(held_out))
            kept = ~left_out[self._frame_scene[source.a]]
            if not kept.any():
                raise Pri3DError(
                    f"{pairs}: all its {len(kept)} pairs are in held-out scenes; hold out fewer, "
                    "or give more scans"
                )
            self._a, self._b = source.a[kept], source.b[kept]  # rows of the table of frames

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self._a)

    def used_scenes(self) -> list[str]:
        """Scenes that have at least one pair, in the order of the pairs file."""
        return [self.scenes[scene] for scene in np.unique(self._frame_scene[self._a])]

    def frames(self) -> np.ndarray:
        """Rows of the table of frames that occur in a pair, ascending."""
        return np.unique(np.concatenate([self._a, self._b]))

    def frame(self, row: int) -> tuple[str, int]:
        """Scene, and frame number in the scan, of a row of the table of frames."""
        return self.scenes[self._frame_scene[row]], int(self._frame_number[row])

    def item(self, index: int) -> TrainingPair:
        """The pair of an item of the run."""
        epoch, position = divmod(index, len(self))
        pair = int(order_of_epoch(self.seed, epoch, len(self))[position])
        scene, first = self.frame(self._a[pair])
        _, second = self.frame(self._b[pair])
        rng = np.random.default_rng([self.seed, 1, epoch, pair])
        name = f"{scene} frames {first} and {second}"
        return TrainingPair(name, scene, (first, second), rng)
