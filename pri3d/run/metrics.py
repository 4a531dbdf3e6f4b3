"""The metrics of a run: `metrics.jsonl`, TensorBoard events and, on request, Weights & Biases.

A line of `metrics.jsonl` has means over the steps since the previous line; `skipped`, `elapsed_s`
and the number of samples ("pairs", "images", ...) are sums since the start of the run, also across
interruptions. For each term T of the loss: T_loss and, where it is a contrast, T_loss_chance =
ln(candidates) of an untrained network; T_recall, the share of anchors whose own candidate is the
most similar, and T_recall_chance = 1 / candidates; T_candidates. A loss that falls while recall
stays at chance means that the network learns something other than matching.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import torch
from torch.utils.tensorboard import SummaryWriter

from pri3d.config import RUNTIME
from pri3d.errors import Pri3DError
from pri3d.run.folder import METRICS
from pri3d.run.identity import Identity

SKIPPED = "skipped: "  # before the reason, in the names of sums
SAMPLES = "_samples"  # after a term: number of samples that the sums of the term are over
# Figures of a term, longest first.
FIGURES = ("_recall_chance", "_loss_chance", "_candidates", "_recall", "_loss")


class Sums(dict[str, float]):
    """Sums by name; 0 for a name that is not there."""

    def __missing__(self, name: str) -> float:
        return 0

    def add(self, values: Mapping[str, float]) -> None:
        """Add values to the sums of the same names."""
        for name, value in values.items():
            self[name] += value


def line(
    unit: str,
    step: int,
    steps: int,
    lr: float,
    interval: Sums,
    total: Sums,
    device: torch.device,
) -> dict[str, Any]:
    """One line of `metrics.jsonl`.

    Args:
        unit: kind of sample, in the plural.
        step: number of the step, counted from 1, of `steps`.
        lr: learning rate of the step.
        interval: sums since the previous line: `updates` (steps that changed the weights), `loss`,
            `grad_norm`, `seconds`, `waited_s` (for samples), number of samples under `unit`,
            skipped samples by reason, figures of each term, and the samples that these are over. A
            term without its own number of samples is a mean over the updates.
        total: the same sums since the start of the run.
        device: device of this process.
    """
    values: dict[str, Any] = {"step": step, "loss": None, "grad_norm": None}
    if updates := interval["updates"]:
        values["loss"] = interval["loss"] / updates
        values["grad_norm"] = interval["grad_norm"] / updates
    for name, value in interval.items():
        figure = next((each for each in FIGURES if name.endswith(each)), None)
        if figure is not None and not name.startswith(SKIPPED):
            samples = interval.get(name.removesuffix(figure) + SAMPLES, updates)
            if samples:
                values[name] = value / samples
    return {
        **values,
        "lr": lr,
        **_pace(unit, step, steps, interval, total),
        **_memory(device),
    }


def _pace(unit: str, step: int, steps: int, interval: Sums, total: Sums) -> dict[str, Any]:
    seconds = max(interval["seconds"], 1e-9)
    return {
        unit: total[unit],
        "skipped": skipped(total),
        f"{unit}_per_s": interval[unit] / seconds,
        "data_wait_share": interval["waited_s"] / seconds,
        "memory_mb": memory_mb(),
        "elapsed_s": total["seconds"],
        "left_s": total["seconds"] / step * (steps - step),
    }


def _memory(device: torch.device) -> dict[str, float]:
    if device.type != "cuda":
        return {}
    return {"gpu_memory_mb": torch.cuda.max_memory_allocated(device) / 2**20}


def skipped(total: Sums) -> dict[str, int]:
    """Reason -> number of samples, or terms of samples, that could not be used."""
    return {
        name.removeprefix(SKIPPED): int(number)
        for name, number in sorted(total.items())
        if name.startswith(SKIPPED)
    }


def memory_mb() -> float:
    """Resident memory of this process and its workers; shared pages count once per process."""
    process = psutil.Process()
    total: float = process.memory_info().rss
    for child in process.children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.Error:  # it just ended
            continue
    return total / 2**20


class MetricsWriter:
    """Writes lines to `metrics.jsonl`, TensorBoard and, on request, Weights & Biases.

    It begins with the lines of a checkpoint. Lines that an interrupted run wrote after its
    checkpoint are dropped, so that none occurs twice.
    """

    def __init__(self, out: Path | None, history: str, wandb: Identity | None = None) -> None:
        """Open the files.

        Args:
            out: folder of the run; None in all processes but the first, which write nothing.
            history: lines of the checkpoint.
            wandb: identity of the run, to send the lines to Weights & Biases too.

        Raises:
            Pri3DError: Weights & Biases is requested and not installed.
        """
        self._lines: list[str] = []
        self._out, self._wandb = out, None
        if out is None:
            return
        if wandb is not None:
            self._wandb = _wandb_run(out, wandb)
        out.mkdir(parents=True, exist_ok=True)
        self._file = open(out / METRICS, "w")  # noqa: SIM115 - closed by __exit__
        shutil.rmtree(out / "tensorboard", ignore_errors=True)
        self._events = SummaryWriter(out / "tensorboard")
        for text in history.splitlines():
            self._record(json.loads(text))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._out is not None:
            self._file.close()
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(kind is not None))

    @property
    def text(self) -> str:
        """All lines so far."""
        return "".join(self._lines)

    def write(self, values: dict[str, Any]) -> None:
        """Append one line, an object with `step`."""
        if self._out is not None:
            self._record(values)
        if self._wandb is not None:
            self._wandb.log(values, step=values["step"])

    def _record(self, values: dict[str, Any]) -> None:
        self._lines.append(json.dumps(values) + "\n")
        self._file.write(self._lines[-1])
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, (int, float)) and name != "step":
                self._events.add_scalar(name, value, values["step"])
        self._events.flush()


def _wandb_run(out: Path, identity: Identity) -> Any:
    try:
        import wandb
    except ImportError:
        raise Pri3DError(
            f"{identity.section}.wandb: Weights & Biases is not installed; pip install "
            "'pri3d[wandb]', or set it to false"
        ) from None
    settings = identity.settings.model_dump()
    # An interrupted run resumes under its id, which settings that may change are no part of.
    fixed = {name: value for name, value in settings.items() if name not in RUNTIME}
    text = json.dumps([str(out.resolve()), identity.name, fixed], sort_keys=True)
    return wandb.init(
        project="pri3d",
        name=out.name,
        dir=str(out),
        id=hashlib.sha256(text.encode()).hexdigest()[:16],
        resume="allow",
        config={"mode" if identity.kind == "pretrain" else "task": identity.name, **settings},
    )
