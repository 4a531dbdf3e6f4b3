"""Several processes of one command, as `torchrun` starts them but without its start-up time."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(words: Sequence[str], ranks: int) -> list[subprocess.Popen]:
    """Start `pri3d words...`, once or in several processes."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    own = [{"RANK": str(r), "LOCAL_RANK": str(r), "WORLD_SIZE": str(ranks)} for r in range(ranks)]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "pri3d", *words],
            env=os.environ | (address | each if ranks > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in own
    ]


def weights_of(processes: list[subprocess.Popen], out: Path) -> dict[str, torch.Tensor]:
    """The weights in the folder of a run, when its processes have ended without an error."""
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    return load_file(out / "model.safetensors")


def assert_close(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        scale = value.double().abs().max().clamp(min=1e-2)
        assert ((value - others[name]).double().abs().max() / scale) < 1e-6, name
