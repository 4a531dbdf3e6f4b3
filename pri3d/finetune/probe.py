"""What frozen features know of the classes: two quick measures, without training a network.

Labelled places of the training images are remembered with their features. Places of unseen images
are then classified by their nearest neighbours among those (k-NN), and by the linear classifier
that fits them best (ridge regression to one-hot labels, in closed form). A start at random shows
what the architecture alone gives.

Shapes: N places, C channels, K classes, H x W cells.
"""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize
from tqdm import tqdm

from pri3d.config import TASKS, Semseg
from pri3d.datasets import Split, at_size, open_split
from pri3d.datasets.subsets import subset
from pri3d.errors import Pri3DError
from pri3d.finetune.initial_weights import load_initial_weights
from pri3d.finetune.measure import network_input
from pri3d.finetune.tasks import semseg
from pri3d.metrics import semantic
from pri3d.models.resunet import stem
from pri3d.run import checkpoint, processes

NEIGHBOURS = 20
TEMPERATURE = 0.1  # of the neighbours' votes, by the cosine of their angle
PLACES = 200  # of each image
MOST = 60_000  # training places
RIDGE = 1e-3  # times the mean square of the features
AT_ONCE = 2_000


def run(task: str, data_dir: Path, out: Path, settings: Semseg, threads: int = 0) -> dict[str, Any]:
    """Probe the features of `settings.initial_weights` on a task of semantic segmentation, into `out` (JSON).

    settings: init, network2d, height, width, percent, subset, seed, device. Figures are shares by the
    rule of ScanNet's benchmark over drawn places, not over pixels. Raises Pri3DError as finetuning
    does.
    """
    if threads:
        torch.set_num_threads(threads)
    if settings.architecture != "unet":
        raise Pri3DError("semseg.net: features of a UNet are probed; set it to unet")
    place = processes.start(settings.device).device
    train, val = (open_split(TASKS[task].dataset, data_dir, split) for split in ("train", "val"))
    chosen = subset(train.frames, settings.percent, settings.subset, settings.seed)
    if not chosen:
        raise Pri3DError(f"{task}: {settings.percent:g} % of the labelled images are none")
    torch.manual_seed(settings.seed)
    nets = semseg.networks(settings, len(train.classes.names))
    start = load_initial_weights(nets, settings)
    whole = start.decoder
    backbone = nets["backbone"].to(place, memory_format=torch.channels_last)
    _calibrate(backbone, train, chosen, settings, place, start.said)
    rng = np.random.default_rng([settings.seed, 6])
    each = max(1, min(PLACES, MOST // len(chosen)))
    known, problems = _places(backbone, train, chosen, settings, place, whole, each, rng, "known")
    asked, more = _places(
        backbone, val, range(len(val.frames)), settings, place, whole, PLACES, rng, "asked"
    )
    if not len(known[1]) or not len(asked[1]):
        raise Pri3DError(f"{data_dir}: no labelled place in the images of a split")
    classes = len(train.classes.names)
    told = {"task": task, "start": start.said, "features": known[0].shape[1], "images": len(chosen)}
    told |= {"places": len(known[1]), "asked": len(asked[1]), "left_out": problems + more}
    for name, classify in (("knn", _neighbours), ("linear", _linear)):
        found = classify(*known, asked[0], classes)
        table = semantic.confusion(asked[1].numpy(), found.numpy(), classes)
        figures = semantic.scannet(table)
        told[name] = {
            "mean_iou": figures.mean_iou,
            "accuracy": figures.pixel_accuracy,
            "mean_accuracy": figures.mean_accuracy,
        }
    checkpoint.save_json(out, told)
    return told


def _features(backbone: nn.Module, image_BCHW: Tensor, whole: bool, bf16: bool) -> Tensor:
    """[B, C, H, W]: the UNet's, or the encoder's at stride 8 where the decoder is random."""
    with torch.autocast(image_BCHW.device.type, torch.bfloat16, bf16):
        image = image_BCHW.contiguous(memory_format=torch.channels_last)
        if whole:
            return backbone(image).float()
        encoder = backbone.encoder
        return encoder.layer2(encoder.layer1(stem(encoder, image))).float()


@torch.no_grad()
def _calibrate(backbone, data: Split, chosen, settings: Semseg, place, start: str) -> None:
    """Random weights get batch statistics of the images; without them they would be arbitrary."""
    backbone.train(start.startswith("random"))
    if backbone.training:
        spread = np.linspace(0, len(chosen) - 1, min(16, len(chosen))).astype(int)
        images = []
        for i in spread:
            with contextlib.suppress(Pri3DError):  # counted when its places are drawn
                images.append(network_input(data.color(chosen[i], settings.height), settings))
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the mean over all that is seen
        for first in range(0, len(images), 8):
            _features(backbone, torch.stack(images[first : first + 8]).to(place), True, False)
    backbone.eval()


@torch.no_grad()
def _places(backbone, data: Split, frames, settings, place, whole, each, rng, said):
    """Features float32 [N, C] and labels u8 [N] (1..K) of drawn labelled places; what failed."""
    features, labels, problems = [], [], []
    for frame in tqdm(frames, said, disable=None):
        try:
            color, truth = data.color(frame, settings.height), data.labels(frame)
        except Pri3DError as error:
            problems.append(str(error))
            continue
        image = network_input(color, settings)[None].to(place)
        map_CHW = _features(backbone, image, whole, settings.precision == "bf16")[0]
        shape = settings.height // 2, settings.width // 2
        if map_CHW.shape[-2:] != shape:
            map_CHW = interpolate(map_CHW[None], shape, mode="bilinear", align_corners=False)[0]
        truth = at_size(truth, shape).ravel()
        labelled = np.flatnonzero(truth)
        drawn = rng.permutation(labelled)[:each]
        features.append(map_CHW.flatten(1)[:, torch.from_numpy(drawn).to(place)].t().cpu())
        labels.append(torch.from_numpy(truth[drawn].copy()))
    if not features:
        return (torch.zeros(0, 1), torch.zeros(0, dtype=torch.uint8)), problems
    return (torch.cat(features), torch.cat(labels)), problems


def _neighbours(known_NC: Tensor, labels_N: Tensor, asked_NC: Tensor, classes: int) -> Tensor:
    known_NC = normalize(known_NC)
    found = []
    for block in normalize(asked_NC).split(AT_ONCE):
        near, index = (block @ known_NC.t()).topk(min(NEIGHBOURS, len(known_NC)), dim=1)
        votes = torch.zeros(len(block), classes + 1)
        votes.scatter_add_(1, labels_N[index].long(), (near / TEMPERATURE).exp())
        found.append(votes.argmax(dim=1).to(torch.uint8))
    return torch.cat(found)


def _linear(known_NC: Tensor, labels_N: Tensor, asked_NC: Tensor, classes: int) -> Tensor:
    mean, scale = known_NC.mean(0), known_NC.std(0) + 1e-6
    ones = torch.ones(len(known_NC), 1)
    x = torch.cat([(known_NC - mean) / scale, ones], dim=1).double()
    y = torch.nn.functional.one_hot(labels_N.long(), classes + 1).double()
    weights = torch.linalg.solve(
        x.t() @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=torch.float64), x.t() @ y
    )
    asked = torch.cat([(asked_NC - mean) / scale, torch.ones(len(asked_NC), 1)], dim=1).double()
    return ((asked @ weights)[:, 1:].argmax(dim=1) + 1).to(torch.uint8)
