"""The finetuning loop: labelled images in, a trained network out.

A run can be killed at any moment and started again: it goes on from its newest checkpoint, and on a
CPU it ends with the same bits as a run that was never interrupted. One process, one device.
"""

import functools
import hashlib
import json
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
from pri3d import code_digest, store
from pri3d.config import (
    TASKS,
    Det3d,
    Insseg,
    Semseg,
    Semseg3d,
    Settings,
    kind_of,
    unused_settings,
)
from pri3d.datasets import open_split
from pri3d.datasets.objects3d import open_objects
from pri3d.datasets.rooms import open_rooms
from pri3d.datasets.subsets import subset
from pri3d.errors import Pri3DError
from pri3d.finetune import det3d, insseg, semseg, semseg3d
from pri3d.finetune.initial_weights import file_of, load_initial_weights
from pri3d.finetune.samples import (
    InssegBatch,
    InssegSamples,
    SemsegBatch,
    SemsegSamples,
    collate_labelled,
    collate_objects,
)
from pri3d.run import checkpoint, processes
from pri3d.run.metrics import SKIPPED, MetricsWriter, pace
from pri3d.run.signals import ignore_signals_until, stop_requests
from pri3d.sparse.convolution import engine_for, use_engine

Batch = SemsegBatch | InssegBatch | semseg3d.Semseg3dBatch | det3d.Det3dBatch
AnySettings = Semseg | Insseg | Semseg3d | Det3d
MODULES = {Semseg: semseg, Insseg: insseg, Semseg3d: semseg3d, Det3d: det3d}
OPENED = {Semseg: open_split, Insseg: open_split, Semseg3d: open_rooms, Det3d: open_objects}
UNITS = {Semseg: "images", Insseg: "images", Semseg3d: "clouds", Det3d: "scenes"}
MAX_DAMAGED = 5  # batches in a row without an image that can be read


class Plan(NamedTuple):
    """What a run consists of. chosen: positions of the training frames that are used. engine:
    setting `sparse.engine`, of the tasks on clouds."""

    task: str
    settings: AnySettings
    data: Any
    chosen: list[int]
    steps: int
    engine: str

    @property
    def module(self):
        """`semseg`, `insseg`, `semseg3d` or `det3d`: all have networks, trained, losses."""
        return MODULES[type(self.settings)]

    @property
    def in_clouds(self) -> bool:
        """Whether the data are clouds, and the network is sparse."""
        return kind_of(self.task).network == "network3d"

    @property
    def unit(self) -> str:
        """What the data set consists of, for people."""
        return UNITS[type(self.settings)]

    @property
    def problems(self) -> list[str]:
        """What of the data set cannot be used for this task."""
        objects = self.data.without_objects if self.module is insseg else []
        return self.data.problems + objects

    def networks(self) -> nn.ModuleDict:
        """The networks of the task, with random weights."""
        if self.module is det3d:
            nets = det3d.networks(self.settings, self.data.classes, self.data.oriented)
        else:
            kinds = self.data.things if self.module is insseg else self.data.classes
            nets = self.module.networks(self.settings, len(kinds.names))
        if self.in_clouds:
            use_engine(nets, self.engine)
        return nets


def run(task: str, data_dir: Path, out: Path, settings: AnySettings, engine: str = "auto") -> None:
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
    data = OPENED[type(settings)](TASKS[task].dataset, data_dir, "train")
    whole = kind_of(task).network == "network3d"
    chosen = subset(data.frames, settings.percent, settings.subset, settings.seed, whole)
    if not chosen:
        raise Pri3DError(
            f"{task}: {settings.percent:g} % of the {len(data.frames)} labelled ones are none; "
            "raise percent, or draw scenes (subset: random)"
        )
    if isinstance(settings, Insseg):
        chosen = [i for i in chosen if data.has_objects(i)]
        if not chosen:
            raise Pri3DError(
                f"{data_dir}: has no instance images ({data.without_objects[0]}); fetch them too"
            )
    steps = settings.steps or math.ceil(settings.epochs * len(chosen) / settings.batch)
    device = processes.start(settings.device).device
    if kind_of(task).network == "network3d":
        engine = engine_for(engine, device)
    plan = Plan(task, settings, data, chosen, steps, engine)
    origin = _made_from(plan)
    if _is_finished(Path(out), origin):
        print(f"{out}: is finished already", file=sys.stderr)
        return
    _tell_data(plan)
    _train(plan, origin, Path(out), device)


def _tell_data(plan: Plan) -> None:
    used = [plan.data.frames[i] for i in plan.chosen]
    scenes = len({frame.scene for frame in used})
    print(
        f"{plan.task}: training on {len(used):,} of {len(plan.data.frames):,} {plan.unit} "
        f"({scenes:,} scenes), {plan.steps:,} steps of {plan.settings.batch}",
        file=sys.stderr,
    )
    lost = plan.problems
    for problem in lost[:5]:
        print(f"  left out: {problem}", file=sys.stderr)
    if len(lost) > 5:
        print(f"  and {len(lost) - 5:,} more", file=sys.stderr)


def _made_from(plan: Plan) -> dict[str, Any]:
    """All that determines a run."""
    start = file_of(plan.settings.initial_weights)
    if start is not None and not start.is_file():
        raise Pri3DError(f"{start}: no such file of weights; give a finished run, or a file")
    return {
        "task": plan.task,
        "settings": plan.settings.model_dump(),
        "steps": plan.steps,
        "images": len(plan.chosen),
        "frames": _digest_of_labels(plan),
        "start": None if start is None else store.file_digest(start),
        "code": code_digest.code_digest("pri3d.finetune.train"),
    }


def _digest_of_labels(plan: Plan) -> str:
    """SHA-256 of the names and labels of the images used, of some of them (a tenth, at most 100) of
    the content: data that were fetched again or made anew are other data."""
    data, digest = plan.data, hashlib.sha256()
    for i in plan.chosen:
        digest.update(data.frames[i].name.encode() + b"\n")
    looked_at = min(100, -(-len(plan.chosen) // 10))
    for place in np.linspace(0, len(plan.chosen) - 1, looked_at).astype(int):
        try:
            if plan.module is semseg3d:
                cloud = data.cloud(plan.chosen[place])
                content = cloud.points, cloud.color, cloud.label
            elif plan.module is det3d:
                scene = data.scene(plan.chosen[place])
                content = scene.points, scene.color, *scene.boxes, scene.kind
            else:
                content = data.labels(plan.chosen[place]), data.color(plan.chosen[place])
            for array in content:
                digest.update(array.tobytes())
        except Pri3DError:  # told and counted when it is to be learned from
            digest.update(b"damaged")
    return digest.hexdigest()


def _is_finished(out: Path, origin: dict[str, Any]) -> bool:
    """Whether `out` holds the weights of this very run. Raises Pri3DError for those of another."""
    if not (out / "model.safetensors").exists():
        return False
    try:
        before = json.loads((out / "provenance.json").read_text())["made_from"]
    except (OSError, ValueError, KeyError, TypeError):
        raise Pri3DError(
            f"{out}: holds weights of something else; choose another folder, or remove it"
        ) from None
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
    state = _state_to_go_on_from(out, origin)
    start = state["start"] if state else load_initial_weights(nets, settings).said
    nets = nets.to(device, memory_format=torch.channels_last)
    parameters = module.trained(nets, settings)
    optimizer = _optimizer(parameters, settings)
    first, history = 0, ""
    window, ever = Counter(), Counter()  # sums since the last line, and of the whole run
    if state:
        nets.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, history = state["step"], state["metrics"]
        window, ever = Counter(state["window"]), Counter(state["ever"])

    closing, told = multiprocessing.Event(), set()
    batches = _batches(plan, first, closing, device)
    module.set_training(nets, settings)
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
            for note in getattr(batch, "notes", []):
                if note not in told:
                    told.add(note)
                    bar.write(f"noted: {note}", file=sys.stderr)
            waited = time.perf_counter() - began
            rate = learning_rate(settings, number, plan.steps)
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
                    "start": start,
                    "made_from": json.dumps(origin),
                }
                checkpoint.save(out / "checkpoints", number, state, settings.keep_checkpoints)
            if stop:
                raise Pri3DError(
                    f"{out}: stopped by {requests[0]} after step {number} of {plan.steps}; run the "
                    f"same again to go on from its checkpoint in {out / 'checkpoints'}"
                )

    if not ever["updates"]:
        raise Pri3DError(
            f"{out}: none of the {plan.unit} had anything to learn from; are their labels there?"
        )
    versions = {"pri3d": pri3d.__version__, "torch": torch.__version__}
    checkpoint.save_json(out / "settings.json", {"task": plan.task, **settings.model_dump()})
    checkpoint.save_json(
        out / "provenance.json",
        {
            "made_from": origin,
            "start": start,
            "left_out": len(plan.problems),
            "versions": versions,
            "engine": plan.engine if plan.in_clouds else None,
        },
    )
    checkpoint.save_weights(out / "model.safetensors", nets)
    # They are twice as large as the weights, and a curve has dozens of runs.
    checkpoint.remove_all(out / "checkpoints")


def _optimizer(parameters, settings: AnySettings) -> torch.optim.Optimizer:
    lr, weight_decay = settings.lr, settings.weight_decay
    if isinstance(settings, Det3d):
        return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay)
    return torch.optim.SGD(parameters, lr=lr, momentum=settings.momentum, weight_decay=weight_decay)


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


def learning_rate(settings: AnySettings, step: int, steps: int) -> float:
    """Of a step, counted from 1: a linear rise over `warmup` of the steps, then polynomial decay
    from `lr` to nearly 0 at the end. Detection in clouds: a tenth at 4, 6 and 8 ninths."""
    rise = round(settings.warmup * steps)
    if step <= rise:
        return settings.lr * step / (rise + 1)
    if isinstance(settings, Det3d):
        return settings.lr * 0.1 ** sum(9 * (step - 1) >= ninths * steps for ninths in (4, 6, 8))
    return settings.lr * (1 - (step - 1 - rise) / (steps - rise)) ** settings.power


def _batches(plan: Plan, first: int, closing, device: torch.device) -> Iterator[Batch]:
    settings = plan.settings
    kind, collate = {
        semseg: (SemsegSamples, collate_labelled),
        insseg: (InssegSamples, collate_objects),
        semseg3d: (semseg3d.Semseg3dSamples, semseg3d.collate_voxels),
        det3d: (det3d.Det3dSamples, det3d.collate_scenes),
    }[plan.module]
    samples = kind(plan.data, plan.chosen, settings)
    order = (
        list(range(step * settings.batch, (step + 1) * settings.batch))
        for step in range(first, plan.steps)
    )
    return iter(
        DataLoader(
            samples,
            batch_sampler=order,
            num_workers=settings.workers,
            collate_fn=collate,
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


def _state_to_go_on_from(out: Path, origin: dict[str, Any]) -> dict[str, Any] | None:
    """The newest checkpoint in `out`, if it is of the run that is asked for."""
    found = checkpoint.newest(out / "checkpoints")
    if found is None:
        return None
    path, state = found
    before = json.loads(state["made_from"])
    differences = _differences(before, origin)
    if not differences and before["code"] != origin["code"]:
        print(f"{out}: going on, but with other code than before", file=sys.stderr)
    if not differences:
        return state
    raise Pri3DError(
        f"{path}: is of a run that differs in {', '.join(differences)}; put that back to go on, or "
        f"remove {out} to begin anew"
    )


def _differences(before: dict[str, Any], origin: dict[str, Any]) -> list[str]:
    """What determines a run and is another than it was, but for the code."""
    settings = type(getattr(Settings(), TASKS[origin["task"]].kind))(**origin["settings"])
    of_no_account = unused_settings(settings)
    differences = checkpoint.changed(before["settings"], origin["settings"], of_no_account)
    what = {
        "task": "the task",
        "steps": "the number of steps",
        "frames": "the labelled images",
        "start": "the weights it starts from",
    }
    return differences + [text for key, text in what.items() if before[key] != origin[key]]
