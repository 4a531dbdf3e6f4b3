"""A detector on the validation split: average precision of its boxes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from tqdm import tqdm

from pri3d import checkpoint, processes, store
from pri3d.checkpoint import first_line
from pri3d.config import TASKS, Det3d
from pri3d.datasets.objects3d import open_objects
from pri3d.errors import Pri3DError
from pri3d.finetune import det3d
from pri3d.metrics import boxes3d

THRESHOLDS = (0.25, 0.5)


def load_run(run: Path, data) -> tuple[Det3d, nn.ModuleDict]:
    """Settings and trained network of a finished run. Raises Pri3DError when it holds none."""
    try:
        given = json.loads((run / "settings.json").read_text())
        del given["task"]
        settings = Det3d.model_validate(given)
        nets = det3d.networks(settings, data.classes, data.oriented)
        nets.load_state_dict(load_file(run / "model.safetensors"))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise Pri3DError(
            f"{run}: is no finished finetuning run ({first_line(error)}); give a folder that "
            "`pri3d finetune` has filled"
        ) from None
    return settings, nets.eval()


def run(
    trained: Path,
    data_dir: Path,
    out: Path,
    device: str = "auto",
    threads: int = 0,
    most: int | None = None,
) -> dict[str, Any]:
    """Measure the detector in the folder `trained` on the validation split, into `out` (JSON).

    Average precision (area under the precision envelope) and recall at 0.25 and 0.5 IoU, of each
    class and their means over the classes that occur. Boxes with fewer than five points are left
    out, boxes of a class suppress each other at 0.25 IoU of their hulls, and every box is given for
    every class (as VoteNet's evaluation has it). most: at most so many scenes, spread over all.
    Scenes that cannot be read are counted in `left_out`. Raises Pri3DError when nothing can be
    measured.
    """
    if threads:
        torch.set_num_threads(threads)
    task = json.loads((trained / "settings.json").read_text())["task"]
    data = open_objects(TASKS[task][1], data_dir, "val")
    settings, nets = load_run(trained, data)
    place = processes.start(device).device
    nets.to(place)
    chosen = list(range(len(data.frames)))
    if most is not None and most < len(chosen):
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, most).round().astype(int)]
    left_out, notes, truths, found = list(data.problems), [], {}, []
    for i in tqdm(chosen, "scenes", disable=None):
        try:
            scene = data.scene(i)
        except Pri3DError as error:
            left_out.append(str(error))
            continue
        notes += scene.notes
        scene = det3d.some_points(scene, settings.points, np.random.default_rng([settings.seed, i]))
        sample = det3d.in_voxels(data.frames[i].name, scene, settings.voxel_m, not data.oriented)
        batch = processes.move(det3d.collate_scenes([sample]), place)
        with torch.no_grad():
            proposals = det3d.detect(nets, batch).proposals
        mean_size = nets["detector"].mean_size
        _, boxes = det3d.predictions(proposals, mean_size, 0, scene.points, least=settings.score)
        found += [box._replace(scene=i) for box in boxes]
        truths[i] = scene.kind, scene.boxes
    if not truths:
        raise Pri3DError(
            f"{data_dir}: no scene of the validation split can be used"
            + (f" ({left_out[0]})" if left_out else "")
        )
    names, figures = data.classes.names, {}
    for threshold in THRESHOLDS:
        of_class = boxes3d.average_precision(truths, found, threshold)
        each = {names[kind]: value for kind, value in of_class.items()}
        figures[f"ap{round(100 * threshold)}"] = {
            "mean": float(np.mean([ap for ap, _ in each.values()])) if each else None,
            "recall": float(np.mean([recall for _, recall in each.values()])) if each else None,
            "classes": {name: ap for name, (ap, _) in each.items()},
        }
    result = {
        "task": task,
        "model": store.file_digest(trained / "model.safetensors"),
        "start": json.loads((trained / "provenance.json").read_text())["start"],
        "settings": settings.model_dump(),
        "split": "val",
        "clouds": len(truths),
        "clouds_of_split": len(data.frames),
        "left_out": left_out,
        "notes": notes,
        "objects": int(sum(len(kind) for kind, _ in truths.values())),
        "boxes": figures,
    }
    checkpoint.save_json(out, checkpoint.without_nan(result))
    return result


def as_lines(told: dict[str, Any]) -> list[str]:
    """The main figures of a measurement, in %, for people."""
    lines = []
    for name, figures in told["boxes"].items():
        if figures["mean"] is None:
            return [f"{told['task']}: there is no object to find"]
        lines.append(
            f"{told['task']} {name.upper()}: {100 * figures['mean']:.2f} %, recall "
            f"{100 * figures['recall']:.2f} %"
        )
    return lines
