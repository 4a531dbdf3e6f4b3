"""Checkpoints of a run that is not finished, and files of weights."""

import logging
import math
import zipfile
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from pri3d import store
from pri3d.errors import Pri3DError

_log = logging.getLogger(__name__)


class State(TypedDict):
    """The content of a checkpoint.

    step: last finished step, of `steps`. model, optimizer: their `state_dict`. metrics: lines of
    `metrics.jsonl`. interval, total: sums for the metrics since the last of these lines, and since
    the start. initial_weights: network -> fields of its `InitialWeights`. identity: JSON, see
    `pri3d.run.identity`.
    """

    step: int
    steps: NotRequired[int]  # not of version 0.1
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    metrics: str
    interval: dict[str, float]
    total: dict[str, float]
    initial_weights: dict[str, dict[str, Any]]
    identity: NotRequired[str]  # not of version 0.1
    made_from: NotRequired[str]  # of version 0.1


def save(folder: Path, state: State, keep: int) -> Path:
    """Write `step_<step>.pt` atomically, then remove all but the most recent `keep`.

    Raises:
        Pri3DError: the disk is full.
    """
    path = folder / f"step_{state['step']:08d}.pt"
    save_torch(path, state)
    for old in _all(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def newest(folder: Path) -> tuple[Path, State] | None:
    """The newest checkpoint that can be read, on the CPU; damaged ones are reported."""
    for path in reversed(_all(folder)):
        try:
            with zipfile.ZipFile(path) as archive:  # torch.load does not check the checksums
                if damaged := archive.testzip():
                    raise ValueError(f"{damaged} fails its checksum")
            return path, torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # the type depends on which byte is damaged
            reason = first_line(error)
            _log.warning("%s: cannot be read (%s); trying an older one", path, reason)
    return None


def remove_all(folder: Path) -> None:
    """Remove all checkpoints; several processes of a run may do so at once."""
    for path in _all(folder):
        path.unlink(missing_ok=True)


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*.pt"))


def save_torch(path: Path, content: Any) -> None:
    """Write a file with `torch.save`, atomically.

    Raises:
        Pri3DError: the disk is full.
    """
    with store.atomic_path(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch's error for a full disk
            raise Pri3DError(f"{path}: cannot be written ({first_line(error)})") from None


def save_weights(path: Path, nets: nn.Module) -> None:
    """Write all parameters and buffers as safetensors, under their names in `nets`.

    Raises:
        Pri3DError: the file cannot be written.
    """
    save_tensors(path, {name: value.contiguous() for name, value in nets.state_dict().items()})


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write contiguous tensors as safetensors, atomically.

    Raises:
        Pri3DError: the file cannot be written.
    """
    with store.atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": "pt"})
        except SafetensorError as error:
            raise Pri3DError(f"{path}: cannot be written ({first_line(error)})") from None


def first_line(error: Exception) -> str:
    """The first line of an exception's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def without_nan(value: Any) -> Any:
    """The value with None in place of nan, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
