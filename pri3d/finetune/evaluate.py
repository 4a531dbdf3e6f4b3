"""Measuring of finetuned networks: figures as JSON, pictures, files for the benchmark."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from pri3d.config import TASKS, inapplicable_option, kind_of
from pri3d.errors import Pri3DError
from pri3d.finetune import pictures
from pri3d.finetune.tasks import (
    Data,
    image_module,
    measuring_module,
    module_of,
    submission_module,
)
from pri3d.finetune.trained import load_trained, read_finetuned, to_device
from pri3d.run import checkpoint, processes
from pri3d.run.folder import Provenance, Run, write_json
from pri3d.selection import spread
from pri3d.sparse.convolution import engine_for, use_engine

PICTURES = 6  # by default, of the kinds that have pictures


class Options(NamedTuple):
    """What is measured, and what is written beside the figures.

    split: "val", or "test" of data sets with a benchmark, which is not labeled: its figures mean
    nothing, and only `submission` is of use. max_samples: maximum number of samples, evenly spaced;
    None: all. pictures: number of pictures (image, labels, prediction), in <out>_pictures/; None:
    six, where the kind of task has pictures. submission: folder for predictions as ScanNet's
    benchmark reads them.
    """

    split: str = "val"
    max_samples: int | None = None
    pictures: int | None = None
    submission: Path | None = None


DEFAULT = Options()


def run(
    folder: Path,
    data_dir: Path,
    out: Path,
    options: Options = DEFAULT,
    device: str = "auto",
    threads: int = 0,
    engine: str = "auto",
) -> dict[str, Any]:
    """Measure a finetuning run on a split of its data set.

    Args:
        folder: of the run.
        data_dir: folder of the data set.
        out: JSON file to write.
        options: what is measured and written.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads; 0: torch's default.
        engine: the setting `sparse.engine`, for tasks on clouds.

    Returns:
        The content of `out`. Samples that cannot be read are counted in `left_out`; what was
        repaired or ignored in others is in `notes`.

    Raises:
        Pri3DError: the run, the data or the engine is not available, an option does not apply to
            the task, or no sample can be measured.
    """
    if threads:
        torch.set_num_threads(threads)
    trained, task, provenance = read_finetuned(folder)
    wrong = inapplicable_option(
        task,
        split=options.split,
        submission=options.submission is not None,
        pictures=options.pictures is not None,
    )
    if wrong is not None:
        raise Pri3DError(wrong)
    module = module_of(TASKS[task].kind)
    data = module.open_data(TASKS[task].dataset, data_dir, options.split)
    target = processes.start(device).device
    nets = module.networks(data, trained.settings)
    if kind_of(task).network == "network3d":
        use_engine(nets, engine_for(engine, target))
        load_trained(trained, nets)
        nets.to(target)
    else:
        load_trained(trained, nets)
        to_device(nets, target)
    left_out = list(module.problems(data))
    measured = _measure(trained, task, data, nets, target, options, out, left_out)
    noun = _noun(task)
    if not measured[noun]:
        reason = f" ({left_out[0]})" if left_out else ""
        raise Pri3DError(
            f"{data_dir}: no {noun[:-1]} of the split {options.split} can be used{reason}"
        )
    result = {
        "task": task,
        "run": _origin(trained, task, provenance),
        "model": trained.digest(),
        "settings": trained.settings.model_dump(),
        "split": options.split,
        "scenes": len({frame.scene for frame in data.frames}),
        f"{noun}_of_split": len(data.frames),
        "left_out": left_out,
        **measured,
    }
    write_json(out, checkpoint.without_nan(result))
    return result


def summary(result: dict[str, Any]) -> list[str]:
    """The main figures of a result, one line each, for people."""
    task = result["task"]
    return [f"{task} {line}" for line in measuring_module(TASKS[task].kind).summary(result)]


def _noun(task: str) -> str:
    """What a result counts."""
    return "clouds" if kind_of(task).network == "network3d" else "images"


def _origin(trained: Run, task: str, provenance: Provenance) -> dict[str, Any]:
    """Which run the figures are of."""
    return {
        "name": trained.name,
        "task": task,
        "percent": trained.finetune.percent,
        "seed": trained.finetune.seed,
        "initial_weights": provenance.finetuned_from.as_json(),
    }


def _measure(
    trained: Run,
    task: str,
    data: Data,
    nets: nn.ModuleDict,
    target: torch.device,
    options: Options,
    out: Path,
    left_out: list[str],
) -> dict[str, Any]:
    """Number of samples measured, notes and figures; unreadable samples go to `left_out`."""
    kind, settings = TASKS[task].kind, trained.settings
    module = measuring_module(kind)
    chosen = spread(module.measurable(data), options.max_samples)
    pictured = set(spread(chosen, _number_of_pictures(task, options)))
    picture_folder = out.with_name(out.stem + "_pictures")
    counts, notes, number = module.new_counts(data), [], 0
    for positions in _groups(chosen, module.ITEMS_AT_ONCE, _noun(task)):
        items = []
        for position in positions:
            try:
                items.append(module.read_item(data, position, settings))
            except Pri3DError as error:
                left_out.append(str(error))
        if not items:
            continue
        predictions = module.predict_items(nets, items, settings, target)
        for item, prediction in zip(items, predictions):
            module.count(counts, data, item, prediction)
            notes += item.notes
            number += 1
            if item.position in pictured:
                picture = image_module(kind).picture(data, item, prediction)
                name = pictures.file_name(item.name, ".jpg")
                pictures.save_jpeg(picture_folder / name, picture)
            if options.submission is not None:
                submission_module(kind).write_submission(options.submission, data, item, prediction)
    return {_noun(task): number, "notes": notes, **module.figures(counts, data)}


def _number_of_pictures(task: str, options: Options) -> int:
    if options.pictures is not None:
        return options.pictures
    return PICTURES if kind_of(task).pictures else 0


def _groups(positions: list[int], size: int, noun: str) -> Iterator[list[int]]:
    """Positions in groups, with progress on a terminal."""
    number = math.ceil(len(positions) / size)
    for i in tqdm(range(number), noun, disable=None):
        yield positions[i * size : (i + 1) * size]
