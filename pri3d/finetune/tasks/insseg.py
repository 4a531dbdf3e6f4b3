"""Detection and instance segmentation of images: torchvision's Mask R-CNN on a pretrained encoder.

He et al., "Mask R-CNN", ICCV 2017, with a feature pyramid (Lin et al., CVPR 2017). torchvision's
own `maskrcnn_resnet50_fpn` derives normalization and frozen stages from whether it loads its own
weights; here they are settings.

Shapes: N objects, H x W pixels.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FrozenBatchNorm2d

from pri3d.config import Insseg
from pri3d.datasets import Objects, Split, at_size, open_split
from pri3d.errors import Pri3DError
from pri3d.finetune.initial_weights import load_encoder
from pri3d.finetune.optimizers import polynomial_rate, sgd
from pri3d.finetune.samples import Damaged, resolve_item, separate
from pri3d.finetune.subsets import labeled_subset
from pri3d.models.resunet import ENCODERS, resnet_encoder
from pri3d.run.folder import InitialWeights
from pri3d.transforms.color import augment

STAGES = ("layer4", "layer3", "layer2", "layer1", "conv1")  # from the last; bn1 goes with conv1
PYRAMID_CHANNELS = 256
LOSS_NAMES = {
    "loss_classifier": "classes",
    "loss_box_reg": "boxes",
    "loss_mask": "masks",
    "loss_objectness": "proposed",
    "loss_rpn_box_reg": "proposed_boxes",
}


# Data


def open_data(dataset: str, root: Path, split: str) -> Split:
    return open_split(dataset, root, split)


def select(data: Split, settings: Insseg) -> list[int]:
    chosen = [i for i in labeled_subset(data.frames, settings) if data.has_objects(i)]
    if not chosen:
        raise Pri3DError(
            f"{data.root}: has no instance images ({data.without_objects[0]}); fetch them too"
        )
    return chosen


def problems(data: Split) -> list[str]:
    return data.problems + data.without_objects


def content(data: Split, position: int) -> Iterable[np.ndarray]:
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

    def __init__(self, data: Split, chosen: list[int], settings: Insseg) -> None:
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


def samples(data: Split, chosen: list[int], settings: Insseg) -> Samples:
    return Samples(data, chosen, settings)


def as_tensor(rgb: np.ndarray) -> Tensor:
    """u8 [H, W, 3] to u8 [3, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))


def masks_of(
    objects: Objects, shape: tuple[int, int], min_pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Masks bool [N, H, W] at the size of the color image and classes int64 [N], by object number.

    Objects with fewer than `min_pixels` pixels in their own image are left out.
    """
    size = np.bincount(objects.number.ravel())
    kept = [n for n in sorted(objects.class_of) if size[n] >= min_pixels]
    number = at_size(objects.number, shape)
    kept = [n for n in kept if (number == n).any()]
    masks = number[None] == np.array(kept, np.int32).reshape(-1, 1, 1)
    return masks, np.array([objects.class_of[n] for n in kept], np.int64)


def targets(masks: np.ndarray, labels: np.ndarray) -> dict[str, Tensor]:
    """torchvision's targets; a box encloses all pixels of its mask, and is never empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.from_numpy(labels),
        "masks": torch.from_numpy(np.ascontiguousarray(masks).view(np.uint8)),
    }


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


def networks(data: Split, settings: Insseg) -> nn.ModuleDict:
    return build(len(data.things.names), settings)


def build(classes: int, settings: Insseg) -> nn.ModuleDict:
    """`model`: a Mask R-CNN for K classes and the background, with random weights.

    Raises:
        Pri3DError: batch norm statistics are to be frozen, and the initial weights have none.
    """
    if settings.encoder_norm == "frozen" and settings.initial_weights in ("random", "try_imagenet"):
        raise Pri3DError(
            "insseg.encoder_norm: a random network has no statistics to freeze; set it to batch, "
            "or insseg.initial_weights to weights"
        )
    norm = FrozenBatchNorm2d if settings.encoder_norm == "frozen" else nn.BatchNorm2d
    encoder = resnet_encoder(settings.network2d, norm_layer=norm)
    stages = {f"layer{i}": str(i - 1) for i in range(1, 5)}
    channels = list(ENCODERS[settings.network2d][1])
    model = MaskRCNN(
        BackboneWithFPN(encoder, stages, channels, PYRAMID_CHANNELS),
        num_classes=classes + 1,
        min_size=tuple(settings.short_sides),
        max_size=settings.long_side,
        rpn_post_nms_top_n_train=1000,
        rpn_post_nms_top_n_test=1000,
        box_score_thresh=settings.min_score,
        box_batch_size_per_image=settings.roi_samples,
    )
    return nn.ModuleDict({"model": model})


def encoder_of(nets: nn.ModuleDict) -> nn.Module:
    """The ResNet encoder of the detector."""
    return nets["model"].get_submodule("backbone.body")


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
    """The five losses of Mask R-CNN, unweighted; their sum is minimized."""
    if not batch.images:
        return {}
    device = batch.images[0].device
    with torch.autocast(device.type, torch.bfloat16, settings.precision == "bf16"):
        terms = nets["model"]([image.float() / 255 for image in batch.images], batch.targets)
    return {LOSS_NAMES[name]: loss.float() for name, loss in terms.items()}


def weight(batch: Batch, settings: Insseg) -> float:
    """The number of images."""
    return float(len(batch.images))


def optimizer(parameters: list[nn.Parameter], settings: Insseg) -> torch.optim.Optimizer:
    return sgd(parameters, settings)


def learning_rate(settings: Insseg, step: int, steps: int) -> float:
    return polynomial_rate(settings, step, steps)


# Prediction


@torch.no_grad()
def predict(
    nets: nn.ModuleDict, images: list[Tensor], settings: Insseg
) -> list[dict[str, np.ndarray]]:
    """For each image (u8 [3, H, W]): boxes [N, 4] in pixels, labels [N] (1..K), scores [N] in
    decreasing order, and masks bool [N, H, W].
    """
    with torch.autocast(images[0].device.type, torch.bfloat16, settings.precision == "bf16"):
        predictions = nets["model"]([image.float() / 255 for image in images])
    return [
        {
            "boxes": each["boxes"].float().cpu().numpy(),
            "labels": each["labels"].cpu().numpy(),
            "scores": each["scores"].float().cpu().numpy(),
            "masks": (each["masks"][:, 0] > 0.5).cpu().numpy(),
        }
        for each in predictions
    ]
