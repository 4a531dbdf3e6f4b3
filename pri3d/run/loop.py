"""The training loop of pretraining and finetuning.

A run can be killed at any moment and started again: it resumes from its newest checkpoint, and on a
CPU it ends with the same bits as a run that was never interrupted. Several processes share the
micro-batches of each step; the first of them writes the files.
"""

import logging
import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import pri3d
from pri3d.errors import Pri3DError
from pri3d.run import checkpoint, processes
from pri3d.run.batches import Samples, batches_of_steps
from pri3d.run.checkpoint import State
from pri3d.run.folder import CHECKPOINTS, WEIGHTS, InitialWeights, Provenance, write_provenance
from pri3d.run.identity import Identity, as_json
from pri3d.run.metrics import MetricsWriter, Sums, line, skipped
from pri3d.run.signals import stop_requests
from pri3d.run.step import Step


def train(
    out: Path,
    identity: Identity,
    *,
    nets: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    samples: Samples,
    collate: Callable[[list[Any]], Any],
    step: Callable[[int, Sequence[Any], Callable[[], bool]], Step],
    learning_rates: Sequence[float],
    initial_weights: dict[str, InitialWeights],
    state: State | None,
    unit: str,
    here: processes.Processes,
) -> None:
    """Train until the last step.

    Args:
        out: folder of the run.
        identity: of the run; its settings say when to log and to save.
        nets: networks on their device, in training mode.
        optimizer: of their parameters.
        samples: of the whole run, in the order in which they are trained on.
        collate: puts the samples of a micro-batch together, as a NamedTuple with `names`.
        step: (number, micro-batches of this process, whether it was requested to stop) -> result.
        learning_rates: of each step.
        initial_weights: network -> where its weights come from, for the checkpoint.
        state: checkpoint to resume from, which networks and optimizer have loaded already.
        unit: kind of sample, in the plural.
        here: this process.

    Raises:
        Pri3DError: the loss is not finite, nothing could be trained on, a sample cannot be read, or
            the run was stopped by a signal, in which case it has written a checkpoint.
    """
    settings, steps, is_first = identity.settings, len(learning_rates), here.rank == 0
    done = state["step"] if state else 0
    interval = Sums(state["interval"] if state else {})  # since the last line of metrics
    total = Sums(state["total"] if state else {})  # since the start of the run
    unshared: list[Sums] = []  # of this process, one per step; not yet in `interval` and `total`
    closing = multiprocessing.Event()
    batches = batches_of_steps(samples, collate, identity, done, steps, here, closing)
    with (
        stop_requests(closing) as requests,
        MetricsWriter(
            out if is_first else None,
            state["metrics"] if state else "",
            identity if settings.wandb else None,
        ) as metrics,
        tqdm(
            total=steps,
            initial=done,
            unit="step",
            desc=out.name,
            disable=None if is_first else True,  # None: hidden without a terminal
        ) as bar,
        logging_redirect_tqdm([logging.getLogger("pri3d")]),
    ):
        for number in range(done + 1, steps + 1):
            began = time.perf_counter()
            micro_batches = next(batches)
            waited = time.perf_counter() - began
            lr = learning_rates[number - 1]
            for group in optimizer.param_groups:
                group["lr"] = lr

            result = step(number, micro_batches, lambda: bool(requests))
            if result.not_finite:
                raise Pri3DError(
                    f"{out}: the loss is {result.loss}, its gradient {result.grad_norm}, at step "
                    f"{number} (samples: {'; '.join(result.not_finite)}); check these samples, or "
                    f"lower {identity.section}.lr"
                )
            if not result.given_up:
                sums = result.sums
                sums[unit] += sum(len(batch.names) for batch in micro_batches)
                if is_first:
                    sums.add({"seconds": time.perf_counter() - began, "waited_s": waited})
                if is_first and result.loss is not None:
                    sums.add({"updates": 1, "loss": result.loss, "grad_norm": result.grad_norm})
                unshared.append(sums)
                done = number
                bar.update()

            is_last = done == steps
            stop = result.stop and not is_last
            log = done == number and (number % settings.log_every == 0 or is_last)
            save = number % settings.checkpoint_every == 0 or is_last or stop
            if log or save:
                # Step by step, so that the rounding does not depend on when checkpoints are saved.
                for of_step in zip(*processes.gather(unshared)):
                    for sums in of_step:
                        interval.add(sums)
                        total.add(sums)
                unshared.clear()
            if log:
                figures = line(unit, number, steps, lr, interval, total, here.device)
                metrics.write(figures)
                bar.set_postfix(loss=figures["loss"])
                interval.clear()
            if save and is_first:
                content: State = {
                    "step": done,
                    "steps": steps,
                    "model": nets.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "metrics": metrics.text,
                    "interval": dict(interval),
                    "total": dict(total),
                    "initial_weights": {k: v.as_json() for k, v in initial_weights.items()},
                    "identity": as_json(identity),
                }
                checkpoint.save(out / CHECKPOINTS, content, settings.keep_checkpoints)
            if stop:
                signal = requests[0] if requests else "a signal to another process"
                raise Pri3DError(
                    f"{out}: stopped by {signal} after step {done} of {steps}; run the same "
                    f"command again to resume from its checkpoint in {out / CHECKPOINTS}"
                )

    if not total["updates"]:
        reasons = ", ".join(f"{reason} ({n})" for reason, n in skipped(total).items())
        check = "pretrain.radius_m and the scans" if identity.kind == "pretrain" else "the labels"
        raise Pri3DError(f"{out}: nothing could be trained on: {reasons}; check {check}")


def finish(
    out: Path,
    identity: Identity,
    nets: nn.ModuleDict,
    initial_weights: dict[str, InitialWeights],
    engine: str | None,
    left_out: int = 0,
) -> None:
    """Write the provenance and, last, the weights; one process does so.

    Args:
        out: folder of the run.
        identity: of the run.
        nets: trained networks. A frozen `teacher` among them is not written.
        initial_weights: network -> where its weights come from.
        engine: library of the sparse convolutions, None without them.
        left_out: number of samples of the data that could not be used.
    """
    provenance = Provenance(
        inputs=identity.inputs,
        initial_weights=initial_weights,
        code=identity.code,
        versions={"pri3d": pri3d.__version__, "torch": torch.__version__},
        engine=engine,
        left_out=left_out,
    )
    write_provenance(out, provenance)
    trained = nn.ModuleDict({name: net for name, net in nets.items() if name != "teacher"})
    checkpoint.save_weights(out / WEIGHTS, trained)
