"""A network that was finetuned on clouds, on the validation split: figures on voxels and points."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from pri3d import store
from pri3d.config import TASKS
from pri3d.datasets.rooms import open_rooms
from pri3d.datasets.subsets import spread
from pri3d.errors import Pri3DError
from pri3d.finetune.finished import load_run, task_of
from pri3d.finetune.samples import IGNORED
from pri3d.finetune.tasks import semseg3d
from pri3d.metrics import semantic
from pri3d.run import checkpoint, processes
from pri3d.sparse.convolution import engine_for


def run(
    trained: Path,
    data_dir: Path,
    out: Path,
    device: str = "auto",
    threads: int = 0,
    most: int | None = None,
    submission: Path | None = None,
    split: str = "val",
    engine: str = "auto",
) -> dict[str, Any]:
    """Measure the run in the folder `trained` on a split of its data set, into `out` (JSON).

    By ScanNet's rule, twice: on the `voxels` that the network sees (those of several classes do not
    count), and on every original point (`points`), which has the prediction of its voxel. most: at
    most so many clouds, spread over all. submission: folder for <scene>.txt with the nyu40 id of
    every vertex, as ScanNet's benchmark takes it. engine: setting `sparse.engine`. Clouds that
    cannot be read are counted in `left_out`, what was repaired in `notes`. Raises Pri3DError when
    nothing can be measured, or the engine is not installed.
    """
    if threads:
        torch.set_num_threads(threads)
    task = task_of(trained)
    data = open_rooms(TASKS[task].dataset, data_dir, split)
    if submission is not None and data.name != "scannet3d":
        raise Pri3DError("--submission: there is a benchmark of ScanNet only")
    classes = data.classes
    place = processes.start(device).device
    settings, nets = load_run(
        trained,
        lambda settings: semseg3d.networks(settings, len(classes.names)),
        engine_for(engine, place),
    )
    nets.to(place)
    chosen = spread(list(range(len(data.frames))), most)
    counted = {on: np.zeros((len(classes.names) + 1,) * 2, np.int64) for on in ("voxels", "points")}
    left_out, notes, measured = list(data.problems), [], 0
    for i in tqdm(chosen, "clouds", disable=None):
        try:
            cloud = data.cloud(i)
        except Pri3DError as error:
            left_out.append(str(error))
            continue
        notes += cloud.notes
        seen = semseg3d.in_voxels(data.frames[i].name, semseg3d.finite(cloud), settings.voxel_m)
        batch = processes.move(semseg3d.collate_voxels([seen]), place)
        with torch.no_grad():
            scores = semseg3d.logits(nets, batch)
        found = (scores.argmax(dim=1) + 1).to(torch.uint8).cpu().numpy()
        on_points = np.zeros(len(cloud.label), np.uint8)
        on_points[np.isfinite(cloud.points).all(axis=1)] = found[seen.of_point_N]
        truth = np.where(seen.target_V == IGNORED, 0, seen.target_V + np.uint8(1))
        counted["voxels"] += semantic.confusion(truth, found, len(classes.names))
        counted["points"] += semantic.confusion(cloud.label, on_points, len(classes.names))
        measured += 1
        if submission is not None:
            ids = classes.file_ids()[on_points]
            with store.atomic_path(submission / f"{data.frames[i].scene}.txt") as temporary:
                np.savetxt(temporary, ids, fmt="%d")
    if not measured:
        raise Pri3DError(
            f"{data_dir}: no cloud of the split {split} can be used"
            + (f" ({left_out[0]})" if left_out else "")
        )
    rules = {}
    for on, confusion in counted.items():
        figures = semantic.scannet(confusion)
        iou = dict(zip(classes.names, figures.iou.tolist()))
        rules[on] = figures._asdict() | {"iou": iou}
    points = counted["points"].sum(axis=1)[1:]
    shares = points / max(points.sum(), 1)
    result = {
        "task": task,
        "model": store.file_digest(trained / "model.safetensors"),
        "start": json.loads((trained / "provenance.json").read_text())["start"],
        "settings": settings.model_dump(),
        "split": split,
        "clouds": measured,
        "clouds_of_split": len(data.frames),
        "left_out": left_out,
        "notes": notes,
        "rules": rules,
        "points": dict(zip(classes.names, shares.tolist())),
        "confusion": counted["points"].tolist(),
    }
    checkpoint.save_json(out, checkpoint.without_nan(result))
    return result


def as_lines(told: dict[str, Any]) -> list[str]:
    """The main figures of a measurement, in %, for people."""
    words = (("mean_iou", "mIoU"), ("mean_accuracy", "mean accuracy"))
    words += (("pixel_accuracy", "overall accuracy"),)
    return [
        f"{told['task']} on {on}: "
        + ", ".join(f"{word} {100 * figures[key]:.2f} %" for key, word in words)
        for on, figures in told["rules"].items()
    ]
