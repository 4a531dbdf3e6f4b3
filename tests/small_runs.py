"""Tiny trainings for tests: their settings, and how they are run and read."""

import json
from pathlib import Path
from typing import Any

from click.testing import Result
from make_artefacts import read_metrics
from typer.testing import CliRunner

from pri3d.cli import app
from pri3d.config import Pretrain
from pri3d.pretrain import train

RUNTIME = {"workers": 0, "threads": 1, "device": "cpu"}
TINY_NETWORK_3D = {"widths": [8] * 8, "blocks": [1] * 8}
# Pretraining on the rooms of make_artefacts.
TINY = RUNTIME | {
    "height": 64,
    "width": 64,
    "batch": 1,
    "matches": 64,
    "radius_m": 0.04,
    "network3d": TINY_NETWORK_3D,
}
# Finetuning on clouds.
TINY_CLOUDS = RUNTIME | {
    "network3d": TINY_NETWORK_3D | {"stem_kernel": 3},
    "voxel_m": 0.1,
    "batch": 2,
}


def settings(**changed: Any) -> Pretrain:
    """Settings of a tiny pretraining."""
    return Pretrain(**TINY | changed)


def run_training(
    room: dict[str, Path],
    out: Path,
    mode: str = "view",
    variant: str | None = None,
    **changed: Any,
) -> None:
    """Run a tiny pretraining on a room made by `make_artefacts`."""
    train.run(**room, out=out, mode=mode, settings=settings(**changed), variant=variant)


def invoke_finetune(task: str, data: Path, out: Path, **given: Any) -> Result:
    """Call `pri3d finetune` with the settings."""
    words = [f"--set={name}={json.dumps(value)}" for name, value in given.items()]
    words = ["finetune", task, "--data", str(data), "--out", str(out), *words]
    return CliRunner().invoke(app, words)


def finetune(task: str, data: Path, out: Path, **given: Any) -> dict[str, Any]:
    """Finetune; the last line of the metrics."""
    result = invoke_finetune(task, data, out, **given)
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


def mean_losses(out: Path, lines: int) -> tuple[dict[str, float], dict[str, float]]:
    """Means of all losses over the first and over the last lines of the metrics of a run."""
    metrics = read_metrics(out)
    names = [name for name in metrics[0] if name == "loss" or name.endswith("_loss")]
    first, last = (
        {name: sum(line[name] for line in part) / lines for name in names}
        for part in (metrics[:lines], metrics[-lines:])
    )
    return first, last
