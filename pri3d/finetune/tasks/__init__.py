"""The kinds of task: one module per row of KINDS, found by its name.

Each has the functions of `TrainingModule` and of `MeasuringModule`. Kinds with pictures also have
the functions of `ImageModule`, and kinds with a benchmark `write_submission` of `SubmissionModule`.
A new kind of task is one module here, one row of KINDS and its settings; a new task of a kind is
one row of TASKS.
"""

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pri3d.classes import ClassSet
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


class Item(Protocol):
    """A sample to measure. position: in its split; notes: as in `Batch`."""

    @property
    def position(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def notes(self) -> list[str]: ...


# D: data, S: settings, B: batches, I: items, P: predictions for one item, C: counts over all items.
D = TypeVar("D")
B = TypeVar("B")
I = TypeVar("I")  # noqa: E741
P = TypeVar("P")
C = TypeVar("C")
D_contra = TypeVar("D_contra", contravariant=True)
S_contra = TypeVar("S_contra", contravariant=True)
I_contra = TypeVar("I_contra", contravariant=True)
P_contra = TypeVar("P_contra", contravariant=True)


class TrainingModule(Protocol[D, S_contra, B]):
    """The functions that train networks."""

    def open_data(self, dataset: str, root: Path, split: str) -> D:
        """Open a split ("train", "val", or "test" where there is one) of a data set."""

    def select(self, data: D, settings: S_contra) -> list[int]:
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

    def samples(self, data: D, chosen: list[int], settings: S_contra) -> "Dataset[Any]":
        """The endless list of training samples; see `pri3d.finetune.samples`."""

    def collate(self, samples: list[Any]) -> B:
        """One micro-batch of samples, damaged ones among them."""

    def networks(self, data: D, settings: S_contra) -> nn.ModuleDict:
        """The networks for the classes of the data, with random weights."""

    def load_initial_weights(self, nets: nn.ModuleDict, settings: S_contra) -> InitialWeights:
        """Load the setting `initial_weights` into new networks.

        Raises:
            Pri3DError: the weights are not available or do not fit.
        """

    def freeze_and_select(self, nets: nn.ModuleDict, settings: S_contra) -> list[nn.Parameter]:
        """Freeze what the settings exclude from training, and return the other parameters."""

    def set_training_mode(self, nets: nn.ModuleDict, settings: S_contra) -> None:
        """Set the networks to training mode, frozen parts to evaluation mode."""

    def losses(self, nets: nn.ModuleDict, batch: B, settings: S_contra) -> dict[str, Tensor]:
        """The losses, whose sum is minimized; empty where the batch has nothing to learn from."""

    def weight(self, batch: B, settings: S_contra) -> float:
        """The number of pixels, voxels, images or scenes by which micro-batches are weighted: what
        the losses average over, or what comes closest. 0 if there is nothing to learn from.
        """

    def optimizer(
        self, parameters: list[nn.Parameter], settings: S_contra
    ) -> torch.optim.Optimizer:
        """The optimizer."""

    def learning_rate(self, settings: S_contra, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 1."""


class MeasuringModule(Protocol[D_contra, S_contra, I, P, C]):
    """The functions that measure trained networks."""

    ITEMS_AT_ONCE: int

    def measurable(self, data: D_contra) -> list[int]:
        """Positions of the samples that can be measured."""

    def read_item(self, data: D_contra, position: int, settings: S_contra) -> I:
        """One sample with its labels; without, in a split that has none.

        Raises:
            Pri3DError: the sample is damaged.
        """

    def predict_items(
        self, nets: nn.ModuleDict, items: list[I], settings: S_contra, device: torch.device
    ) -> list[P]:
        """Predictions for at most ITEMS_AT_ONCE items."""

    def new_counts(self, data: D_contra) -> C:
        """Counts of no item."""

    def count(self, counts: C, data: D_contra, item: I, prediction: P) -> None:
        """Add one item to the counts."""

    def figures(self, counts: C, data: D_contra) -> dict[str, Any]:
        """What is reported of all items, as JSON; nan where a figure is not defined."""

    def summary(self, result: dict[str, Any]) -> list[str]:
        """The main figures, one line each, for people."""


class SubmissionModule(Protocol[D_contra, I_contra, P_contra]):
    """Kinds of task with a benchmark."""

    def write_submission(
        self, folder: Path, data: D_contra, item: I_contra, prediction: P_contra
    ) -> None:
        """Write the predictions for one item as ScanNet's benchmark reads them."""


class ImageModule(Protocol[D_contra, S_contra, I_contra, P_contra]):
    """Kinds of task on images."""

    def picture(self, data: D_contra, item: I_contra, prediction: P_contra) -> np.ndarray:
        """The prediction beside the labels, u8 [H, W, 3]."""

    def class_set(self, data: D_contra | type[D_contra]) -> ClassSet:
        """The classes of a data set for this kind of task."""

    def build(self, classes: int, settings: S_contra) -> nn.ModuleDict:
        """The networks for a number of classes, with random weights."""

    def predict_image(
        self,
        nets: nn.ModuleDict,
        rgb: np.ndarray,
        classes: ClassSet,
        settings: S_contra,
        device: torch.device,
        stem: Path,
    ) -> tuple[np.ndarray, str]:
        """Write the predictions for an image (u8 [H, W, 3]) to files whose paths begin with `stem`.

        Returns:
            A picture of them, u8 [H, W, 3], and a summary of one line.
        """


def module_name(kind: str) -> str:
    """The name of the module of a kind of task (a key of KINDS)."""
    return f"{__name__}.{kind}"


def module_of(kind: str) -> TrainingModule[Any, Any, Any]:
    """The module of a kind of task, as what trains it."""
    return cast("TrainingModule[Any, Any, Any]", importlib.import_module(module_name(kind)))


def measuring_module(kind: str) -> MeasuringModule[Any, Any, Any, Any, Any]:
    """The module of a kind of task, as what measures it."""
    module = importlib.import_module(module_name(kind))
    return cast("MeasuringModule[Any, Any, Any, Any, Any]", module)


def submission_module(kind: str) -> SubmissionModule[Any, Any, Any]:
    """The module of a kind of task with a benchmark."""
    return cast("SubmissionModule[Any, Any, Any]", importlib.import_module(module_name(kind)))


def image_module(kind: str) -> ImageModule[Any, Any, Any, Any]:
    """The module of a kind of task on images."""
    return cast("ImageModule[Any, Any, Any, Any]", importlib.import_module(module_name(kind)))
