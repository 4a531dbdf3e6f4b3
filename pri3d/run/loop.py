"""The training loop of pretraining and finetuning.

A run can be killed at any moment and started again: it resumes from its newest checkpoint, and on a
CPU it ends with the same bits as a run that was never interrupted. Under `torchrun` the processes
share the micro-batches of each step; the first of them writes the files.
"""

import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from pri3d.config import Training
from pri3d.errors import Pri3DError
from pri3d.run import checkpoint, processes
from pri3d.run.folder import CHECKPOINTS, InitialWeights
from pri3d.run.identity import Identity
from pri3d.run.metrics import MetricsWriter, skipped
from pri3d.run.signals import stop_requests
from pri3d.run.step import Step

Sums = Counter[str]


class Job(NamedTuple):
    """A training that is about to start.

    nets: on the device. state: checkpoint to resume from. batches: (first step, event that is set
    at the end) -> the micro-batches of each step. learning_rate: of a step, counted from 1. step:
    (number, micro-batches, whether a stop was requested) -> what happened. line: (number, learning
    rate, sums since the last line, sums of the whole run) -> a line of metrics.jsonl.
    """

    out: Path
    identity: Identity
    settings: Training
    nets: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    initial_weights: dict[str, InitialWeights]
    state: dict[str, Any] | None
    batches: Callable[[int, Any], Iterator[Sequence[Any]]]
    learning_rate: Callable[[int], float]
    step: Callable[[int, Sequence[Any], Callable[[], bool]], Step]
    line: Callable[[int, float, Sums, Sums], dict[str, Any]]
    here: processes.Processes


def train(job: Job) -> Sums:
    """Train until the last step, and return the sums of the whole run.

    Raises:
        Pri3DError: the loss is not finite, nothing could be trained on, or the run was asked to
            stop (SIGTERM, SIGINT); in the last case it has written a checkpoint.
    """
    out, settings, steps, here = job.out, job.settings, job.identity.steps, job.here
    is_lead = here.rank == 0
    first, history = 0, ""
    interval: Sums = Counter()  # sums since the last line of metrics
    total: Sums = Counter()  # sums of the whole run
    if job.state:
        job.nets.load_state_dict(job.state["model"])
        job.optimizer.load_state_dict(job.state["optimizer"])
        first, history = job.state["step"], job.state["metrics"]
        interval, total = Counter(job.state["interval"]), Counter(job.state["total"])

    closing = multiprocessing.Event()
    batches = job.batches(first, closing)
    with (
        stop_requests(closing) as requests,
        MetricsWriter(
            out if is_lead else None, history, job.identity if settings.wandb else None
        ) as metrics,
        tqdm(
            total=steps,
            initial=first,
            unit="step",
            desc=out.name,
            disable=None if is_lead else True,  # None: hidden without a terminal
        ) as bar,
    ):
        new: Sums = Counter()  # sums of this process that are not yet shared
        for number in range(first + 1, steps + 1):
            began = time.perf_counter()
            micro_batches = next(batches)
            waited = time.perf_counter() - began
            rate = job.learning_rate(number)
            for group in job.optimizer.param_groups:
                group["lr"] = rate

            done = job.step(number, micro_batches, lambda: bool(requests))
            if done.not_finite:
                raise Pri3DError(
                    f"{out}: the loss is {done.loss}, its gradient {done.grad_norm}, at step "
                    f"{number} (samples: {'; '.join(done.not_finite)}); check these samples, or "
                    f"lower {job.identity.section}.lr"
                )
            if not done.given_up:
                new.update(done.sums)
                if is_lead:
                    new.update(seconds=time.perf_counter() - began, waited_s=waited)
                if is_lead and done.loss is not None:
                    new.update(updates=1, loss=done.loss, grad_norm=done.grad_norm)
                bar.update()

            last = number == steps and not done.given_up
            stop = done.stop and not last
            logging = not done.given_up and (number % settings.log_every == 0 or last)
            saving = number % settings.checkpoint_every == 0 or last or stop
            if logging or saving:
                for sums in processes.gather(new):
                    interval.update(sums)
                    total.update(sums)
                new.clear()
            if logging:
                line = job.line(number, rate, interval, total)
                metrics.write(line)
                bar.set_postfix(_shown(line))
                interval.clear()
            if saving and is_lead:
                state = {
                    "step": number - done.given_up,
                    "model": job.nets.state_dict(),
                    "optimizer": job.optimizer.state_dict(),
                    "metrics": metrics.text,
                    "interval": dict(interval),
                    "total": dict(total),
                    "initial_weights": {k: v._asdict() for k, v in job.initial_weights.items()},
                    "identity": json.dumps(job.identity._asdict()),
                }
                checkpoint.save(out / CHECKPOINTS, state["step"], state, settings.keep_checkpoints)
            if stop:
                signal = requests[0] if requests else "a signal to another process"
                raise Pri3DError(
                    f"{out}: stopped by {signal} after step {number - done.given_up} of {steps}; "
                    f"run the same command again to resume from {out / CHECKPOINTS}"
                )

    if not total["updates"]:
        reasons = ", ".join(f"{reason} ({n})" for reason, n in skipped(total).items())
        raise Pri3DError(
            f"{out}: nothing could be trained on: {reasons or 'no sample has labels'}; check the "
            "data"
        )
    return total


def initial_weights_of(state: dict[str, Any]) -> dict[str, InitialWeights]:
    """The initial weights that a checkpoint records."""
    return {part: InitialWeights(**each) for part, each in state["initial_weights"].items()}


def _shown(line: dict[str, Any]) -> dict[str, str]:
    """Figures beside the progress bar: the loss, and recalls."""
    names = [name for name in line if name == "loss" or name.endswith("_recall")]
    return {name: f"{line[name]:.3g}" for name in names if line[name] is not None}
