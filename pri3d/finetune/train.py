"""Finetuning: labeled data in, a run with a trained network out."""

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pri3d import store
from pri3d.code_digest import code_of_task
from pri3d.config import TASKS, Task, kind_of
from pri3d.errors import Pri3DError
from pri3d.finetune.initial_weights import weights_file
from pri3d.finetune.step import step
from pri3d.finetune.tasks import Batch, Data, TrainingModule, module_of
from pri3d.run import checkpoint, loop, processes
from pri3d.run.batches import micro_batch_of
from pri3d.run.folder import CHECKPOINTS, network_of_task, write_settings
from pri3d.run.identity import Identity, is_finished, load_matching_checkpoint
from pri3d.run.networks import check_same_weights, compile_2d, on_device, recorded_weights
from pri3d.run.processes import Processes
from pri3d.run.step import Step
from pri3d.sparse.convolution import engine_for, use_engine

MAX_UNREADABLE = 5  # steps in a row in which no process can read a sample

_log = logging.getLogger(__name__)


class Labels(NamedTuple):
    """The training data of a task. module: of the task's kind. chosen: positions of the samples
    used.
    """

    module: TrainingModule[Any, Any, Any]
    data: Data
    chosen: list[int]


def run(
    task: str,
    data_dir: Path,
    out: Path,
    settings: Task,
    engine: str = "auto",
    weights_name: str | None = None,
) -> None:
    """Finetune, and leave a run in the folder `out`; see `pri3d.run.folder`.

    A run in `out` that is not finished resumes, and one that is finished stays as it is.

    Args:
        task: a key of `TASKS`.
        data_dir: folder of its data set.
        out: folder of the run.
        settings: of the task.
        engine: setting `sparse.engine`.
        weights_name: name for tables of initial weights that are a file or a run; default: that of
            the file, or the variant of the run.

    Raises:
        Pri3DError: the data or the initial weights cannot be read, `out` holds another run, nothing
            could be trained on, the loss is not finite, or the run was requested to stop (SIGTERM,
            SIGINT), in which case it has written a checkpoint.
    """
    here = processes.start(settings.device)
    try:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        module = module_of(TASKS[task].kind)
        data = module.open_data(TASKS[task].dataset, data_dir, "train")
        labels = Labels(module, data, module.select(data, settings))
        identity = run_identity(task, data_dir, labels, settings, here.size)
        if is_finished(out, identity):
            _log.info("%s: is finished already", out)
            return
        _train(out, identity, labels, settings, engine, weights_name, here)
    finally:
        processes.stop()


def run_identity(task: str, data_dir: Path, labels: Labels, settings: Task, ranks: int) -> Identity:
    """All that determines a run.

    Args:
        task: a key of `TASKS`.
        data_dir: folder of its data set.
        labels: the training data.
        settings: of the task.
        ranks: number of processes, on which the micro-batch depends.

    Raises:
        Pri3DError: the file of initial weights does not exist.
    """
    file = weights_file(settings.initial_weights)
    if file is not None and not file.is_file():
        raise Pri3DError(f"{file}: no such file of weights; give a finished run, or a file")
    micro_batch = micro_batch_of(settings, ranks)  # batch norm sees it
    dataset = {"digest": _digest(labels), "inputs": {}, "path": str(data_dir)}
    return Identity(
        kind="finetune",
        name=task,
        settings=settings.model_copy(update={"micro_batch": micro_batch}),
        inputs={"dataset": {TASKS[task].dataset: dataset}},
        weights={} if file is None else {network_of_task(task): store.file_digest(file)},
        code=code_of_task(TASKS[task].kind),
    )


def _digest(labels: Labels) -> str:
    """SHA-256 of the names of the samples used, and of the content of a tenth of them, at most 100:
    data that were downloaded or made again may differ.
    """
    module, data, chosen = labels
    digest = hashlib.sha256()
    for position in chosen:
        digest.update(data.frames[position].name.encode() + b"\n")
    number = min(100, -(-len(chosen) // 10))
    for index in np.linspace(0, len(chosen) - 1, number).astype(int):
        try:
            for array in module.content(data, chosen[index]):
                digest.update(array.tobytes())
        except Pri3DError:  # reported and counted when it is read for training
            digest.update(b"damaged")
    return digest.hexdigest()


def _train(
    out: Path,
    identity: Identity,
    labels: Labels,
    settings: Task,
    engine: str,
    weights_name: str | None,
    here: Processes,
) -> None:
    task, (module, data, chosen) = identity.name, labels
    in_clouds, unit = kind_of(task).network == "network3d", kind_of(task).unit
    steps = settings.steps or math.ceil(settings.epochs * len(chosen) / settings.batch)
    torch.manual_seed(settings.seed)
    nets = module.networks(data, settings)
    used_engine = engine_for(engine, here.device) if in_clouds else None
    if used_engine is not None:
        use_engine(nets, used_engine)
    state = load_matching_checkpoint(out, identity)
    if state is None:
        loaded = module.load_initial_weights(nets, settings)
        if weights_name and loaded.file is not None:
            loaded = loaded._replace(name=weights_name)
        initial_weights = {network_of_task(task): loaded}
    else:
        initial_weights = recorded_weights(state)
    check_same_weights(initial_weights, identity.section)
    nets = on_device(nets, here, settings.sync_bn)
    optimizer = module.optimizer(module.freeze_and_select(nets, settings), settings)
    if state is not None:
        nets.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    if settings.compile and not in_clouds:
        compile_2d(nets)
    module.set_training_mode(nets, settings)
    problems, reports = module.problems(data), _Reports(out)
    if here.rank == 0:
        write_settings(out, "finetune", task, identity.settings)
        _log_data(labels, problems, task, steps, settings.batch)

    def train_step(number: int, batches: Sequence[Any], stopping: Callable[[], bool]) -> Step:
        reports.add(batches)
        return step(
            nets, optimizer, batches, number, module, settings, unit, here, stopping=stopping
        )

    loop.train(
        out,
        identity,
        nets=nets,
        optimizer=optimizer,
        samples=module.samples(data, chosen, settings),
        collate=module.collate,
        step=train_step,
        learning_rates=[module.learning_rate(settings, i, steps) for i in range(1, steps + 1)],
        initial_weights=initial_weights,
        state=state,
        unit=unit,
        here=here,
    )
    if here.rank == 0:
        loop.finish(out, identity, nets, initial_weights, used_engine, len(problems))
        # They are twice as large as the weights, and a curve has dozens of runs.
        checkpoint.remove_all(out / CHECKPOINTS)


def _log_data(labels: Labels, problems: list[str], task: str, steps: int, batch: int) -> None:
    frames, unit = labels.data.frames, kind_of(task).unit
    scenes = {frames[position].scene for position in labels.chosen}
    _log.info(
        f"{task}: training on {len(labels.chosen):,} of {len(frames):,} {unit} "
        f"({len(scenes):,} scenes), {steps:,} steps of {batch}"
    )
    for problem in problems[:5]:
        _log.warning(f"  left out: {problem}")
    if len(problems) > 5:
        _log.warning(f"  and {len(problems) - 5:,} more")


class _Reports:
    """Reports each damaged or repaired sample once, and stops when no sample can be read."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.reported: set[str] = set()
        self.unreadable = 0  # steps in a row

    def add(self, batches: Sequence[Batch]) -> None:
        """Report on the micro-batches of this process in a step; all processes call this.

        Raises:
            Pri3DError: no process can read a sample of the last steps.
        """
        damaged = [each for batch in batches for each in batch.damaged]
        # Over all processes: the share of one can be a single sample per step.
        readable = any(processes.gather(any(batch.names for batch in batches)))
        self.unreadable = 0 if readable else self.unreadable + 1
        if self.unreadable == MAX_UNREADABLE:
            raise Pri3DError(
                f"{self.out}: no sample of the last {MAX_UNREADABLE} steps can be read "
                f"({damaged[0].reason}); check that the disk is mounted"
            )
        for each in damaged:
            if each.name not in self.reported:
                self.reported.add(each.name)
                _log.warning("left out: %s", each.reason)
        for note in (note for batch in batches for note in batch.notes):
            if note not in self.reported:
                self.reported.add(note)
                _log.warning("%s", note)
