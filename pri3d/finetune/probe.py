"""What frozen features know about classes: two quick measures that train no network.

Features of labeled pixels of the training images are stored with their classes. Pixels of the
validation images are then classified by their nearest neighbors among them (k-NN), and by the
linear classifier that fits them best (ridge regression to one-hot labels, in closed form). Random
weights show what the architecture alone achieves.

Shapes: N pixels, C channels, K classes, B images, H x W cells.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize, one_hot
from tqdm import tqdm

from pri3d.config import TASKS, Semseg
from pri3d.datasets import LabeledImages, at_size
from pri3d.errors import Pri3DError
from pri3d.finetune.initial_weights import DECODER
from pri3d.finetune.tasks import semseg
from pri3d.finetune.trained import to_device
from pri3d.metrics import semantic
from pri3d.models.calibrate import calibrate_batch_norm
from pri3d.models.resunet import encode
from pri3d.run import processes
from pri3d.run.folder import write_json

NEIGHBORS = 20
TEMPERATURE = 0.1  # of the neighbors' votes, by cosine similarity
PIXELS_PER_IMAGE = 200
MAX_TRAINING_PIXELS = 60_000
RIDGE = 1e-3  # times the mean square of the features
PIXELS_AT_ONCE = 2_000
CALIBRATION_IMAGES = 16  # whose statistics batch norm gets where the weights are random


class Pixels(NamedTuple):
    """Features float32 [N, C] and classes u8 [N] (1..K) of labeled pixels."""

    features_NC: Tensor
    labels_N: Tensor


class _Features(NamedTuple):
    """A frozen network. decoder: features are the UNet's; without, the encoder's at stride 8."""

    backbone: nn.Module
    decoder: bool
    settings: Semseg
    device: torch.device

    def __call__(self, image_BCHW: Tensor) -> Tensor:
        """float32 [B, C, H, W]."""
        precision = self.settings.precision == "bf16"
        with torch.autocast(image_BCHW.device.type, torch.bfloat16, precision):
            image = image_BCHW.contiguous(memory_format=torch.channels_last)
            if self.decoder:
                return self.backbone(image).float()
            encoder = self.backbone.get_submodule("encoder")
            return encode(encoder, image, stages=2)[-1].float()


def run(task: str, data_dir: Path, out: Path, settings: Semseg, threads: int = 0) -> dict[str, Any]:
    """Probe features on a task of semantic segmentation of images.

    Args:
        task: a key of TASKS.
        data_dir: folder of its data set.
        out: JSON file to write.
        settings: initial_weights, whose features are probed; also network2d, height, width,
            precision, percent, subset, seed and device.
        threads: CPU threads; 0: torch's default.

    Returns:
        The content of `out`. Figures follow the rule of ScanNet's benchmark, over drawn pixels.

    Raises:
        Pri3DError: as in finetuning, or no pixel of a split is labeled.
    """
    if threads:
        torch.set_num_threads(threads)
    if settings.architecture != "unet":
        raise Pri3DError("semseg.architecture: probes take the features of a UNet; set it to unet")
    device = processes.start(settings.device).device
    dataset = TASKS[task].dataset
    train, val = (semseg.open_data(dataset, data_dir, split) for split in ("train", "val"))
    chosen = semseg.select(train, settings)
    torch.manual_seed(settings.seed)
    nets = semseg.networks(train, settings)
    initial = semseg.load_initial_weights(nets, settings)
    backbone = nets["backbone"]
    to_device(backbone, device)
    if initial.kind == "random":
        _calibrate(backbone, train, chosen, settings, device)
    backbone.eval()
    features = _Features(backbone, DECODER in initial.loaded, settings, device)
    rng = np.random.default_rng([settings.seed, 6])
    per_image = max(1, min(PIXELS_PER_IMAGE, MAX_TRAINING_PIXELS // len(chosen)))
    known, left_out = _draw_pixels(features, train, chosen, per_image, rng, "training images")
    positions = range(len(val.frames))
    unseen, others = _draw_pixels(
        features, val, positions, PIXELS_PER_IMAGE, rng, "validation images"
    )
    if not len(known.labels_N) or not len(unseen.labels_N):
        raise Pri3DError(f"{data_dir}: no pixel of a split is labeled; give another data set")
    classes = len(train.classes.names)
    result = {
        "task": task,
        "initial_weights": initial.as_json(),
        "channels": known.features_NC.shape[1],
        "training_images": len(chosen),
        "training_pixels": len(known.labels_N),
        "validation_pixels": len(unseen.labels_N),
        "left_out": left_out + others,
    }
    for name, classify in (("knn", nearest_neighbors), ("linear", linear_classifier)):
        predicted = classify(known, unseen.features_NC, classes)
        confusion = semantic.confusion(unseen.labels_N.numpy(), predicted.numpy(), classes)
        figures = semantic.scannet(confusion)
        result[name] = {
            "mean_iou": figures.mean_iou,
            "accuracy": figures.pixel_accuracy,
            "mean_accuracy": figures.mean_accuracy,
        }
    write_json(out, result)
    return result


@torch.no_grad()
def _calibrate(
    backbone: nn.Module,
    data: LabeledImages,
    chosen: list[int],
    settings: Semseg,
    device: torch.device,
) -> None:
    """Give batch norm the statistics of some images: with random weights it has none of its own."""
    number = min(CALIBRATION_IMAGES, len(chosen))
    images = []
    for i in np.linspace(0, len(chosen) - 1, number).astype(int):
        with contextlib.suppress(Pri3DError):  # counted when its pixels are drawn
            rgb = data.color(chosen[i], settings.height)
            images.append(semseg.network_input(rgb, settings))
    batches = [torch.stack(images[first : first + 8]) for first in range(0, len(images), 8)]

    def forward(image_BCHW: Tensor) -> None:
        backbone(image_BCHW.to(device).contiguous(memory_format=torch.channels_last))

    calibrate_batch_norm(backbone, forward, batches)


@torch.no_grad()
def _draw_pixels(
    features: _Features,
    data: LabeledImages,
    positions: Sequence[int],
    per_image: int,
    rng: np.random.Generator,
    label: str,
) -> tuple[Pixels, list[str]]:
    """Labeled pixels of some frames, drawn at random, and why frames were left out."""
    settings, parts, left_out = features.settings, [], []
    shape = settings.height // 2, settings.width // 2
    for position in tqdm(positions, label, disable=None):
        try:
            color, labels = data.color(position, settings.height), data.labels(position)
        except Pri3DError as error:
            left_out.append(str(error))
            continue
        image = semseg.network_input(color, settings)[None].to(features.device)
        map_CHW = features(image)[0]
        if map_CHW.shape[-2:] != shape:
            map_CHW = interpolate(map_CHW[None], shape, mode="bilinear", align_corners=False)[0]
        labels = at_size(labels, shape).ravel()
        pixels = rng.permutation(np.flatnonzero(labels))[:per_image]
        columns = torch.from_numpy(pixels).to(features.device)
        features_NC = map_CHW.flatten(1)[:, columns].t().cpu()
        parts.append(Pixels(features_NC, torch.from_numpy(labels[pixels].copy())))
    if not parts:
        return Pixels(torch.zeros(0, 1), torch.zeros(0, dtype=torch.uint8)), left_out
    features_NC = torch.cat([part.features_NC for part in parts])
    return Pixels(features_NC, torch.cat([part.labels_N for part in parts])), left_out


def nearest_neighbors(known: Pixels, unseen_NC: Tensor, classes: int) -> Tensor:
    """Classes u8 [N] of pixels, by the votes of their nearest neighbors among known pixels."""
    known_NC = normalize(known.features_NC)
    predicted = []
    for block in torch.split(normalize(unseen_NC), PIXELS_AT_ONCE):
        number = min(NEIGHBORS, len(known_NC))
        cosine, index = (block @ known_NC.t()).topk(number, dim=1)
        votes = torch.zeros(len(block), classes + 1)
        votes.scatter_add_(1, known.labels_N[index].long(), (cosine / TEMPERATURE).exp())
        predicted.append(votes.argmax(dim=1).to(torch.uint8))
    return torch.cat(predicted)


def linear_classifier(known: Pixels, unseen_NC: Tensor, classes: int) -> Tensor:
    """Classes u8 [N] of pixels, by ridge regression to the one-hot labels of known pixels."""
    mean, scale = known.features_NC.mean(0), known.features_NC.std(0) + 1e-6

    def with_bias(features_NC: Tensor) -> Tensor:
        ones = torch.ones(len(features_NC), 1)
        return torch.cat([(features_NC - mean) / scale, ones], dim=1).double()

    x, y = with_bias(known.features_NC), one_hot(known.labels_N.long(), classes + 1).double()
    ridge = RIDGE * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(x.t() @ x + ridge, x.t() @ y)
    return ((with_bias(unseen_NC) @ weights)[:, 1:].argmax(dim=1) + 1).to(torch.uint8)
