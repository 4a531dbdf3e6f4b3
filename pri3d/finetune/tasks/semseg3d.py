"""Semantic segmentation of point clouds: the pretrained sparse UNet with a new last layer.

Shapes: N points, V voxels, K classes.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pri3d import store
from pri3d.config import Semseg3d
from pri3d.datasets import LabeledClouds, open_split
from pri3d.datasets.labeled_clouds import LabeledCloud
from pri3d.errors import Pri3DError
from pri3d.finetune.initial_weights import load_backbone3d
from pri3d.finetune.optimizers import polynomial_rate, sgd
from pri3d.finetune.samples import IGNORED, Damaged, resolve_item, separate
from pri3d.finetune.subsets import labeled_subset
from pri3d.finetune.summaries import percent
from pri3d.finetune.voxels import trainable_grid
from pri3d.matching.voxels import unique_voxels
from pri3d.metrics import semantic
from pri3d.models.minkunet import minkunet_of
from pri3d.run import processes
from pri3d.run.folder import InitialWeights
from pri3d.sparse.coordinates import collate_counted
from pri3d.transforms.cloud import augment_colors, augment_points

ITEMS_AT_ONCE = 1  # clouds per prediction


# Data


def open_data(dataset: str, root: Path, split: str) -> LabeledClouds:
    return open_split(dataset, root, split, "clouds")


def select(data: LabeledClouds, settings: Semseg3d) -> list[int]:
    return labeled_subset(data.frames, settings, whole_scenes=True)


def problems(data: LabeledClouds) -> list[str]:
    return data.problems


def content(data: LabeledClouds, position: int) -> Iterable[np.ndarray]:
    cloud = data.cloud(position)
    return cloud.points, cloud.color, cloud.label


class Sample(NamedTuple):
    """A cloud in voxels.

    voxel: int32 [V, 3]. color: float32 [V, 3] in 0..1, of the first point of each voxel. target: u8
    [V], class 0..K-1, or IGNORED where no point is labeled or the points have several classes.
    voxel_of_point: int64 [N].
    """

    name: str
    voxel_V3: np.ndarray
    color_V3: np.ndarray
    target_V: np.ndarray
    voxel_of_point_N: np.ndarray
    notes: list[str]


class Batch(NamedTuple):
    """Clouds one after another; counts: number of voxels of each."""

    names: list[str]
    voxel_V3: Tensor
    color_V3: Tensor
    target_V: Tensor
    counts: list[int]
    damaged: list[Damaged]
    notes: list[str]


class Samples(torch.utils.data.Dataset[Sample | Damaged]):
    """Training clouds in voxels. chosen: positions of the clouds used."""

    def __init__(self, data: LabeledClouds, chosen: list[int], settings: Semseg3d) -> None:
        self.data, self.chosen, self.settings = data, chosen, settings

    def __getitem__(self, item: int) -> Sample | Damaged:
        position, rng = resolve_item(item, self.chosen, self.settings.seed)
        name, settings = self.data.frames[position].name, self.settings
        crop_rng, points_rng, color_rng = rng.spawn(3)
        try:
            cloud = finite_points(self.data.cloud(position))
        except Pri3DError as error:
            return Damaged(name, str(error))
        if settings.crop_m is not None:
            cloud = random_column(cloud, settings.crop_m, crop_rng)
        points = augment_points(cloud.points, settings.augment_cloud, points_rng)
        sample = voxelize(name, cloud._replace(points=points), settings.voxel_m)
        if "color" in settings.augment_cloud:
            sample = sample._replace(color_V3=augment_colors(sample.color_V3, color_rng))
        return sample


def samples(data: LabeledClouds, chosen: list[int], settings: Semseg3d) -> Samples:
    return Samples(data, chosen, settings)


def finite_points(cloud: LabeledCloud) -> LabeledCloud:
    """A cloud without the points that are not finite."""
    kept = np.isfinite(cloud.points).all(axis=1)
    return cloud if kept.all() else _filtered(cloud, kept)


def random_column(cloud: LabeledCloud, size_m: float, rng: np.random.Generator) -> LabeledCloud:
    """The points in a square column of `size_m` meters around one of them, drawn at random."""
    center = cloud.points[rng.integers(len(cloud.points)), :2]
    kept = (np.abs(cloud.points[:, :2] - center) <= size_m / 2).all(axis=1)
    return _filtered(cloud, kept)


def _filtered(cloud: LabeledCloud, kept: np.ndarray) -> LabeledCloud:
    return cloud._replace(
        points=cloud.points[kept], color=cloud.color[kept], label=cloud.label[kept]
    )


def voxelize(name: str, cloud: LabeledCloud, voxel_m: float) -> Sample:
    """All points of a cloud, which are finite, in voxels of `voxel_m` meters."""
    # Relative to the cloud's corner: coordinates of buildings are large.
    voxel_N3 = np.floor((cloud.points - cloud.points.min(axis=0)) / voxel_m).astype(np.int64)
    first, voxel_of_point = unique_voxels(voxel_N3)
    label_V, labeled = np.zeros(len(first), np.uint8), cloud.label > 0
    label_V[voxel_of_point[labeled]] = cloud.label[labeled]  # of any one of its points
    mixed = np.zeros(len(first), bool)
    mixed[voxel_of_point[labeled & (cloud.label != label_V[voxel_of_point])]] = True
    target_V = label_V - np.uint8(1)  # 0 becomes IGNORED
    target_V[mixed] = IGNORED
    return Sample(
        name=name,
        voxel_V3=voxel_N3[first].astype(np.int32),
        color_V3=cloud.color[first] / np.float32(255),
        target_V=target_V,
        voxel_of_point_N=voxel_of_point,
        notes=cloud.notes,
    )


def collate(samples: list[Sample | Damaged]) -> Batch:
    good, damaged = separate(samples)
    voxels = [np.zeros((0, 3), np.int32), *(sample.voxel_V3 for sample in good)]
    colors = [np.zeros((0, 3), np.float32), *(sample.color_V3 for sample in good)]
    targets = [np.zeros(0, np.uint8), *(sample.target_V for sample in good)]
    return Batch(
        names=[sample.name for sample in good],
        voxel_V3=torch.from_numpy(np.concatenate(voxels)),
        color_V3=torch.from_numpy(np.concatenate(colors)),
        target_V=torch.from_numpy(np.concatenate(targets)),
        counts=[len(sample.target_V) for sample in good],
        damaged=damaged,
        notes=[note for sample in good for note in sample.notes],
    )


# Networks


def networks(data: LabeledClouds, settings: Semseg3d) -> nn.ModuleDict:
    return build(len(data.classes.names), settings)


def build(classes: int, settings: Semseg3d) -> nn.ModuleDict:
    """`backbone3d`, whose last layer has one channel per class, with random weights."""
    return nn.ModuleDict({"backbone3d": minkunet_of(settings.network3d, classes)})


def load_initial_weights(nets: nn.ModuleDict, settings: Semseg3d) -> InitialWeights:
    return load_backbone3d(nets["backbone3d"], settings.initial_weights, "semseg3d")


def freeze_and_select(nets: nn.ModuleDict, settings: Semseg3d) -> list[nn.Parameter]:
    return list(nets.parameters())


def set_training_mode(nets: nn.ModuleDict, settings: Semseg3d) -> None:
    nets.train()


def logits(nets: nn.ModuleDict, batch: Batch) -> Tensor:
    """Class scores float32 [V, K] of all voxels of a batch."""
    clouds = collate_counted(batch.voxel_V3, batch.color_V3, batch.counts)
    return nets["backbone3d"](clouds).features


# Training


def losses(nets: nn.ModuleDict, batch: Batch, settings: Semseg3d) -> dict[str, Tensor]:
    """Cross entropy, the mean over all labeled voxels."""
    if not weight(batch, settings):
        return {}
    target_V = batch.target_V.long()
    return {"voxels": cross_entropy(logits(nets, batch), target_V, ignore_index=IGNORED)}


def weight(batch: Batch, settings: Semseg3d) -> float:
    """The number of labeled voxels."""
    if not trainable_grid(batch.voxel_V3, batch.counts):
        return 0.0
    return float((batch.target_V != IGNORED).sum())


def optimizer(parameters: list[nn.Parameter], settings: Semseg3d) -> torch.optim.Optimizer:
    return sgd(parameters, settings)


def learning_rate(settings: Semseg3d, step: int, steps: int) -> float:
    return polynomial_rate(settings, step, steps)


# Prediction and measuring


class Item(NamedTuple):
    """A cloud to measure, as points and in voxels."""

    position: int
    name: str
    notes: list[str]
    cloud: LabeledCloud
    sample: Sample


class Prediction(NamedTuple):
    """Classes 1..K: of the voxels, u8 [V], and of the points, u8 [N], 0 where one is not finite."""

    voxels: np.ndarray
    points: np.ndarray


class Counts(NamedTuple):
    """Confusion matrices int64 [K + 1, K + 1]: of voxels with one class, and of all points."""

    voxels: np.ndarray
    points: np.ndarray


def measurable(data: LabeledClouds) -> list[int]:
    return list(range(len(data.frames)))


def read_item(data: LabeledClouds, position: int, settings: Semseg3d) -> Item:
    cloud, name = data.cloud(position), data.frames[position].name
    sample = voxelize(name, finite_points(cloud), settings.voxel_m)
    return Item(position, name, cloud.notes, cloud, sample)


def predict_items(
    nets: nn.ModuleDict, items: list[Item], settings: Semseg3d, device: torch.device
) -> list[Prediction]:
    return [_predict(nets, item, device) for item in items]


def _predict(nets: nn.ModuleDict, item: Item, device: torch.device) -> Prediction:
    """Every point gets the prediction of its voxel."""
    batch = processes.move(collate([item.sample]), device)
    with torch.no_grad():
        scores = logits(nets, batch)
    voxels = (scores.argmax(dim=1) + 1).to(torch.uint8).cpu().numpy()
    points = np.zeros(len(item.cloud.label), np.uint8)
    finite = np.isfinite(item.cloud.points).all(axis=1)
    points[finite] = voxels[item.sample.voxel_of_point_N]
    return Prediction(voxels, points)


def new_counts(data: LabeledClouds) -> Counts:
    size = len(data.classes.names) + 1
    return Counts(np.zeros((size, size), np.int64), np.zeros((size, size), np.int64))


def count(counts: Counts, data: LabeledClouds, item: Item, prediction: Prediction) -> None:
    classes, target_V = len(data.classes.names), item.sample.target_V
    truth = np.where(target_V == IGNORED, 0, target_V + np.uint8(1))
    counts.voxels[:] += semantic.confusion(truth, prediction.voxels, classes)
    counts.points[:] += semantic.confusion(item.cloud.label, prediction.points, classes)


def figures(counts: Counts, data: LabeledClouds) -> dict[str, Any]:
    """IoU and accuracy by ScanNet's rule, on voxels and on points, and the share of each class."""
    names, rules = data.classes.names, {}
    for name, confusion in counts._asdict().items():
        of_rule = semantic.scannet(confusion)
        rules[name] = of_rule._asdict() | {"iou": dict(zip(names, of_rule.iou.tolist()))}
    points = counts.points.sum(axis=1)[1:]
    shares = points / max(points.sum(), 1)
    return {
        "rules": rules,
        "points": dict(zip(names, shares.tolist())),
        "confusion": counts.points.tolist(),
    }


def summary(result: dict[str, Any]) -> list[str]:
    return [
        f"on {name}: mIoU {percent(rule['mean_iou'])}, "
        f"mean accuracy {percent(rule['mean_accuracy'])}, "
        f"overall accuracy {percent(rule['pixel_accuracy'])}"
        for name, rule in result["rules"].items()
    ]


def write_submission(folder: Path, data: LabeledClouds, item: Item, prediction: Prediction) -> None:
    """<scene>.txt with the nyu40 id of every vertex, one per line."""
    ids = data.classes.file_ids()[prediction.points]
    with store.atomic_path(folder / f"{data.frames[item.position].scene}.txt") as temporary:
        np.savetxt(temporary, ids, fmt="%d")
