"""Checkpoints of a run that is under way, and the weights that a finished run leaves."""

import json
import math
import sys
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from pri3d import store
from pri3d.errors import Pri3DError


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write `step_<step>.pt` whole or not at all, then remove all but the newest `keep`."""
    path = folder / f"step_{step:08d}.pt"
    save_torch(path, state)
    for old in _all(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that can be read, on the CPU; damaged ones are named on stderr."""
    for path in reversed(_all(folder)):
        try:
            with zipfile.ZipFile(path) as archive:  # torch.load passes over the checksums
                if damaged := archive.testzip():
                    raise ValueError(f"{damaged} fails its checksum")
            return path, torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # what torch raises depends on which byte is damaged
            reason = first_line(error)
            print(f"{path}: cannot be read ({reason}); trying an older one", file=sys.stderr)
    return None


def changed(
    before: dict[str, Any], now: dict[str, Any], of_no_account: Collection[str]
) -> list[str]:
    """The settings of a run that are others than they were, with both values."""
    return [
        f"{name} ({before.get(name)} then, {value} now)"
        for name, value in now.items()
        if before.get(name) != value and name not in of_no_account
    ]


def remove_all(folder: Path) -> None:
    for path in _all(folder):
        path.unlink(missing_ok=True)  # several processes of a run do this at once


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*.pt"))


def save_torch(path: Path, content: dict[str, Any]) -> None:
    """Write a file of torch's, whole or not at all."""
    with store.atomic_path(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # how torch says that the disk is full
            raise Pri3DError(f"{path}: cannot be written ({first_line(error)})") from None


def save_weights(path: Path, nets: nn.Module) -> None:
    """All parameters and buffers as safetensors, under their names in `nets`."""
    save_tensors(path, {name: value.contiguous() for name, value in nets.state_dict().items()})


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Contiguous tensors as safetensors, whole or not at all."""
    with store.atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": "pt"})
        except SafetensorError as error:
            raise Pri3DError(f"{path}: cannot be written ({first_line(error)})") from None


def first_line(error: Exception) -> str:
    """What an exception says, for a message of one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def save_json(path: Path, content: dict[str, Any]) -> None:
    with store.atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def without_nan(value: Any) -> Any:
    """For JSON, which knows no nan: None."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
