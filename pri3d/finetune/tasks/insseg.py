"""Detection and instance segmentation of images: Mask R-CNN on a pretrained encoder.

Shapes: N objects, H x W pixels.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pri3d import store
from pri3d.classes import ClassSet
from pri3d.config import Insseg
from pri3d.datasets import LabeledImages, Objects, at_size, open_split
from pri3d.errors import Pri3DError
from pri3d.finetune import mask_rcnn, pictures
from pri3d.finetune.initial_weights import load_encoder
from pri3d.finetune.labels import as_tensor, masks_of, targets
from pri3d.finetune.mask_rcnn import STAGES, Predictions, encoder_of, predict
from pri3d.finetune.optimizers import polynomial_rate, sgd
from pri3d.finetune.samples import Damaged, resolve_item, separate
from pri3d.finetune.subsets import labeled_subset
from pri3d.finetune.summaries import percent
from pri3d.metrics import coco
from pri3d.metrics.instance2d import InstanceAP, Predicted
from pri3d.run.folder import InitialWeights
from pri3d.transforms.color import augment

ITEMS_AT_ONCE = 1  # images per prediction
CERTAIN = 0.5  # minimum score of the objects that pictures of predictions show


# Data


def open_data(dataset: str, root: Path, split: str) -> LabeledImages:
    return open_split(dataset, root, split)


def select(data: LabeledImages, settings: Insseg) -> list[int]:
    chosen = [i for i in labeled_subset(data.frames, settings) if data.has_objects(i)]
    if not chosen:
        raise Pri3DError(
            f"{data.name}: has no instance images ({data.without_objects[0]}); download them too"
        )
    return chosen


def problems(data: LabeledImages) -> list[str]:
    return data.problems if data.split == "test" else data.problems + data.without_objects


def content(data: LabeledImages, position: int) -> Iterable[np.ndarray]:
    return data.labels(position), data.color(position)


class Sample(NamedTuple):
    """image u8 [3, H, W] of any size, and torchvision's targets for it: boxes float32 [N, 4] (x1,
    y1, x2, y2 in pixels), labels int64 [N] (1..K), masks u8 [N, H, W].
    """

    name: str
    image_CHW: Tensor
    target: dict[str, Tensor]


class Batch(NamedTuple):
    """Images and targets, as in `Sample`."""

    names: list[str]
    images: list[Tensor]
    targets: list[dict[str, Tensor]]
    damaged: list[Damaged]
    notes: list[str]


class Samples(torch.utils.data.Dataset[Sample | Damaged]):
    """Training images at their own size; images without objects are kept as negatives.

    chosen: positions of the frames used.
    """

    def __init__(self, data: LabeledImages, chosen: list[int], settings: Insseg) -> None:
        self.data, self.chosen, self.settings = data, chosen, settings

    def __getitem__(self, item: int) -> Sample | Damaged:
        position, rng = resolve_item(item, self.chosen, self.settings.seed)
        settings, name = self.settings, self.data.frames[position].name
        flip_rng, color_rng = rng.spawn(2)
        try:
            rgb = self.data.color(position)
            objects = self.data.objects(position)
        except Pri3DError as error:
            return Damaged(name, str(error))
        image = as_tensor(rgb)
        if settings.augment_color:
            image = (augment(image.float() / 255, color_rng) * 255).round().to(torch.uint8)
        masks, labels = masks_of(objects, rgb.shape[:2], settings.min_pixels)
        if settings.flip and flip_rng.random() < 0.5:
            image, masks = image.flip(-1), masks[:, :, ::-1]
        return Sample(name, image.contiguous(), targets(masks, labels))


def samples(data: LabeledImages, chosen: list[int], settings: Insseg) -> Samples:
    return Samples(data, chosen, settings)


def collate(samples: list[Sample | Damaged]) -> Batch:
    good, damaged = separate(samples)
    return Batch(
        names=[sample.name for sample in good],
        images=[sample.image_CHW for sample in good],
        targets=[sample.target for sample in good],
        damaged=damaged,
        notes=[],
    )


# Networks


def networks(data: LabeledImages, settings: Insseg) -> nn.ModuleDict:
    return build(len(data.things.names), settings)


def build(classes: int, settings: Insseg) -> nn.ModuleDict:
    return mask_rcnn.build(classes, settings)


def load_initial_weights(nets: nn.ModuleDict, settings: Insseg) -> InitialWeights:
    encoder = encoder_of(nets)
    return load_encoder(encoder, settings.network2d, settings.initial_weights, "insseg")


def freeze_and_select(nets: nn.ModuleDict, settings: Insseg) -> list[nn.Parameter]:
    frozen = STAGES[settings.trained_stages :]
    for name, parameter in encoder_of(nets).named_parameters():
        stage = name.split(".")[0].replace("bn1", "conv1")
        parameter.requires_grad_(stage not in frozen)
    return [parameter for parameter in nets.parameters() if parameter.requires_grad]


def set_training_mode(nets: nn.ModuleDict, settings: Insseg) -> None:
    """Frozen stages keep their batch norm statistics too."""
    nets.train()
    encoder = encoder_of(nets)
    for stage in STAGES[settings.trained_stages :]:
        encoder.get_submodule(stage).eval()
        if stage == "conv1":
            encoder.get_submodule("bn1").eval()


# Training


def losses(nets: nn.ModuleDict, batch: Batch, settings: Insseg) -> dict[str, Tensor]:
    """The five losses of Mask R-CNN, unweighted."""
    if not batch.images:
        return {}
    return mask_rcnn.losses(nets, batch.images, batch.targets, settings)


def weight(batch: Batch, settings: Insseg) -> float:
    """The number of images."""
    return float(len(batch.images))


def optimizer(parameters: list[nn.Parameter], settings: Insseg) -> torch.optim.Optimizer:
    return sgd(parameters, settings)


def learning_rate(settings: Insseg, step: int, steps: int) -> float:
    return polynomial_rate(settings, step, steps)


# Prediction and measuring


class Item(NamedTuple):
    """An image to measure: color u8 [H, W, 3], its objects, and those large enough to count, as
    masks bool [N, H, W] and classes int64 [N].
    """

    position: int
    name: str
    notes: list[str]
    color: np.ndarray
    objects: Objects
    masks: np.ndarray
    labels: np.ndarray


class Counts(NamedTuple):
    """Images, true objects and predictions in COCO's format, and matches by ScanNet's rule."""

    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    results: list[dict[str, Any]]
    scannet: InstanceAP


def measurable(data: LabeledImages) -> list[int]:
    return [i for i in range(len(data.frames)) if data.split == "test" or data.has_objects(i)]


def read_item(data: LabeledImages, position: int, settings: Insseg) -> Item:
    color = data.color(position)
    unlabeled = Objects(np.zeros((1, 1), np.int32), {})
    objects = unlabeled if data.split == "test" else data.objects(position)
    masks, labels = masks_of(objects, color.shape[:2], settings.min_pixels)
    name = data.frames[position].name
    return Item(position, name, [], color, objects, masks, labels)


def predict_items(
    nets: nn.ModuleDict, items: list[Item], settings: Insseg, device: torch.device
) -> list[Predictions]:
    return [predict(nets, item.color, settings, device) for item in items]


def new_counts(data: LabeledImages) -> Counts:
    return Counts([], [], [], InstanceAP(len(data.things.names)))


def count(counts: Counts, data: LabeledImages, item: Item, prediction: Predictions) -> None:
    shape = item.color.shape[:2]
    number = len(counts.images) + 1
    counts.images.append(coco.image_of(number, item.name, shape))
    first = len(counts.annotations) + 1
    counts.annotations.extend(coco.annotations_of(number, item.masks, item.labels, first))
    counts.results.extend(coco.results_of(number, prediction._asdict()))
    objects = item.objects
    counts.scannet.add(at_size(objects.number, shape), objects.class_of, _by_object(prediction))


def _by_object(predictions: Predictions) -> list[Predicted]:
    columns = zip(predictions.masks, predictions.labels, predictions.scores)
    return [Predicted(mask, int(label), float(score)) for mask, label, score in columns]


def figures(counts: Counts, data: LabeledImages) -> dict[str, Any]:
    """Average precision by COCO's and by ScanNet's rule."""
    truth = coco.truth_of(counts.images, counts.annotations, data.things.names)
    ap = counts.scannet.result()
    return {
        "objects": len(counts.annotations),
        "predictions": len(counts.results),
        "coco": coco.evaluate(truth, counts.results),
        "scannet": {
            "ap": _mean(ap["ap"]),
            "ap50": _mean(ap["ap50"]),
            "classes": dict(zip(data.things.names, ap["ap"].tolist())),
        },
    }


def _mean(values: np.ndarray) -> float:
    """The mean over the classes that occur."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def summary(result: dict[str, Any]) -> list[str]:
    lines = []
    for kind in ("boxes", "masks"):
        values = (f"{name.upper()} {percent(result['coco'][kind][name])}" for name in coco.FIGURES)
        lines.append(f"{kind} by COCO's rule: {', '.join(values)}")
    values = (f"{name.upper()} {percent(result['scannet'][name])}" for name in ("ap", "ap50"))
    return [*lines, f"masks by ScanNet's rule: {', '.join(values)}"]


# Pictures and files


def picture(data: LabeledImages, item: Item, prediction: Predictions) -> np.ndarray:
    shown = _certain(prediction)
    return pictures.instances(
        item.color, item.masks, item.labels, shown.masks, shown.labels, data.things
    )


def _certain(predictions: Predictions) -> Predictions:
    rows = predictions.scores >= CERTAIN
    return Predictions(*(part[rows] for part in predictions))


def write_submission(
    folder: Path, data: LabeledImages, item: Item, prediction: Predictions
) -> None:
    """<image>.txt with one line per object (mask file, label, confidence), and the mask files."""
    ids, lines = data.things.file_ids(), []
    for number, each in enumerate(_by_object(prediction)):
        mask = f"pred_mask/{pictures.file_name(item.name, f'_{number:03d}.png')}"
        pictures.save_png(folder / mask, each.mask.astype(np.uint8) * 255)
        lines.append(f"{mask} {ids[each.kind]} {each.score:.6f}\n")
    with store.atomic_path(folder / pictures.file_name(item.name, ".txt")) as temporary:
        temporary.write_text("".join(lines))


def class_set(data: LabeledImages | type[LabeledImages]) -> ClassSet:
    return data.things


def predict_image(
    nets: nn.ModuleDict,
    rgb: np.ndarray,
    classes: ClassSet,
    settings: Insseg,
    device: torch.device,
    stem: Path,
) -> tuple[np.ndarray, str]:
    """Write <stem>_objects.json, results in COCO's format."""
    predictions = predict(nets, rgb, settings, device)
    results = coco.results_of(1, predictions._asdict())
    for entry in results:
        entry["category"] = classes.names[entry["category_id"] - 1]
    with store.atomic_path(stem.with_name(f"{stem.name}_objects.json")) as temporary:
        temporary.write_text(json.dumps(results))
    shown = _certain(predictions)
    number = Counter(classes.names[label - 1] for label in shown.labels)
    text = ", ".join(f"{n} x {name}" for name, n in number.most_common())
    overlay = pictures.overlay(rgb, shown.masks, shown.labels, classes)
    return overlay, text or f"no object with a score of at least {CERTAIN:g}"
