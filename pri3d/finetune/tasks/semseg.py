"""Semantic segmentation of images: the pretrained UNet, or DeepLabV3 on its encoder.

Shapes: B images, K classes, H x W pixels.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from pri3d.config import Semseg
from pri3d.datasets import Split, open_split
from pri3d.errors import Pri3DError
from pri3d.finetune.initial_weights import load_encoder, load_unet
from pri3d.finetune.optimizers import polynomial_rate, sgd
from pri3d.finetune.samples import IGNORED, Damaged, resolve_item, separate
from pri3d.finetune.subsets import labeled_subset
from pri3d.models.resunet import ENCODERS, resnet_encoder, resunet, stem
from pri3d.run.folder import InitialWeights
from pri3d.transforms.color import augment, normalise
from pri3d.transforms.crop import Crop, crop_image, random_crop

# Data


def open_data(dataset: str, root: Path, split: str) -> Split:
    return open_split(dataset, root, split)


def select(data: Split, settings: Semseg) -> list[int]:
    return labeled_subset(data.frames, settings)


def problems(data: Split) -> list[str]:
    return data.problems


def content(data: Split, position: int) -> Iterable[np.ndarray]:
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

    def __init__(self, data: Split, chosen: list[int], settings: Semseg) -> None:
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
        return Sample(name, normalise(image), torch.from_numpy(target - np.uint8(1)))


def samples(data: Split, chosen: list[int], settings: Semseg) -> Samples:
    return Samples(data, chosen, settings)


def crop_labels(
    labels: np.ndarray, color_shape: tuple[int, int], crop: Crop, shape: tuple[int, int]
) -> np.ndarray:
    """The labels under a crop of the color image, resized with nearest-neighbor sampling.

    Args:
        labels: [H, W], of any size.
        color_shape: height and width of the color image, to which the crop refers.
        crop: crop of the color image.
        shape: height and width of the result.
    """
    row_scale, column_scale = labels.shape[0] / color_shape[0], labels.shape[1] / color_shape[1]
    rows = _nearest(crop.top, crop.height, shape[0], row_scale, labels.shape[0])
    columns = _nearest(crop.left, crop.width, shape[1], column_scale, labels.shape[1])
    return labels[rows[:, None], columns[::-1] if crop.mirrored else columns]


def _nearest(start: float, extent: float, count: int, scale: float, size: int) -> np.ndarray:
    """The pixels nearest to the centers of `count` equal parts of an axis."""
    centers = start + (np.arange(count) + 0.5) * (extent / count)
    return np.minimum((centers * scale).astype(np.int64), size - 1)


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


def networks(data: Split, settings: Semseg) -> nn.ModuleDict:
    return build(len(data.classes.names), settings)


def build(classes: int, settings: Semseg) -> nn.ModuleDict:
    """`backbone` (a UNet, or an encoder alone) and `classifier`, with random weights."""
    if settings.architecture == "unet":
        unet = resunet(settings.network2d)
        classifier: nn.Module = nn.Conv2d(unet.channels, classes, 1)
        return nn.ModuleDict({"backbone": unet, "classifier": classifier})
    encoder = resnet_encoder(settings.network2d, dilated=True)
    classifier = DeepLabHead(ENCODERS[settings.network2d][1][-1], classes)
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
                features = last_features(nets["backbone"].get_submodule("encoder"), image)
        scores = nets["classifier"](features)
    return interpolate(scores.float(), image_BCHW.shape[-2:], mode="bilinear", align_corners=False)


def last_features(encoder: nn.Module, image_BCHW: Tensor) -> Tensor:
    """The features of an encoder's last stage."""
    features = stem(encoder, image_BCHW)
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        features = encoder.get_submodule(stage)(features)
    return features


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


# Prediction


def network_input(rgb: np.ndarray, settings: Semseg) -> Tensor:
    """A whole image at the input size: float32 [3, H, W], normalized."""
    whole = Crop(0, 0, *rgb.shape[:2], False)
    shape = settings.height, settings.width
    return normalise(torch.from_numpy(crop_image(rgb, rgb.shape[:2], whole, shape)))


def most_likely(scores_BKHW: Tensor, shape: tuple[int, int]) -> Tensor:
    """The class 1..K of each pixel, u8 [B, h, w], at a size (height, width)."""
    if tuple(scores_BKHW.shape[-2:]) != tuple(shape):
        scores_BKHW = interpolate(scores_BKHW, shape, mode="bilinear", align_corners=False)
    return (scores_BKHW.argmax(dim=1) + 1).to(torch.uint8)
