"""The finetuning loop: labeled data in, a trained network out.

A run can be killed at any moment and started again: it resumes from its newest checkpoint, and on a
CPU it ends with the same bits as a run that was never interrupted. One process, one device.
"""

import functools
import hashlib
import json
import logging
import math
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

import pri3d
from pri3d import store
from pri3d.code_digest import code_digest
from pri3d.config import TASKS, Settings, Task, kind_of, unused_settings
from pri3d.errors import Pri3DError
from pri3d.finetune.initial_weights import weights_file
from pri3d.finetune.tasks import Batch, Data, KindModule, module_name, module_of
from pri3d.run import checkpoint, processes
from pri3d.run.folder import InitialWeights, Provenance, Run, is_run, read_run, write_run
from pri3d.run.metrics import SKIPPED, MetricsWriter, pace
from pri3d.run.signals import ignore_signals_until, stop_requests
from pri3d.sparse.convolution import engine_for, use_engine

MAX_DAMAGED = 5  # batches in a row without a sample that can be read

_log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """What a run consists of. module: of the task's kind. chosen: positions of the training samples
    used. engine: library of the sparse convolutions, None without them.
    """

    task: str
    settings: Task
    module: KindModule[Any, Any, Any]
    data: Data
    chosen: list[int]
    steps: int
    engine: str | None

    @property
    def unit(self) -> str:
        """What the data set consists of, in the plural."""
        return kind_of(self.task).unit

    @property
    def problems(self) -> list[str]:
        """What of the data set cannot be used for this task."""
        return self.module.problems(self.data)

    def networks(self) -> nn.ModuleDict:
        """The networks of the task, with random weights."""
        nets = self.module.networks(self.data, self.settings)
        if self.engine is not None:
            use_engine(nets, self.engine)
        return nets


def run(task: str, data_dir: Path, out: Path, settings: Task, engine: str = "auto") -> None:
    """Train and leave `model.safetensors`, `settings.json`, `provenance.json` and `metrics.jsonl`
    in the folder `out`; `checkpoints/` while it is not finished.

    task: a key of `TASKS`; data_dir: the folder of its data set; engine: setting `sparse.engine`.
    A run found in `out` goes on, and one that is finished is left as it is. Raises Pri3DError when
    the data or the start cannot be read, when the run found was made with other settings or data,
    when the loss is not finite, when the engine is not installed, and when the run is asked to stop
    (SIGTERM, SIGINT; after writing a checkpoint).
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    module = module_of(TASKS[task].kind)
    data = module.open_data(TASKS[task].dataset, data_dir, "train")
    chosen = module.select(data, settings)
    steps = settings.steps or math.ceil(settings.epochs * len(chosen) / settings.batch)
    device = processes.start(settings.device).device
    in_clouds = kind_of(task).network == "network3d"
    plan = Plan(
        task=task,
        settings=settings,
        module=module,
        data=data,
        chosen=chosen,
        steps=steps,
        engine=engine_for(engine, device) if in_clouds else None,
    )
    origin = _made_from(plan)
    if _is_finished(Path(out), origin):
        _log.info("%s: is finished already", out)
        return
    _log_data(plan)
    _train(plan, origin, Path(out), device)


def _log_data(plan: Plan) -> None:
    used = [plan.data.frames[i] for i in plan.chosen]
    number_of_scenes = len({frame.scene for frame in used})
    _log.info(
        f"{plan.task}: training on {len(used):,} of {len(plan.data.frames):,} {plan.unit} "
        f"({number_of_scenes:,} scenes), {plan.steps:,} steps of {plan.settings.batch}"
    )
    problems = plan.problems
    for problem in problems[:5]:
        _log.warning(f"  left out: {problem}")
    if len(problems) > 5:
        _log.warning(f"  and {len(problems) - 5:,} more")


def _made_from(plan: Plan) -> dict[str, Any]:
    """All that determines a run."""
    file = weights_file(plan.settings.initial_weights)
    if file is not None and not file.is_file():
        raise Pri3DError(f"{file}: no such file of weights; give a finished run, or a file")
    return {
        "task": plan.task,
        "settings": plan.settings.model_dump(),
        "frames": _digest_of_labels(plan),
        "initial_weights": None if file is None else store.file_digest(file),
        "code": code_digest("pri3d.finetune.train", module_name(TASKS[plan.task].kind)),
    }


def _made_from_run(run: Run) -> dict[str, Any]:
    """What determined a finished run, as `_made_from` has it."""
    provenance = run.provenance
    assert provenance is not None
    (dataset,) = provenance.inputs["dataset"].values()
    return {
        "task": run.task,
        "settings": run.settings.model_dump(),
        "frames": dataset["digest"],
        "initial_weights": provenance.finetuned_from.sha256,
        "code": provenance.code,
    }


def _digest_of_labels(plan: Plan) -> str:
    """SHA-256 of the names of the samples used, and of the content of a tenth of them, at most 100:
    data that were downloaded or made again may differ."""
    data, digest = plan.data, hashlib.sha256()
    for i in plan.chosen:
        digest.update(data.frames[i].name.encode() + b"\n")
    number = min(100, -(-len(plan.chosen) // 10))
    for index in np.linspace(0, len(plan.chosen) - 1, number).astype(int):
        try:
            for array in plan.module.content(data, plan.chosen[index]):
                digest.update(array.tobytes())
        except Pri3DError:  # reported and counted when it is read for training
            digest.update(b"damaged")
    return digest.hexdigest()


def _is_finished(out: Path, origin: dict[str, Any]) -> bool:
    """Whether `out` holds the weights of this very run. Raises Pri3DError for those of another."""
    if not (out / "model.safetensors").exists():
        return False
    run = read_run(out) if is_run(out) else None
    if run is None or run.kind != "finetune" or run.provenance is None:
        raise Pri3DError(
            f"{out}: holds weights of something else; choose another folder, or remove it"
        )
    before = _made_from_run(run)
    differences = _differences(before, origin)
    if before["code"] != origin["code"]:
        differences.append("the code")
    if differences:
        raise Pri3DError(
            f"{out}: is a finished run that differs in {', '.join(differences)}; choose another "
            "folder, or remove it"
        )
    return True


def _train(plan: Plan, origin: dict[str, Any], out: Path, device: torch.device) -> None:
    settings, module = plan.settings, plan.module
    torch.manual_seed(settings.seed)
    nets = plan.networks()
    state = _checkpoint_of(out, origin)
    if state:
        initial_weights = InitialWeights(**state["initial_weights"])
    else:
        initial_weights = module.load_initial_weights(nets, settings)
    nets = nets.to(device, memory_format=torch.channels_last)
    parameters = module.freeze_and_select(nets, settings)
    optimizer = module.optimizer(parameters, settings)
    first, history = 0, ""
    window, ever = Counter(), Counter()  # sums since the last line, and of the whole run
    if state:
        nets.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, history = state["step"], state["metrics"]
        window, ever = Counter(state["window"]), Counter(state["ever"])

    closing, told = multiprocessing.Event(), set()
    batches = _batches(plan, first, closing, device)
    module.set_training_mode(nets, settings)
    damaged_in_a_row = 0
    with (
        stop_requests(closing) as requests,
        MetricsWriter(out, history) as record,
        tqdm(total=plan.steps, initial=first, unit="step", desc=out.name, disable=None) as bar,
    ):
        for number in range(first + 1, plan.steps + 1):
            began = time.perf_counter()
            batch = _next(batches)
            damaged_in_a_row = 0 if batch.names else damaged_in_a_row + 1
            if damaged_in_a_row == MAX_DAMAGED:
                raise Pri3DError(
                    f"{out}: no image of the last {MAX_DAMAGED} batches can be read "
                    f"({batch.damaged[0].reason}); is the disk there?"
                )
            for damaged in batch.damaged:
                if damaged.name not in told:
                    told.add(damaged.name)
                    bar.write(f"left out: {damaged.reason}", file=sys.stderr)
            for note in batch.notes:
                if note not in told:
                    told.add(note)
                    bar.write(f"noted: {note}", file=sys.stderr)
            waited = time.perf_counter() - began
            rate = module.learning_rate(settings, number, plan.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            # What is random inside a network (the regions that Mask R-CNN learns from).
            torch.manual_seed(settings.seed * 1_000_003 + number)
            figures = _step(
                plan, nets, optimizer, parameters, processes.move(batch, device), number
            )
            figures.update(seconds=time.perf_counter() - began, waited_s=waited)
            window.update(figures)
            ever.update(figures)
            bar.update()
            last = number == plan.steps
            stop = bool(requests) and not last
            if number % settings.log_every == 0 or last:
                record.write(_line(plan.unit, number, plan.steps, rate, window, ever, device))
                bar.set_postfix(loss=window["loss"] / max(window["updates"], 1))
                window.clear()
            if number % settings.checkpoint_every == 0 or last or stop:
                state = {
                    "step": number,
                    "model": nets.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "metrics": record.text,
                    "window": dict(window),
                    "ever": dict(ever),
                    "initial_weights": initial_weights._asdict(),
                    "made_from": json.dumps(origin),
                }
                checkpoint.save(out / "checkpoints", number, state, settings.keep_checkpoints)
            if stop:
                raise Pri3DError(
                    f"{out}: stopped by {requests[0]} after step {number} of {plan.steps}; run the "
                    f"same again to resume from its checkpoint in {out / 'checkpoints'}"
                )

    if not ever["updates"]:
        raise Pri3DError(
            f"{out}: none of the {plan.unit} had anything to learn from; are their labels there?"
        )
    versions = {"pri3d": pri3d.__version__, "torch": torch.__version__}
    provenance = Provenance(
        inputs={"dataset": {TASKS[plan.task].dataset: {"digest": origin["frames"], "inputs": {}}}},
        initial_weights={"backbone3d" if plan.engine else "backbone": initial_weights},
        code=origin["code"],
        versions=versions,
        engine=plan.engine,
        left_out=len(plan.problems),
    )
    write_run(out, "finetune", plan.task, settings, provenance)
    checkpoint.save_weights(out / "model.safetensors", nets)
    # They are twice as large as the weights, and a curve has dozens of runs.
    checkpoint.remove_all(out / "checkpoints")


def _step(plan, nets, optimizer, parameters, batch: Batch, number: int) -> Counter:
    """Train on one batch; a batch without anything to learn from changes nothing."""
    figures = Counter({plan.unit: len(batch.names)})
    if batch.damaged:
        figures[SKIPPED + f"{plan.unit.removesuffix('s')} cannot be read"] += len(batch.damaged)
    losses = plan.module.losses(nets, batch, plan.settings)
    if not losses:
        figures[SKIPPED + "batch without labels"] += 1
        return figures
    loss = torch.stack(list(losses.values())).sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        raise Pri3DError(
            f"the loss is {loss.item()}, its gradient {norm.item()}, at step {number} (of: "
            f"{', '.join(batch.names)}); look at these, or lower lr"
        )
    if plan.settings.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, plan.settings.clip_norm, norm)
    optimizer.step()
    figures.update(updates=1, loss=loss.item(), grad_norm=norm.item())
    figures.update({f"{name}_loss": value.item() for name, value in losses.items()})
    return figures


def _line(unit, step, steps, rate, window: Counter, ever: Counter, device) -> dict[str, Any]:
    """A line of metrics.jsonl: means since the line before; images, skipped and elapsed_s count
    from the run's beginning."""
    updates = max(window["updates"], 1)
    means = {
        name: window[name] / updates
        for name in window
        if name in ("loss", "grad_norm") or name.endswith("_loss")
    }
    return {"step": step, **means, "lr": rate} | pace(unit, step, steps, window, ever, device)


def _batches(plan: Plan, first: int, closing, device: torch.device) -> Iterator[Batch]:
    settings = plan.settings
    samples = plan.module.samples(plan.data, plan.chosen, settings)
    order = (
        list(range(step * settings.batch, (step + 1) * settings.batch))
        for step in range(first, plan.steps)
    )
    return iter(
        DataLoader(
            samples,
            batch_sampler=order,
            num_workers=settings.workers,
            collate_fn=plan.module.collate,
            worker_init_fn=functools.partial(ignore_signals_until, closing),
            generator=torch.Generator(),  # without one it draws from the generator of the weights
            pin_memory=device.type == "cuda",
        )
    )


def _next(batches: Iterator[Batch]) -> Batch:
    try:
        return next(batches)
    except RuntimeError as error:
        if "worker" not in str(error):
            raise
        raise Pri3DError(
            f"a process that prepares images ended ({str(error).splitlines()[0]}); it may have run "
            "out of memory: lower workers"
        ) from None


def _checkpoint_of(out: Path, origin: dict[str, Any]) -> dict[str, Any] | None:
    """The newest checkpoint in `out`, if it is of the requested run."""
    newest = checkpoint.newest(out / "checkpoints")
    if newest is None:
        return None
    path, state = newest
    before = json.loads(state["made_from"])
    differences = _differences(before, origin)
    if differences:
        raise Pri3DError(
            f"{path}: is of a run that differs in {', '.join(differences)}; restore that to "
            f"resume, or remove {out} to start from scratch"
        )
    if before["code"] != origin["code"]:
        _log.warning("%s: resumes with other code than before", out)
    return state


def _differences(before: dict[str, Any], origin: dict[str, Any]) -> list[str]:
    """In what a run differs from the requested one, other than the code."""
    settings = type(getattr(Settings(), TASKS[origin["task"]].kind))(**origin["settings"])
    ignored = unused_settings(settings)
    differences = checkpoint.changed(before["settings"], origin["settings"], ignored)
    parts = {
        "task": "the task",
        "frames": "the labeled data",
        "initial_weights": "the initial weights",
    }
    return differences + [text for key, text in parts.items() if before[key] != origin[key]]
