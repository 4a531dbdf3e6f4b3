"""A finetuned network on the validation split: figures, pictures, files for the benchmark."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from pri3d import store
from pri3d.classes import ClassSet
from pri3d.config import TASKS, Insseg, Semseg, kind_of
from pri3d.datasets import NyuV2, Objects, ScanNetFrames, Split, at_size, open_split
from pri3d.datasets.subsets import spread
from pri3d.errors import Pri3DError
from pri3d.finetune import pictures
from pri3d.finetune.tasks import insseg, semseg
from pri3d.finetune.tasks.insseg import as_tensor, masks_of
from pri3d.metrics import coco, semantic
from pri3d.metrics.instance2d import InstanceAP, Predicted
from pri3d.run import checkpoint, processes
from pri3d.run.checkpoint import first_line
from pri3d.transforms.color import normalise
from pri3d.transforms.crop import Crop, crop_image

NOTHING = Objects(np.zeros((1, 1), np.int32), {})
DATA = {"scannet": ScanNetFrames, "nyuv2": NyuV2}
# The size (height, width) at which each rule compares labels.
SIZES = {"scannet": (480, 640), "pri3d": (240, 320)}
MANY = 8  # images at once


class Asked(NamedTuple):
    """What is to be measured. chosen: positions of frames; left_out gets a sentence for each that
    cannot be read; drawn: those of which a picture goes into the folder `pictures`; submission:
    folder for the benchmark's files, or None.
    """

    data: Split
    chosen: list[int]
    left_out: list[str]
    drawn: set[int]
    pictures: Path
    submission: Path | None


def load_run(run: Path) -> tuple[str, Semseg | Insseg, nn.ModuleDict]:
    """Task, settings and trained network of a finished finetuning run.

    Raises Pri3DError when the folder holds none.
    """
    try:
        given = json.loads((run / "settings.json").read_text())
        task = given.pop("task")
        if kind_of(task).network == "network3d":
            raise Pri3DError(f"{run}: was finetuned on clouds, not on images")
        kind = Semseg if TASKS[task].kind == "semseg" else Insseg
        settings = kind.model_validate(given)
        weights = load_file(run / "model.safetensors")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise Pri3DError(
            f"{run}: is no finished finetuning run ({first_line(error)}); give a folder that "
            "`pri3d finetune` has filled"
        ) from None
    module = semseg if kind is Semseg else insseg
    # Frozen statistics are in the weights; what they started from does not matter any more.
    building = settings.model_copy(update={"init": "file"})
    nets = module.networks(building, len(classes_of(task).names))
    try:
        nets.load_state_dict(weights)
    except RuntimeError as error:
        raise Pri3DError(
            f"{run}: its weights are not of its settings ({first_line(error)}); finetune again"
        ) from None
    return task, settings, nets.eval()


def classes_of(task: str) -> ClassSet:
    """The classes that a task's predictions are counted in."""
    kind, dataset = TASKS[task]
    data = DATA[dataset]
    return data.classes if kind == "semseg" else data.things


def run(
    trained: Path,
    data_dir: Path,
    out: Path,
    device: str = "auto",
    threads: int = 0,
    most: int | None = None,
    drawn: int = 6,
    submission: Path | None = None,
    split: str = "val",
) -> dict[str, Any]:
    """Measure the run in the folder `trained` on a split of a data set, into `out` (JSON).

    split: "val", or "test" of ScanNet's frames: nothing is annotated there, so that figures mean
    nothing and only the files of `submission` are of use. most: at most so many images, spread
    over all (default all). drawn: so many pictures (image, truth, prediction, error) go beside
    `out`, as <name>_pictures/*.jpg. submission: folder for predictions in the form that ScanNet's
    benchmark takes. Images that cannot be read are counted in `left_out`. Raises Pri3DError when
    there is nothing to measure.
    """
    if threads:
        torch.set_num_threads(threads)
    task, settings, nets = load_run(trained)
    place = processes.start(device).device
    nets.to(place, memory_format=torch.channels_last)
    data = open_split(TASKS[task].dataset, data_dir, split)
    if submission is not None and data.name != "scannet":
        raise Pri3DError("--submission: there is a benchmark of ScanNet only")
    is_semseg = isinstance(settings, Semseg)
    any_will_do = is_semseg or split == "test"
    usable = [i for i in range(len(data.frames)) if any_will_do or data.has_objects(i)]
    chosen = spread(usable, most)
    lost = data.problems + ([] if any_will_do else data.without_objects)
    folder = out.with_name(out.stem + "_pictures")
    asked = Asked(data, chosen, list(lost), set(spread(chosen, drawn)), folder, submission)
    measured = (_semseg if is_semseg else _insseg)(nets, settings, place, asked)
    if not measured["images"]:
        raise Pri3DError(
            f"{data_dir}: no image of the split {split} can be used"
            + (f" ({asked.left_out[0]})" if asked.left_out else "")
        )
    result = {
        "task": task,
        "model": store.file_digest(trained / "model.safetensors"),
        "start": json.loads((trained / "provenance.json").read_text())["start"],
        "settings": settings.model_dump(),
        "split": split,
        "scenes": len({frame.scene for frame in data.frames}),
        "images_of_split": len(data.frames),
        "left_out": asked.left_out,
        **measured,
    }
    checkpoint.save_json(out, checkpoint.without_nan(result))
    return result


def network_input(rgb: np.ndarray, settings: Semseg) -> Tensor:
    """A whole image as the network sees it: float32 [3, height, width], normalised."""
    whole = Crop(0, 0, *rgb.shape[:2], False)
    shape = settings.height, settings.width
    return normalise(torch.from_numpy(crop_image(rgb, rgb.shape[:2], whole, shape)))


def _semseg(nets: nn.ModuleDict, settings: Semseg, place: torch.device, asked: Asked) -> dict:
    data, classes = asked.data, len(asked.data.classes.names)
    counted = {rule: np.zeros((classes + 1,) * 2, np.int64) for rule in SIZES}
    read = 0
    for start in tqdm(range(0, len(asked.chosen), MANY), "images", disable=None):
        seen = _read_labelled(settings, asked, asked.chosen[start : start + MANY])
        if not seen:
            continue
        read += len(seen)
        images = torch.stack([network_input(color, settings) for _, color, _ in seen])
        with torch.no_grad():
            scores = semseg.logits(nets, images.to(place), settings)
        for rule, shape in SIZES.items():
            finest = _finest([truth for _, _, truth in seen], shape)
            found = semseg.most_likely(scores, finest).cpu().numpy()
            for (frame, color, truth), predicted in zip(seen, found):
                predicted = at_size(predicted, shape)
                truth = at_size(truth, shape)
                counted[rule] += semantic.confusion(truth, predicted, classes)
                if rule == "scannet":
                    _keep_labels(asked, frame, color, truth, predicted)
    told = {}
    for rule, confusion in counted.items():
        figures = semantic.RULES[rule](confusion)
        iou = dict(zip(data.classes.names, figures.iou.tolist()))
        told[rule] = figures._asdict() | {"iou": iou}
    pixels = counted["scannet"].sum(axis=1)[1:]
    shares = pixels / max(pixels.sum(), 1)
    return {
        "images": read,
        "rules": told,
        "pixels": dict(zip(data.classes.names, shares.tolist())),
        "confusion": counted["scannet"].tolist(),
    }


def _read_labelled(
    settings: Semseg, asked: Asked, frames: list[int]
) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Frame, colours and labels of those that can be read; the test split has no labels."""
    seen = []
    for frame in frames:
        try:
            color = asked.data.color(frame, settings.height)
            if asked.data.split == "test":
                labels = np.zeros(color.shape[:2], np.uint8)
            else:
                labels = asked.data.labels(frame)
        except Pri3DError as error:
            asked.left_out.append(str(error))
            continue
        seen.append((frame, color, labels))
    return seen


def _finest(truths: list[np.ndarray], shape: tuple[int, int]) -> tuple[int, int]:
    """The size to predict at: nothing is gained from more pixels than the truth has, which the rule
    would only repeat."""
    same = len({truth.shape for truth in truths}) == 1
    smaller = all(t.shape[0] <= shape[0] and t.shape[1] <= shape[1] for t in truths)
    return truths[0].shape if same and smaller and truths[0].any() else shape


def _keep_labels(
    asked: Asked, frame: int, color: np.ndarray, truth: np.ndarray, predicted: np.ndarray
) -> None:
    """The picture and the benchmark's file, where they are asked for."""
    name, classes = asked.data.frames[frame].name, asked.data.classes
    if frame in asked.drawn:
        sheet = pictures.semantic(color, truth, predicted, classes)
        pictures.save(asked.pictures / _file_name(name, ".jpg"), sheet)
    if asked.submission is not None:
        ids = classes.file_ids()[predicted]
        save_png(asked.submission / _file_name(name, ".png"), ids)


def _insseg(nets: nn.ModuleDict, settings: Insseg, place: torch.device, asked: Asked) -> dict:
    data = asked.data
    images, annotations, results = [], [], []
    scannet = InstanceAP(len(data.things.names))
    for frame in tqdm(asked.chosen, "images", disable=None):
        name = data.frames[frame].name
        try:
            color = data.color(frame)
            objects = NOTHING if data.split == "test" else data.objects(frame)
        except Pri3DError as error:
            asked.left_out.append(str(error))
            continue
        shape = color.shape[:2]
        (found,) = insseg.predict(nets, [as_tensor(color).to(place)], settings)
        masks, labels = masks_of(objects, shape, settings.min_pixels)
        images.append(coco.image_of(len(images) + 1, name, shape))
        annotations += coco.annotations_of(len(images), masks, labels, len(annotations) + 1)
        results += coco.results_of(len(images), found)
        predicted = [
            Predicted(mask, int(kind), float(score))
            for mask, kind, score in zip(found["masks"], found["labels"], found["scores"])
        ]
        scannet.add(at_size(objects.number, shape), objects.class_of, predicted)
        if frame in asked.drawn:
            sheet = pictures.instances(color, masks, labels, found, data.things)
            pictures.save(asked.pictures / _file_name(name, ".jpg"), sheet)
        if asked.submission is not None:
            _save_instances(asked.submission, name, predicted, data.things.file_ids())
    truth = coco.truth_of(images, annotations, data.things.names)
    ap = scannet.result()
    own = {"ap": _nanmean(ap["ap"]), "ap50": _nanmean(ap["ap50"])}
    own["classes"] = dict(zip(data.things.names, ap["ap"].tolist()))
    return {
        "images": len(images),
        "objects": len(annotations),
        "predictions": len(results),
        "coco": coco.evaluate(truth, results),
        "scannet": own,
    }


def _nanmean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def _file_name(name: str, suffix: str) -> str:
    return name.replace("/", "_") + suffix


def save_png(path: Path, image: np.ndarray) -> None:
    with store.atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, "PNG")


def _save_instances(
    folder: Path, name: str, predicted: list[Predicted], file_ids: np.ndarray
) -> None:
    """A text file of one line an object, `mask label confidence`, and the masks that it names."""
    lines = []
    for number, each in enumerate(predicted):
        mask = f"pred_mask/{_file_name(name, f'_{number:03d}.png')}"
        save_png(folder / mask, each.mask.astype(np.uint8) * 255)
        lines.append(f"{mask} {file_ids[each.kind]} {each.score:.6f}\n")
    with store.atomic_path(folder / _file_name(name, ".txt")) as temporary:
        temporary.write_text("".join(lines))


def as_lines(told: dict[str, Any]) -> list[str]:
    """The main figures of a measurement, in %, for people."""
    if "rules" in told:
        lines = []
        for rule, figures in told["rules"].items():
            words = (("mean_iou", "mIoU"), ("pixel_accuracy", "pixels right"))
            words += (("mean_accuracy", "mean over classes"),)
            said = ", ".join(f"{word} {_percent(figures[key])}" for key, word in words)
            lines.append(f"{told['task']} by the rule of {rule}: {said}")
        return lines
    lines = [
        f"{told['task']} {kind} by COCO's rule: "
        + ", ".join(f"{name.upper()} {_percent(told['coco'][kind][name])}" for name in coco.FIGURES)
        for kind in ("boxes", "masks")
    ]
    own = ", ".join(f"{name.upper()} {_percent(told['scannet'][name])}" for name in ("ap", "ap50"))
    return [*lines, f"{told['task']} masks by the rule of scannet: {own}"]


def _percent(share: float | None) -> str:
    return "-" if share is None or math.isnan(share) else f"{100 * share:.2f} %"
