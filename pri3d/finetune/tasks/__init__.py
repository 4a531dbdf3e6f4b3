"""The kinds of task: one module per row of KINDS, all with the functions of `KindModule`."""

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pri3d.config import TASKS
from pri3d.datasets.frames import Frame
from pri3d.finetune.samples import Damaged
from pri3d.run.folder import InitialWeights


class Data(Protocol):
    """A split of a labeled data set."""

    name: str
    split: str
    frames: list[Frame]
    problems: list[str]


class Batch(Protocol):
    """Samples of one micro-batch. notes: what was repaired or ignored in them, one sentence each.
    damaged: samples that cannot be read.
    """

    @property
    def names(self) -> list[str]: ...

    @property
    def damaged(self) -> list[Damaged]: ...

    @property
    def notes(self) -> list[str]: ...


D = TypeVar("D")
S = TypeVar("S", contravariant=True)
B = TypeVar("B")


class KindModule(Protocol[D, S, B]):
    """The functions of a kind of task. D: its data, S: its settings, B: its batches."""

    def open_data(self, dataset: str, root: Path, split: str) -> D:
        """Open a split ("train", "val", or "test" where there is one) of a data set."""

    def select(self, data: D, settings: S) -> list[int]:
        """Positions of the training samples that are used.

        Raises:
            Pri3DError: there are none.
        """

    def problems(self, data: D) -> list[str]:
        """What of the data cannot be used for this kind of task, one sentence each."""

    def content(self, data: D, position: int) -> Iterable[np.ndarray]:
        """The arrays of one sample, as they are stored, for the digest of the data.

        Raises:
            Pri3DError: the sample is damaged.
        """

    def samples(self, data: D, chosen: list[int], settings: S) -> "Dataset[Any]":
        """The endless list of training samples; see `pri3d.finetune.samples`."""

    def collate(self, samples: list[Any]) -> B:
        """One micro-batch of samples, damaged ones among them."""

    def networks(self, data: D, settings: S) -> nn.ModuleDict:
        """The networks for the classes of the data, with random weights."""

    def load_initial_weights(self, nets: nn.ModuleDict, settings: S) -> InitialWeights:
        """Load the setting `initial_weights` into new networks.

        Raises:
            Pri3DError: the weights are not available or do not fit.
        """

    def freeze_and_select(self, nets: nn.ModuleDict, settings: S) -> list[nn.Parameter]:
        """Freeze what the settings exclude from training, and return the other parameters."""

    def set_training_mode(self, nets: nn.ModuleDict, settings: S) -> None:
        """Set the networks to training mode, frozen parts to evaluation mode."""

    def losses(self, nets: nn.ModuleDict, batch: B, settings: S) -> dict[str, Tensor]:
        """The losses, whose sum is minimized; empty where the batch has nothing to learn from."""

    def weight(self, batch: B, settings: S) -> float:
        """The number of things that the losses average over, to weight micro-batches by; 0 where
        the batch has nothing to learn from.
        """

    def optimizer(self, parameters: list[nn.Parameter], settings: S) -> torch.optim.Optimizer:
        """The optimizer."""

    def learning_rate(self, settings: S, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 1."""


def module_of(kind: str) -> KindModule[Any, Any, Any]:
    """The module of a kind of task (a key of KINDS)."""
    return cast("KindModule[Any, Any, Any]", importlib.import_module(module_name(kind)))


def module_name(kind: str) -> str:
    """The name of the module of a kind of task, for `code_digest`."""
    return f"{__name__}.{kind}"


def module_of_task(task: str) -> KindModule[Any, Any, Any]:
    """The module of the kind of a task (a key of TASKS)."""
    return module_of(TASKS[task].kind)
