"""Finished finetuning runs, read back."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pri3d.errors import Pri3DError, first_line
from pri3d.run.folder import Provenance, Run, read_run


def read_finetuned(folder: Path) -> tuple[Run, str, Provenance]:
    """A finished finetuning run, its task, and what it was made from.

    Raises:
        Pri3DError: the folder holds no run, a pretraining run, or one that is not finished.
    """
    run = read_run(folder)
    if run.task is None:
        raise Pri3DError(
            f"{folder}: is a pretraining run ({run.mode}); give a run of `pri3d finetune`, or "
            "measure this one with --held-out"
        )
    if run.provenance is None or not run.weights.is_file():
        raise Pri3DError(f"{folder}: is not finished; run `pri3d finetune` again to resume it")
    return run, run.task, run.provenance


def to_device(nets: nn.Module, device: torch.device) -> None:
    """Move 2D networks to a device, in the memory layout that convolutions are fastest in."""
    nets.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def load_trained(run: Run, nets: nn.ModuleDict) -> None:
    """Load the weights of a run into its networks, in evaluation mode.

    Raises:
        Pri3DError: the weights cannot be read, or are of other networks.
    """
    try:
        nets.load_state_dict(load_file(run.weights))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise Pri3DError(
            f"{run.weights}: does not hold the networks of its settings ({first_line(error)}); "
            "finetune again"
        ) from None
    nets.eval()
