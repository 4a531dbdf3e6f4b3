"""A detector on the validation split: average precision of its boxes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pri3d import store
from pri3d.boxes import Boxes, hulls, inside
from pri3d.config import TASKS
from pri3d.datasets.objects3d import open_objects
from pri3d.datasets.subsets import spread
from pri3d.errors import Pri3DError
from pri3d.finetune.finished import load_run, task_of
from pri3d.finetune.tasks import det3d
from pri3d.metrics import boxes3d
from pri3d.metrics.boxes3d import Found
from pri3d.models.votenet import Proposals, boxes_of
from pri3d.run import checkpoint, processes
from pri3d.sparse.convolution import engine_for

THRESHOLDS = (0.25, 0.5)
MIN_POINTS = 5  # a box with fewer is empty


def run(
    trained: Path,
    data_dir: Path,
    out: Path,
    device: str = "auto",
    threads: int = 0,
    most: int | None = None,
    engine: str = "auto",
) -> dict[str, Any]:
    """Measure the detector in the folder `trained` on the validation split, into `out` (JSON).

    Average precision (area under the precision envelope) and recall at 0.25 and 0.5 IoU, of each
    class and their means over the classes that occur. Boxes with fewer than five points are left
    out, boxes of a class suppress each other at 0.25 IoU of their hulls, and every box is given for
    every class (as VoteNet's evaluation has it). most: at most so many scenes, spread over all.
    engine: setting `sparse.engine`.
    Scenes that cannot be read are counted in `left_out`. Raises Pri3DError when nothing can be
    measured.
    """
    if threads:
        torch.set_num_threads(threads)
    task = task_of(trained)
    data = open_objects(TASKS[task].dataset, data_dir, "val")
    place = processes.start(device).device
    settings, nets = load_run(
        trained,
        lambda settings: det3d.networks(settings, data.classes, data.oriented),
        engine_for(engine, place),
    )
    nets.to(place)
    chosen = spread(list(range(len(data.frames))), most)
    left_out, notes, truths, found = list(data.problems), [], {}, []
    for i in tqdm(chosen, "scenes", disable=None):
        rng = np.random.default_rng([settings.seed, i])
        how = settings.voxel_m, not data.oriented, settings.seed_points
        try:
            scene = det3d.some_points(data.scene(i), settings.max_points, rng)
            sample = det3d.in_voxels(data.frames[i].name, scene, *how)
        except Pri3DError as error:
            left_out.append(str(error))
            continue
        notes += scene.notes
        batch = processes.move(det3d.collate_scenes([sample]), place)
        with torch.no_grad():
            proposals = det3d.detect(nets, batch).proposals
        mean_size = nets["detector"].mean_size
        _, boxes = predictions(proposals, mean_size, 0, scene.points, least=settings.min_score)
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
        "described_by": getattr(data, "described_by", None),
        "objects": int(sum(len(kind) for kind, _ in truths.values())),
        "boxes": figures,
    }
    checkpoint.save_json(out, checkpoint.without_nan(result))
    return result


def predictions(
    proposals: Proposals,
    mean_size_Z3: Tensor,
    scene: int,
    cloud: np.ndarray | None = None,
    by_class: bool = True,
    all_classes: bool = True,
    in_plane: bool = False,
    of_smaller: bool = False,
    threshold: float = 0.25,
    least: float = 0.05,
) -> tuple[np.ndarray, list[Found]]:
    """Which proposals [K] of a scene of the batch remain, and the boxes that they are.

    cloud: the scene's points [P, 3]; boxes with fewer than five are left out. by_class: only boxes
    of one class suppress each other. all_classes: every box is given for every class, with the
    class's probability as a factor of its score. in_plane: suppression by the footprints' hulls,
    and of_smaller as in `boxes3d.suppress`. least: lowest score of an object.
    """
    center, size, heading = (
        part[scene].detach().double().cpu().numpy() for part in boxes_of(proposals, mean_size_Z3)
    )
    boxes = Boxes(center, size, heading)
    score = torch.softmax(proposals.objectness[scene].detach().double(), dim=1)[:, 1].cpu().numpy()
    kinds = torch.softmax(proposals.classes[scene].detach().double(), dim=1).cpu().numpy()
    kind = kinds.argmax(axis=1)
    rows = np.arange(len(score))
    if cloud is not None:
        number = [inside(cloud, *box).sum() for box in zip(center, size, heading)]
        rows = rows[np.array(number) >= MIN_POINTS]
    hull = hulls(boxes)[rows]
    if in_plane:
        hull = hull[:, [0, 1, 3, 4]]
    same = kind[rows] if by_class and not in_plane else None
    picked = rows[boxes3d.suppress(hull, score[rows], threshold, same, of_smaller)]
    remains = np.zeros(len(score), bool)
    remains[picked] = True
    kept = np.flatnonzero(remains & (score > least))

    def found(row: int, cls: int, value: float) -> Found:
        return Found(scene, int(cls), float(value), center[row], size[row], float(heading[row]))

    if all_classes:
        every = range(kinds.shape[1])
        return remains, [found(i, cls, kinds[i, cls] * score[i]) for cls in every for i in kept]
    return remains, [found(i, kind[i], score[i]) for i in kept]


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
