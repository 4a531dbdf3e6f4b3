"""The record of a run: `metrics.jsonl`, TensorBoard events and, on request, Weights & Biases."""

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.tensorboard import SummaryWriter

from pri3d.config import RUNTIME
from pri3d.errors import Pri3DError

SKIPPED = "skipped: "  # before a reason, among the sums


def pace(
    unit: str, step: int, steps: int, window: Counter, ever: Counter, device: torch.device
) -> dict[str, Any]:
    """What every line has: how much was seen, what was skipped, how fast it goes, time left.

    unit: what is counted ("pairs", "images"). window: sums since the line before; ever: since the
    run's beginning; both have `seconds`, window has `waited_s`.
    """
    values = {
        unit: ever[unit],
        "skipped": skipped(ever),
        f"{unit}_per_s": window[unit] / max(window["seconds"], 1e-9),
        "data_wait_share": window["waited_s"] / max(window["seconds"], 1e-9),
        "memory_mb": memory_mb(),
        "elapsed_s": ever["seconds"],
        "left_s": ever["seconds"] / step * (steps - step),
    }
    if device.type == "cuda":
        values["gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return values


def skipped(ever: Counter) -> dict[str, int]:
    """LossTerm and samples left out since the beginning, by reason."""
    return {
        key.removeprefix(SKIPPED): int(n)
        for key, n in sorted(ever.items())
        if key.startswith(SKIPPED)
    }


def memory_mb() -> float:
    """Resident memory of this process and its workers; pages they share count for each."""
    process = psutil.Process()
    total = process.memory_info().rss
    for child in process.children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.Error:  # it just ended
            continue
    return total / 2**20


class MetricsWriter:
    """Writes lines to `metrics.jsonl` and TensorBoard; begins with the `history` of a checkpoint.

    Whatever an interrupted run wrote after its checkpoint is gone then, so that no line is doubled.
    out: the run's folder, or None where another process writes. wandb: what the run is made from,
    to send the lines to Weights & Biases too; Pri3DError where that is not installed.
    """

    def __init__(self, out: Path | None, history: str, wandb: dict[str, Any] | None = None):
        self._lines: list[str] = []
        self._out, self._wandb = out, None
        if out is None:
            return
        if wandb is not None:
            self._wandb = _wandb_run(out, wandb)
        out.mkdir(parents=True, exist_ok=True)
        self._file = open(out / "metrics.jsonl", "w")  # noqa: SIM115 - closed by __exit__
        shutil.rmtree(out / "tensorboard", ignore_errors=True)
        self._events = SummaryWriter(out / "tensorboard")
        for text in history.splitlines():
            self._record(json.loads(text))

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self._out is not None:
            self._file.close()
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(kind is not None))

    @property
    def text(self) -> str:
        """All lines so far."""
        return "".join(self._lines)

    def write(self, values: dict) -> None:
        if self._out is not None:
            self._record(values)
        if self._wandb is not None:
            self._wandb.log(values, step=values["step"])

    def _record(self, values: dict) -> None:
        self._lines.append(json.dumps(values) + "\n")
        self._file.write(self._lines[-1])
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, (int, float)) and name != "step":
                self._events.add_scalar(name, value, values["step"])
        self._events.flush()


def _wandb_run(out: Path, made_from: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError:
        raise Pri3DError(
            "pretrain.wandb: Weights & Biases is not installed; pip install 'pri3d[wandb]', or set "
            "it to false"
        ) from None
    # The same run, however often it is interrupted, is one run there too.
    # What may change on the way is none of its name.
    settings = {k: v for k, v in made_from["settings"].items() if k not in RUNTIME}
    text = json.dumps([str(out.resolve()), made_from["mode"], settings], sort_keys=True)
    return wandb.init(
        project="pri3d",
        name=out.name,
        dir=str(out),
        id=hashlib.sha256(text.encode()).hexdigest()[:16],
        resume="allow",
        config={"mode": made_from["mode"], **made_from["settings"]},
    )
