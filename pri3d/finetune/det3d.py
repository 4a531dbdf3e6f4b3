"""Detection of objects in clouds: VoteNet (Qi et al., ICCV 2019) on the pretrained sparse UNet.

A sample depends on (seed, epoch, scene) only, as in `samples`.

Shapes: B scenes, N points, V voxels, S seeds, K proposals, G places for true boxes, C classes.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn
from torch.nn.functional import normalize

from pri3d.boxes import Boxes
from pri3d.config import Det3d
from pri3d.datasets.objects3d import Kinds, Scene
from pri3d.errors import Pri3DError
from pri3d.finetune.samples import Damaged, draw
from pri3d.finetune.semseg3d import enough_cells
from pri3d.matching.voxels import shift_to_origin, unique_voxels
from pri3d.models import votenet_loss
from pri3d.models.minkunet import minkunet_of
from pri3d.models.votenet import (
    ProposalHead,
    Proposals,
    VoteAggregation,
    Voting,
)
from pri3d.models.votenet_loss import Truth
from pri3d.sparse.coordinates import collate_counted
from pri3d.transforms.cloud import augment_colors

CHANNELS = 256  # of the backbone's features (published)
HEADINGS = 12  # bins, of data sets whose boxes have headings
# Weights of the terms in the loss (published).
WEIGHTS = {"vote": 10, "objectness": 5, "center": 10, "heading_bin": 1, "heading": 10}
WEIGHTS |= {"size_cluster": 1, "size": 10, "class": 1}


class Sample(NamedTuple):
    """A scene in voxels: voxel int32, point and color float32 [V, 3] (each voxel's first point,
    metres, and its colour 0..1); votes float32 [V, 9]: three offsets to the centres of the objects
    that the point belongs to; in_object [V]; seed int64 [S]: rows of the points that vote. boxes
    and their classes: those of the scene.
    """

    name: str
    voxel_V3: np.ndarray
    point_V3: np.ndarray
    color_V3: np.ndarray
    votes_V9: np.ndarray
    in_object_V: np.ndarray
    seed_S: np.ndarray
    boxes: Boxes
    kind: np.ndarray
    notes: list[str]


class Det3dBatch(NamedTuple):
    """Scenes of a step; counts: voxels of each; row_BS: the voxels that vote, through the batch.
    Boxes are padded to G places, `mask` tells them."""

    names: list[str]
    voxel_V3: Tensor
    point_V3: Tensor
    color_V3: Tensor
    votes_V9: Tensor
    in_object_V: Tensor
    counts: list[int]
    row_BS: Tensor
    center_BG3: Tensor
    size_BG3: Tensor
    heading_BG: Tensor
    kind_BG: Tensor
    mask_BG: Tensor
    damaged: list[Damaged]
    notes: list[str]


class Det3dSamples(torch.utils.data.Dataset):
    """Training scenes of a split. chosen: positions of the scenes used."""

    def __init__(self, data, chosen: list[int], settings: Det3d) -> None:
        self.data, self.chosen, self.settings = data, chosen, settings

    def __getitem__(self, item: int) -> Sample | Damaged:
        frame, draws = draw(item, self.chosen, self.settings.seed)
        name, settings = self.data.frames[frame].name, self.settings
        points_rng, place_rng, color_rng = draws.spawn(3)
        try:
            scene = self.data.scene(frame)
            scene = some_points(scene, settings.max_points, points_rng)
            if settings.augment_scene:
                scene = moved(scene, self.data.oriented, place_rng)
            found = in_voxels(
                name, scene, settings.voxel_m, not self.data.oriented, settings.seed_points
            )
        except Pri3DError as error:
            return Damaged(name, str(error))
        if settings.augment_color:
            found = found._replace(color_V3=augment_colors(found.color_V3, color_rng))
        return found


def some_points(scene: Scene, number: int, rng: np.random.Generator) -> Scene:
    """A scene with at most so many of its points, drawn at random."""
    if len(scene.points) <= number:
        return scene
    rows = rng.choice(len(scene.points), number, replace=False)
    return scene._replace(
        points=scene.points[rows], color=scene.color[rows], member=scene.member[rows]
    )


def moved(scene: Scene, oriented: bool, rng: np.random.Generator) -> Scene:
    """A scene mirrored, turned and scaled at random, with its boxes (published).

    Oriented (SUN RGB-D): x mirrored one time in two, turned by up to 30 degrees, scaled by 0.85 to
    1.15. Aligned (ScanNet): x and y mirrored, turned by up to 5 degrees; boxes grow to go around
    the turned ones.
    """
    flip_x, flip_y = rng.random(2) < 0.5
    angle = rng.uniform(-1, 1) * np.deg2rad(30 if oriented else 5)
    scale = rng.uniform(0.85, 1.15) if oriented else 1.0
    flip_y = flip_y and not oriented
    points, (center, size, heading) = scene.points.copy(), scene.boxes
    center, heading = center.copy(), heading.copy()
    for axis, flipped in ((0, flip_x), (1, flip_y)):
        if flipped:
            points[:, axis] *= -1
            center[:, axis] *= -1
            heading = np.pi * (axis == 0) - heading
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    points, center = scale * points @ turn.T, scale * center @ turn.T
    if oriented:
        heading, size = heading - angle, scale * size
    else:
        cos, sin = abs(cos), abs(sin)
        size = np.stack(
            [cos * size[:, 0] + sin * size[:, 1], sin * size[:, 0] + cos * size[:, 1], size[:, 2]],
            1,
        )
    return scene._replace(points=points, boxes=Boxes(center, size, heading))


def in_voxels(
    name: str, scene: Scene, voxel_m: float, by_points: bool, seeds: int = 1024
) -> Sample:
    """A scene in voxels of `voxel_m` metres, with the votes of each voxel's first point.

    by_points: an object's centre is that between its lowest and highest points here, not its box's
    (ScanNet, published). seeds: so many points vote, far from each other.
    """
    center = scene.boxes.center
    if by_points:
        center = center.copy()
        for i in np.unique(scene.member[scene.member >= 0]):
            own = scene.points[scene.member[:, 0] == i]
            center[i] = (own.min(axis=0) + own.max(axis=0)) / 2
    voxel_N3 = shift_to_origin(np.floor(scene.points / voxel_m).astype(np.int64))
    first, _ = unique_voxels(voxel_N3)
    point_V3, member_V3 = scene.points[first], scene.member[first]
    in_object = member_V3[:, 0] >= 0
    votes = np.zeros((len(first), 3, 3))
    votes[in_object] = center[member_V3[in_object]] - point_V3[in_object, None]
    return Sample(
        name,
        voxel_N3[first].astype(np.int32),
        point_V3.astype(np.float32),
        scene.color[first] / np.float32(255),
        votes.reshape(-1, 9).astype(np.float32),
        in_object,
        farthest_rows(point_V3, seeds),
        scene.boxes,
        scene.kind,
        scene.notes,
    )


@njit(cache=True, nogil=True)
def farthest_rows(point_N3, number):
    """As `votenet.farthest_points`, of one cloud on the CPU: int64 [number]."""
    n = len(point_N3)
    chosen = np.zeros(number, np.int64)
    if n <= number:
        for i in range(number):
            chosen[i] = i % max(n, 1)
        return chosen
    nearest = np.full(n, np.inf)
    for i in range(1, number):
        last, farthest, best = chosen[i - 1], -1.0, 0
        for j in range(n):
            squared = 0.0
            for axis in range(3):
                squared += (point_N3[j, axis] - point_N3[last, axis]) ** 2
            if squared < nearest[j]:
                nearest[j] = squared
            if nearest[j] > farthest:
                farthest, best = nearest[j], j
        chosen[i] = best
    return chosen


def collate_scenes(samples: list[Sample | Damaged]) -> Det3dBatch:
    good = [sample for sample in samples if isinstance(sample, Sample)]
    damaged = [sample for sample in samples if isinstance(sample, Damaged)]
    shape = len(good), max([1, *(len(sample.kind) for sample in good)])
    center, size = np.zeros((*shape, 3), np.float32), np.zeros((*shape, 3), np.float32)
    heading, mask = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    kind = np.zeros(shape, np.int64)
    for i, sample in enumerate(good):
        n = len(sample.kind)
        center[i, :n], size[i, :n], heading[i, :n] = sample.boxes
        kind[i, :n], mask[i, :n] = sample.kind, 1
    counts = [len(sample.voxel_V3) for sample in good]
    rows = np.stack([s.seed_S for s in good]) if good else np.zeros((0, 0), np.int64)
    columns = [(s.voxel_V3, s.point_V3, s.color_V3, s.votes_V9, s.in_object_V) for s in good]
    nothing = [
        (
            np.zeros((0, 3), np.int32),
            *(np.zeros((0, n), np.float32) for n in (3, 3, 9)),
            np.zeros(0, bool),
        )
    ]
    return Det3dBatch(
        [s.name for s in good],
        *(torch.from_numpy(np.concatenate(column)) for column in zip(*(columns or nothing))),
        counts,
        torch.from_numpy(rows + np.cumsum([0, *counts])[: len(good), None]),
        *(torch.from_numpy(array) for array in (center, size, heading, kind, mask)),
        damaged,
        [note for sample in good for note in sample.notes],
    )


class Detector(nn.Module):
    """VoteNet after the backbone; see `votenet` for its parts."""

    def __init__(self, kinds: Kinds, oriented: bool, settings: Det3d) -> None:
        super().__init__()
        self.voting = Voting(CHANNELS)
        self.aggregation = VoteAggregation(CHANNELS)
        self.head = ProposalHead(HEADINGS if oriented else 1, len(kinds.sizes), len(kinds.names))
        self.register_buffer("mean_size", torch.tensor(kinds.sizes, dtype=torch.float32))
        self.proposals = settings.proposals


def networks(settings: Det3d, kinds: Kinds, oriented: bool) -> nn.ModuleDict:
    """`backbone3d` and `detector`, with random weights."""
    network = minkunet_of(settings.network3d, CHANNELS)
    return nn.ModuleDict({"backbone3d": network, "detector": Detector(kinds, oriented, settings)})


def trained(nets: nn.ModuleDict, settings: Det3d) -> list[nn.Parameter]:
    """The parameters that are trained: all."""
    return list(nets.parameters())


def set_training(nets: nn.ModuleDict, settings: Det3d) -> None:
    """To training."""
    nets.train()


class Detected(NamedTuple):
    """What the network makes of a batch: seeds and votes [B, S, 3] metres, proposals."""

    seed_BS3: Tensor
    vote_BS3: Tensor
    proposals: Proposals


def detect(nets: nn.ModuleDict, batch: Det3dBatch) -> Detected:
    """Run the network on the scenes of a batch."""
    detector = nets["detector"]
    clouds = collate_counted(batch.voxel_V3, batch.color_V3, batch.counts)
    features_VC = nets["backbone3d"](clouds).features
    seed_BS3 = batch.point_V3[batch.row_BS]
    vote_BS3, feature_BCS = detector.voting(seed_BS3, features_VC[batch.row_BS].transpose(1, 2))
    feature_BCS = normalize(feature_BCS, dim=1)
    place_BK3, cluster_BCK = detector.aggregation(vote_BS3, feature_BCS, detector.proposals)
    return Detected(seed_BS3, vote_BS3, detector.head(place_BK3, cluster_BCK))


def losses(nets: nn.ModuleDict, batch: Det3dBatch, settings: Det3d) -> dict[str, Tensor]:
    """VoteNet's terms, weighted as they are added up."""
    if not enough_cells(batch.voxel_V3, batch.counts):
        return {}
    found = detect(nets, batch)
    mean_size = nets["detector"].mean_size
    truth = truth_of(batch, mean_size, nets["detector"].head.headings)
    seeds = torch.arange(batch.row_BS.shape[1], device=batch.row_BS.device)
    terms = votenet_loss.losses(
        *(found.proposals, found.seed_BS3, seeds.expand_as(batch.row_BS), found.vote_BS3),
        *(truth, mean_size),
    )
    return {name: weight * terms[name] for name, weight in WEIGHTS.items()}


def truth_of(batch: Det3dBatch, mean_size_C3: Tensor, headings: int) -> Truth:
    """The true boxes of a batch in the numbers that the head gives, and the votes of its seeds."""
    width = 2 * math.pi / headings
    turned = torch.remainder(batch.heading_BG, 2 * math.pi)
    bins = torch.remainder(torch.floor(turned / width + 0.5), headings).long()
    residual = torch.remainder(turned - bins * width + math.pi, 2 * math.pi) - math.pi
    if headings == 1:
        residual = torch.zeros_like(residual)
    size = (batch.size_BG3 - mean_size_C3[batch.kind_BG]) * batch.mask_BG[..., None]
    return Truth(
        *(batch.center_BG3, batch.mask_BG, bins, residual, batch.kind_BG, size, batch.kind_BG),
        *(batch.votes_V9[batch.row_BS], batch.in_object_V[batch.row_BS]),
    )
