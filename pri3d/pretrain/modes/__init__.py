"""The pretraining modes, one module each, all with the functions of `ModeModule`.

A mode is its row in `pri3d.config.MODES` and the module of the same name here. Modules are imported
by name, so that a new mode is one file and one row, and a change of one mode's file reruns that
mode only (`pri3d.code_digest.code_of_mode`).
"""

import importlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from torch import Tensor, nn

from pri3d.config import Pretrain
from pri3d.pretrain.objective import LossTerm


class Inputs(NamedTuple):
    """Where the data of a run is, and which scenes it uses.

    pairs: `pairs.h5`. clouds_dir, chunks_dir: folders with <scene>.h5. held_out: scenes that are
    left out. scenes: scenes to train on, for modes that read no pairs; empty: all in clouds_dir.
    """

    pairs: Path
    clouds_dir: Path
    chunks_dir: Path
    held_out: Collection[str] = ()
    scenes: Collection[str] = ()


class Samples(Protocol):
    """The samples of a whole run in order: item i is sample i % batch of step i // batch.

    clouds_dir: where the clouds of the used scenes are. chunks_dir: likewise; None: not read.
    collate: puts the samples of a micro-batch together; its result is a NamedTuple of tensors with
    at least `names` (of all samples) and `skipped` (reasons, one for each part of a sample that
    cannot be used).
    """

    clouds_dir: Path
    chunks_dir: Path | None
    settings: Pretrain
    collate: Callable[[Sequence[Any]], Any]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...

    def used_scenes(self) -> list[str]:
        """Scenes that are trained on."""
        ...


class ModeModule(Protocol):
    """What the module of a mode has."""

    @staticmethod
    def samples(inputs: Inputs, settings: Pretrain) -> Samples:
        """The data that a run trains on.

        Raises:
            Pri3DError: an input is missing, damaged, or holds nothing to train on.
        """
        ...

    @staticmethod
    def networks(settings: Pretrain) -> nn.ModuleDict:
        """The networks with random weights, drawn from torch's generator.

        Names are those of published weights: backbone (2D), backbone3d, w2d and w3d (projection
        heads), headnet (depth). `teacher` is frozen and not part of the finished run.
        """
        ...

    @staticmethod
    def after_initial_weights(nets: nn.ModuleDict) -> None:
        """Called once for a new run, when its initial weights have been loaded."""
        ...

    @staticmethod
    def loss(nets: nn.ModuleDict, batch: Any, settings: Pretrain) -> dict[str, LossTerm]:
        """The terms of the loss by name, for a micro-batch in which some sample has a term.

        The loss is the sum over terms of the mean over all samples of the batch.
        """
        ...

    @staticmethod
    def counts(batch: Any, settings: Pretrain) -> dict[str, int]:
        """Number of samples of a micro-batch that have each term: len(loss()[term].loss_S)."""
        ...

    @staticmethod
    def is_complete(batch: Any) -> bool:
        """Whether every network has something to compute in a micro-batch (for `sync_bn`)."""
        ...

    @staticmethod
    def after_step(nets: nn.ModuleDict, settings: Pretrain) -> None:
        """Called after each optimizer step."""
        ...


class MatchingMode(ModeModule, Protocol):
    """A mode with `matching` in its record, which `pri3d evaluate` measures by correspondences.

    A mode that reads chunks also has the projection heads w2d and w3d among its networks.
    """

    @staticmethod
    def feature_maps(nets: nn.ModuleDict, image_BCHW: Tensor, settings: Pretrain) -> Tensor:
        """Features of every cell of a batch of images, float32 [B, C, H / 2, W / 2]."""
        ...


def module_of(mode: str) -> ModeModule:
    """The module of a mode, one of the keys of `pri3d.config.MODES`."""
    return cast(ModeModule, importlib.import_module(f"{__name__}.{mode}"))


def matching_module_of(mode: str) -> MatchingMode:
    """The module of a mode with `matching` in its record."""
    return cast(MatchingMode, module_of(mode))
