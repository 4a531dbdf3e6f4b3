"""Semantic segmentation of images: the pretrained UNet, or DeepLabV3 on its encoder.

Shapes: B images, K classes, H x W pixels.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from pri3d.classes import ClassSet
from pri3d.config import Semseg
from pri3d.datasets import LabeledImages, at_size, open_split
from pri3d.errors import Pri3DError
from pri3d.finetune import pictures
from pri3d.finetune.initial_weights import load_encoder, load_unet
from pri3d.finetune.labels import crop_labels
from pri3d.finetune.optimizers import polynomial_rate, sgd
from pri3d.finetune.samples import IGNORED, Damaged, resolve_item, separate
from pri3d.finetune.subsets import labeled_subset
from pri3d.finetune.summaries import percent
from pri3d.metrics import semantic
from pri3d.models.resunet import ENCODERS, encode, resnet_encoder, resunet
from pri3d.run.folder import InitialWeights
from pri3d.transforms.color import augment, normalize
from pri3d.transforms.crop import Crop, crop_image, random_crop

ITEMS_AT_ONCE = 8  # images per prediction
# Size (height, width) at which each rule compares labels.
RULE_SIZES = {"scannet": (480, 640), "pri3d": (240, 320)}
MIN_SHARE = 0.01  # of an image's pixels, for a class to be named in a summary

# Data


def open_data(dataset: str, root: Path, split: str) -> LabeledImages:
    return open_split(dataset, root, split)


def select(data: LabeledImages, settings: Semseg) -> list[int]:
    return labeled_subset(data.frames, settings)


def problems(data: LabeledImages) -> list[str]:
    return data.problems


def content(data: LabeledImages, position: int) -> Iterable[np.ndarray]:
    return data.labels(position), data.color(position)


class Sample(NamedTuple):
    """image float32 [3, H, W], normalized; target u8 [H, W]: class 0..K-1, or IGNORED."""

    name: str
    image_CHW: Tensor
    target_HW: Tensor


class Batch(NamedTuple):
    """images float32 [B, 3, H, W], targets u8 [B, H, W]; None where every sample is damaged."""

    names: list[str]
    images_BCHW: Tensor | None
    targets_BHW: Tensor | None
    damaged: list[Damaged]
    notes: list[str]


class Samples(torch.utils.data.Dataset[Sample | Damaged]):
    """Training images at the input size. chosen: positions of the frames used."""

    def __init__(self, data: LabeledImages, chosen: list[int], settings: Semseg) -> None:
        self.data, self.chosen, self.settings = data, chosen, settings

    def __getitem__(self, item: int) -> Sample | Damaged:
        position, rng = resolve_item(item, self.chosen, self.settings.seed)
        settings, name = self.settings, self.data.frames[position].name
        shape = settings.height, settings.width
        crop_rng, color_rng = rng.spawn(2)
        try:
            # Decoded so large that the smallest crop still has as many rows as the input.
            rgb = self.data.color(position, int(np.ceil(shape[0] / settings.crop)))
            labels = self.data.labels(position)
        except Pri3DError as error:
            return Damaged(name, str(error))
        crop = random_crop(rgb.shape[:2], settings.crop, settings.flip, crop_rng)
        image = torch.from_numpy(crop_image(rgb, rgb.shape[:2], crop, shape))
        if settings.augment_color:
            image = augment(image, color_rng)
        target = crop_labels(labels, rgb.shape[:2], crop, shape)
        return Sample(name, normalize(image), torch.from_numpy(target - np.uint8(1)))


def samples(data: LabeledImages, chosen: list[int], settings: Semseg) -> Samples:
    return Samples(data, chosen, settings)


def collate(samples: list[Sample | Damaged]) -> Batch:
    good, damaged = separate(samples)
    if not good:
        return Batch([], None, None, damaged, [])
    return Batch(
        names=[sample.name for sample in good],
        images_BCHW=torch.stack([sample.image_CHW for sample in good]),
        targets_BHW=torch.stack([sample.target_HW for sample in good]),
        damaged=damaged,
        notes=[],
    )


# Networks


def networks(data: LabeledImages, settings: Semseg) -> nn.ModuleDict:
    return build(len(data.classes.names), settings)


def build(classes: int, settings: Semseg) -> nn.ModuleDict:
    """`backbone` (a UNet, or an encoder alone) and `classifier`, with random weights."""
    if settings.architecture == "unet":
        unet = resunet(settings.network2d)
        classifier: nn.Module = nn.Conv2d(unet.channels, classes, 1)
        return nn.ModuleDict({"backbone": unet, "classifier": classifier})
    encoder = resnet_encoder(settings.network2d, dilated=True)
    classifier = DeepLabHead(ENCODERS[settings.network2d].channels[-1], classes)
    backbone = nn.ModuleDict({"encoder": encoder})
    return nn.ModuleDict({"backbone": backbone, "classifier": classifier})


def load_initial_weights(nets: nn.ModuleDict, settings: Semseg) -> InitialWeights:
    backbone = nets["backbone"]
    name, source = settings.network2d, settings.initial_weights
    if settings.architecture == "unet" and settings.transfer == "encoder_decoder":
        return load_unet(backbone, name, source, "semseg")
    return load_encoder(backbone.get_submodule("encoder"), name, source, "semseg")


def freeze_and_select(nets: nn.ModuleDict, settings: Semseg) -> list[nn.Parameter]:
    """A frozen backbone keeps its parameters; its batch norm statistics still follow the images."""
    nets["backbone"].requires_grad_(not settings.frozen)
    return [parameter for parameter in nets.parameters() if parameter.requires_grad]


def set_training_mode(nets: nn.ModuleDict, settings: Semseg) -> None:
    nets.train()


def logits(nets: nn.ModuleDict, image_BCHW: Tensor, settings: Semseg) -> Tensor:
    """Class scores float32 [B, K, H, W] of normalized images, at their size."""
    with torch.autocast(image_BCHW.device.type, torch.bfloat16, settings.precision == "bf16"):
        image = image_BCHW.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not settings.frozen):
            if settings.architecture == "unet":
                features = nets["backbone"](image)
            else:
                features = encode(nets["backbone"].get_submodule("encoder"), image)[-1]
        scores = nets["classifier"](features)
    return interpolate(scores.float(), image_BCHW.shape[-2:], mode="bilinear", align_corners=False)


# Training


def losses(nets: nn.ModuleDict, batch: Batch, settings: Semseg) -> dict[str, Tensor]:
    """Cross entropy, the mean over all labeled pixels."""
    if batch.images_BCHW is None or batch.targets_BHW is None or not weight(batch, settings):
        return {}
    scores = logits(nets, batch.images_BCHW, settings)
    return {"pixels": cross_entropy(scores, batch.targets_BHW.long(), ignore_index=IGNORED)}


def weight(batch: Batch, settings: Semseg) -> float:
    """The number of labeled pixels."""
    if batch.targets_BHW is None:
        return 0.0
    if settings.architecture == "deeplabv3" and len(batch.targets_BHW) < 2:
        return 0.0  # batch norm of its head has one value per image and channel
    return float((batch.targets_BHW != IGNORED).sum())


def optimizer(parameters: list[nn.Parameter], settings: Semseg) -> torch.optim.Optimizer:
    return sgd(parameters, settings)


def learning_rate(settings: Semseg, step: int, steps: int) -> float:
    return polynomial_rate(settings, step, steps)


# Prediction and measuring


def network_input(rgb: np.ndarray, settings: Semseg) -> Tensor:
    """A whole image at the input size: float32 [3, H, W], normalized."""
    height, width = rgb.shape[:2]
    whole = Crop(top=0, left=0, height=height, width=width, mirrored=False)
    shape = settings.height, settings.width
    return normalize(torch.from_numpy(crop_image(rgb, (height, width), whole, shape)))


def most_likely(scores_BKHW: Tensor, shape: tuple[int, int]) -> Tensor:
    """The class 1..K of each pixel, u8 [B, h, w], at a size (height, width)."""
    if tuple(scores_BKHW.shape[-2:]) != tuple(shape):
        scores_BKHW = interpolate(scores_BKHW, shape, mode="bilinear", align_corners=False)
    return (scores_BKHW.argmax(dim=1) + 1).to(torch.uint8)


class Item(NamedTuple):
    """An image to measure: color u8 [H, W, 3] and labels u8 [h, w], 0 where nothing is labeled."""

    position: int
    name: str
    notes: list[str]
    color: np.ndarray
    labels: np.ndarray


Counts = dict[str, np.ndarray]  # rule -> confusion matrix int64 [K + 1, K + 1]
Prediction = dict[str, np.ndarray]  # rule -> classes u8 [h, w] at the rule's size


def measurable(data: LabeledImages) -> list[int]:
    return list(range(len(data.frames)))


def read_item(data: LabeledImages, position: int, settings: Semseg) -> Item:
    color = data.color(position, settings.height)
    unlabeled = np.zeros(color.shape[:2], np.uint8)
    labels = unlabeled if data.split == "test" else data.labels(position)
    return Item(position, data.frames[position].name, [], color, labels)


def predict_items(
    nets: nn.ModuleDict, items: list[Item], settings: Semseg, device: torch.device
) -> list[Prediction]:
    images = torch.stack([network_input(item.color, settings) for item in items])
    with torch.no_grad():
        scores = logits(nets, images.to(device), settings)
    predictions: list[Prediction] = [{} for _ in items]
    for rule, shape in RULE_SIZES.items():
        size = _prediction_size([item.labels for item in items], shape)
        classes = most_likely(scores, size).cpu().numpy()
        for prediction, labels in zip(predictions, classes):
            prediction[rule] = at_size(labels, shape)
    return predictions


def _prediction_size(labels: list[np.ndarray], shape: tuple[int, int]) -> tuple[int, int]:
    """The size to predict at: that of the labels where the rule would only repeat their pixels."""
    first = labels[0]
    same = len({each.shape for each in labels}) == 1
    smaller = all(h <= shape[0] and w <= shape[1] for h, w in (each.shape for each in labels))
    return (first.shape[0], first.shape[1]) if same and smaller and first.any() else shape


def new_counts(data: LabeledImages) -> Counts:
    size = len(data.classes.names) + 1
    return {rule: np.zeros((size, size), np.int64) for rule in RULE_SIZES}


def count(counts: Counts, data: LabeledImages, item: Item, prediction: Prediction) -> None:
    classes = len(data.classes.names)
    for rule, shape in RULE_SIZES.items():
        labels = at_size(item.labels, shape)
        counts[rule] += semantic.confusion(labels, prediction[rule], classes)


def figures(counts: Counts, data: LabeledImages) -> dict[str, Any]:
    """IoU and accuracy by ScanNet's and by Pri3D's rule, and the share of each class."""
    names, rules = data.classes.names, {}
    for rule, confusion in counts.items():
        of_rule = semantic.RULES[rule](confusion)
        rules[rule] = of_rule._asdict() | {"iou": dict(zip(names, of_rule.iou.tolist()))}
    pixels = counts["scannet"].sum(axis=1)[1:]
    shares = pixels / max(pixels.sum(), 1)
    return {
        "rules": rules,
        "pixels": dict(zip(names, shares.tolist())),
        "confusion": counts["scannet"].tolist(),
    }


def summary(result: dict[str, Any]) -> list[str]:
    return [
        f"by {name}'s rule: mIoU {percent(result['rules'][rule]['mean_iou'])}, "
        f"pixel accuracy {percent(result['rules'][rule]['pixel_accuracy'])}, "
        f"mean accuracy {percent(result['rules'][rule]['mean_accuracy'])}"
        for rule, name in (("scannet", "ScanNet"), ("pri3d", "Pri3D"))
    ]


# Pictures and files


def picture(data: LabeledImages, item: Item, prediction: Prediction) -> np.ndarray:
    labels = at_size(item.labels, RULE_SIZES["scannet"])
    return pictures.semantic(item.color, labels, prediction["scannet"], data.classes)


def write_submission(folder: Path, data: LabeledImages, item: Item, prediction: Prediction) -> None:
    """<image>.png with the id of every pixel."""
    ids = data.classes.file_ids()[prediction["scannet"]]
    pictures.save_png(folder / pictures.file_name(item.name, ".png"), ids)


def class_set(data: LabeledImages | type[LabeledImages]) -> ClassSet:
    return data.classes


def predict_image(
    nets: nn.ModuleDict,
    rgb: np.ndarray,
    classes: ClassSet,
    settings: Semseg,
    device: torch.device,
    stem: Path,
) -> tuple[np.ndarray, str]:
    """Write <stem>_labels.png, u8, the id of every pixel."""
    image = network_input(rgb, settings)[None].to(device)
    with torch.no_grad():
        scores = logits(nets, image, settings)
    labels = most_likely(scores, rgb.shape[:2])[0].cpu().numpy()
    pictures.save_png(stem.with_name(f"{stem.name}_labels.png"), classes.file_ids()[labels])
    shares = np.bincount(labels.ravel(), minlength=len(classes.names) + 1)[1:] / labels.size
    common = [i for i in np.argsort(-shares) if shares[i] >= MIN_SHARE]
    text = ", ".join(f"{classes.names[i]} {100 * shares[i]:.0f} %" for i in common)
    return pictures.labels_over(rgb, labels, classes), text
