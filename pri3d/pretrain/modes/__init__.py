"""The pretraining modes: one module per row of MODES, all with the functions of `ModeModule`.

Modules are imported by name. A new mode is one file here and one row in `pri3d.config.modes`, and a
change of one mode's file reruns that mode only (`pri3d.code_digest.code_of_mode`).
"""

import importlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast

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
    collate: from a list of samples to a micro-batch.
    """

    clouds_dir: Path
    chunks_dir: Path | None
    collate: Callable[[list[Any]], Any]

    def __getitem__(self, index: int) -> Any: ...

    def used_scenes(self) -> list[str]:
        """Scenes that are trained on."""


class Batch(Protocol):
    """A micro-batch: a NamedTuple of tensors, lists and NamedTuples of such.

    names: of all its samples. skipped: for each part of a sample that cannot be used, the reason.
    """

    @property
    def names(self) -> list[str]: ...

    @property
    def skipped(self) -> list[str]: ...


B = TypeVar("B", bound=Batch, contravariant=True)


class ModeModule(Protocol[B]):
    """The functions of a mode. B: its batches."""

    def samples(self, inputs: Inputs, settings: Pretrain) -> Samples:
        """The data that a run trains on.

        Raises:
            Pri3DError: an input is missing, damaged, or holds nothing to train on.
        """

    def networks(self, settings: Pretrain) -> nn.ModuleDict:
        """The networks with random weights, drawn from torch's generator.

        Names are those of published weights: backbone (2D), backbone3d, w2d and w3d (projection
        heads), headnet (depth). `teacher` is frozen and no part of the finished run.
        """

    def after_initial_weights(self, nets: nn.ModuleDict) -> None:
        """Called once per run, when the initial weights have been loaded."""

    def loss(self, nets: nn.ModuleDict, batch: B, settings: Pretrain) -> dict[str, LossTerm]:
        """The terms of the loss, for a micro-batch in which some sample has a term.

        The loss of a step is the sum over terms of the mean over all samples that have the term.
        """

    def samples_per_term(self, batch: B, settings: Pretrain) -> dict[str, int]:
        """Number of samples of a micro-batch that have each term: the length of its loss_S."""

    def is_complete(self, batch: B) -> bool:
        """Whether every network has something to compute in a micro-batch (for `sync_bn`)."""

    def after_step(self, nets: nn.ModuleDict, settings: Pretrain) -> None:
        """Called after each completed step."""


class MatchingModule(ModeModule[B], Protocol):
    """A mode with `matching` in its record, which `pri3d evaluate` measures by correspondences.

    A mode that reads chunks has the projection heads w2d and w3d among its networks.
    """

    def feature_maps(self, nets: nn.ModuleDict, image_BCHW: Tensor, settings: Pretrain) -> Tensor:
        """Features of every cell of a batch of images, float32 [B, C, H / 2, W / 2]."""


def module_of(mode: str) -> ModeModule[Any]:
    """The module of a mode (a key of MODES)."""
    return cast("ModeModule[Any]", importlib.import_module(f"{__name__}.{mode}"))


def matching_module_of(mode: str) -> MatchingModule[Any]:
    """The module of a mode with `matching` in its record."""
    return cast("MatchingModule[Any]", module_of(mode))
