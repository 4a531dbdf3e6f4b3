"""Semantic segmentation of clouds: the pretrained sparse UNet with a last layer for the classes.

A sample depends on (seed, epoch, cloud) only, as in `samples`.

Shapes: N points, V voxels, K classes, C = 3 channels.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pri3d.config import Semseg3d
from pri3d.datasets.rooms import Cloud
from pri3d.errors import Pri3DError
from pri3d.finetune.samples import IGNORED, Damaged, draw
from pri3d.matching.voxels import unique_voxels
from pri3d.models.minkunet import minkunet_of
from pri3d.sparse.coordinates import collate_counted
from pri3d.transforms.cloud import augment_colors, augment_points

COARSEST_VOXELS = 16  # edge of the network's coarsest cells


class Voxels(NamedTuple):
    """A cloud in voxels: voxel int32 [V, 3]; color float32 [V, 3] in 0..1, of the first point of
    each; target u8 [V]: class 0..K-1, or IGNORED where no point is annotated, or points of
    several classes lie together; of_point int64 [N]: the voxel of every point.
    """

    name: str
    voxel_V3: np.ndarray
    color_V3: np.ndarray
    target_V: np.ndarray
    of_point_N: np.ndarray
    notes: list[str]


class Semseg3dBatch(NamedTuple):
    """Clouds of a step one after another; counts: voxels of each; notes: what is odd about them."""

    names: list[str]
    voxel_V3: Tensor
    color_V3: Tensor
    target_V: Tensor
    counts: list[int]
    damaged: list[Damaged]
    notes: list[str]


class Semseg3dSamples(torch.utils.data.Dataset):
    """Training clouds of a split in voxels. chosen: positions of the clouds used."""

    def __init__(self, data, chosen: list[int], settings: Semseg3d) -> None:
        self.data, self.chosen, self.settings = data, chosen, settings

    def __getitem__(self, item: int) -> Voxels | Damaged:
        frame, draws = draw(item, self.chosen, self.settings.seed)
        name, settings = self.data.frames[frame].name, self.settings
        crop_rng, place_rng, color_rng = draws.spawn(3)
        try:
            cloud = finite(self.data.cloud(frame))
        except Pri3DError as error:
            return Damaged(name, str(error))
        if settings.crop_m is not None:
            cloud = cropped(cloud, settings.crop_m, crop_rng)
        points = augment_points(cloud.points, settings.augment_cloud, place_rng)
        found = in_voxels(name, cloud._replace(points=points), settings.voxel_m)
        if "color" in settings.augment_cloud:
            found = found._replace(color_V3=augment_colors(found.color_V3, color_rng))
        return found


def finite(cloud: Cloud) -> Cloud:
    """A cloud without points that are not finite."""
    kept = np.isfinite(cloud.points).all(axis=1)
    return cloud if kept.all() else _some(cloud, kept)


def cropped(cloud: Cloud, size_m: float, rng: np.random.Generator) -> Cloud:
    """The part of a cloud in a square column (metres) around one of its points."""
    middle = cloud.points[rng.integers(len(cloud.points)), :2]
    kept = (np.abs(cloud.points[:, :2] - middle) <= size_m / 2).all(axis=1)
    return _some(cloud, kept)


def _some(cloud: Cloud, kept: np.ndarray) -> Cloud:
    return cloud._replace(
        points=cloud.points[kept], color=cloud.color[kept], label=cloud.label[kept]
    )


def in_voxels(name: str, cloud: Cloud, voxel_m: float) -> Voxels:
    """All points of a cloud (finite) in voxels of `voxel_m` metres."""
    # From its own corner: coordinates of buildings are large.
    voxel_N3 = np.floor((cloud.points - cloud.points.min(axis=0)) / voxel_m).astype(np.int64)
    first, of_point = unique_voxels(voxel_N3)
    label_V, annotated = np.zeros(len(first), np.uint8), cloud.label > 0
    label_V[of_point[annotated]] = cloud.label[annotated]  # of any one of them
    mixed = np.zeros(len(first), bool)
    mixed[of_point[annotated & (cloud.label != label_V[of_point])]] = True
    target_V = label_V - np.uint8(1)  # 0 becomes IGNORED
    target_V[mixed] = IGNORED
    color_V3 = cloud.color[first] / np.float32(255)
    voxel_V3 = voxel_N3[first].astype(np.int32)
    return Voxels(name, voxel_V3, color_V3, target_V, of_point, cloud.notes)


def collate_voxels(samples: list[Voxels | Damaged]) -> Semseg3dBatch:
    good = [sample for sample in samples if isinstance(sample, Voxels)]
    damaged = [sample for sample in samples if isinstance(sample, Damaged)]
    columns = [(s.voxel_V3, s.color_V3, s.target_V) for s in good] or [
        (np.zeros((0, 3), np.int32), np.zeros((0, 3), np.float32), np.zeros(0, np.uint8))
    ]
    notes = [note for sample in good for note in sample.notes]
    tensors = [torch.from_numpy(np.concatenate(column)) for column in zip(*columns)]
    return Semseg3dBatch(
        [s.name for s in good], *tensors, [len(s.target_V) for s in good], damaged, notes
    )


def networks(settings: Semseg3d, classes: int) -> nn.ModuleDict:
    """`backbone3d`, whose last layer has the classes as channels, with random weights."""
    network = minkunet_of(settings.network3d, classes)
    return nn.ModuleDict({"backbone3d": network})


def trained(nets: nn.ModuleDict, settings: Semseg3d) -> list[nn.Parameter]:
    """The parameters that are trained: all."""
    return list(nets.parameters())


def set_training(nets: nn.ModuleDict, settings: Semseg3d) -> None:
    """To training."""
    nets.train()


def logits(nets: nn.ModuleDict, batch: Semseg3dBatch) -> Tensor:
    """float32 [V, K] of all voxels of a batch."""
    clouds = collate_counted(batch.voxel_V3, batch.color_V3, batch.counts)
    return nets["backbone3d"](clouds).features


def enough_cells(voxel_V3: Tensor, counts: list[int]) -> bool:
    """Whether the coarsest grid has two cells or more: batch norm needs them when training."""
    if len(counts) != 1:
        return bool(counts)
    cells = torch.div(voxel_V3, COARSEST_VOXELS, rounding_mode="floor")
    return bool((cells != cells[:1]).any())


def losses(nets: nn.ModuleDict, batch: Semseg3dBatch, settings: Semseg3d) -> dict[str, Tensor]:
    """Cross entropy, the mean over all annotated voxels; none where nothing is annotated."""
    if not (batch.target_V != IGNORED).any() or not enough_cells(batch.voxel_V3, batch.counts):
        return {}
    target_V = batch.target_V.long()
    return {"voxels": cross_entropy(logits(nets, batch), target_V, ignore_index=IGNORED)}
