"""Detection of objects in point clouds: VoteNet (Qi et al., "Deep Hough Voting for 3D Object
Detection in Point Clouds", ICCV 2019) on the pretrained sparse UNet.

Shapes: B scenes, N points, V voxels, S points that vote (seeds), K proposals, G boxes (padded), C
classes.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from pri3d.boxes import Boxes
from pri3d.config import Det3d
from pri3d.datasets import LabeledScenes, open_split
from pri3d.datasets.scenes import Kinds, Scene
from pri3d.errors import Pri3DError
from pri3d.finetune import scenes
from pri3d.finetune.box_predictions import Suppression, predict_boxes
from pri3d.finetune.initial_weights import load_backbone3d
from pri3d.finetune.optimizers import warmup_rate
from pri3d.finetune.samples import Damaged, resolve_item
from pri3d.finetune.scenes import Batch, Sample
from pri3d.finetune.subsets import labeled_subset
from pri3d.finetune.summaries import percent
from pri3d.finetune.voxels import trainable_grid
from pri3d.metrics import boxes3d
from pri3d.metrics.boxes3d import PredictedBox
from pri3d.models import votenet_loss
from pri3d.models.minkunet import minkunet_of
from pri3d.models.votenet import ProposalHead, Proposals, VoteAggregation, Voting
from pri3d.models.votenet_loss import Truth
from pri3d.run import processes
from pri3d.run.folder import InitialWeights
from pri3d.sparse.coordinates import collate_counted
from pri3d.transforms.cloud import augment_colors

CHANNELS = 256  # of the backbone's features (published)
ITEMS_AT_ONCE = 1  # scenes per prediction
IOU_THRESHOLDS = (0.25, 0.5)  # of average precision
HEADINGS = 12  # heading bins, for data sets whose boxes have headings


# Data


def open_data(dataset: str, root: Path, split: str) -> LabeledScenes:
    return open_split(dataset, root, split, "scenes")


def select(data: LabeledScenes, settings: Det3d) -> list[int]:
    return labeled_subset(data.frames, settings, whole_scenes=True)


def problems(data: LabeledScenes) -> list[str]:
    return data.problems


def content(data: LabeledScenes, position: int) -> Iterable[np.ndarray]:
    scene = data.scene(position)
    return scene.points, scene.color, *scene.boxes, scene.kind


class Samples(torch.utils.data.Dataset[Sample | Damaged]):
    """Training scenes in voxels. chosen: positions of the scenes used."""

    def __init__(self, data: LabeledScenes, chosen: list[int], settings: Det3d) -> None:
        self.data, self.chosen, self.settings = data, chosen, settings

    def __getitem__(self, item: int) -> Sample | Damaged:
        position, rng = resolve_item(item, self.chosen, self.settings.seed)
        name, settings = self.data.frames[position].name, self.settings
        points_rng, scene_rng, color_rng = rng.spawn(3)
        try:
            scene = self.data.scene(position)
            scene = scenes.draw_points(scene, settings.max_points, points_rng)
            if settings.augment_scene:
                scene = scenes.augment_scene(scene, self.data.oriented, scene_rng)
            sample = scenes.voxelize(
                name,
                scene,
                settings.voxel_m,
                vote_for_points=not self.data.oriented,
                seed_points=settings.seed_points,
            )
        except Pri3DError as error:
            return Damaged(name, str(error))
        if settings.augment_color:
            sample = sample._replace(color_V3=augment_colors(sample.color_V3, color_rng))
        return sample


def samples(data: LabeledScenes, chosen: list[int], settings: Det3d) -> Samples:
    return Samples(data, chosen, settings)


def collate(samples: list[Sample | Damaged]) -> Batch:
    return scenes.collate(samples)


# Networks


class Detector(nn.Module):
    """VoteNet after the backbone; see `pri3d.models.votenet` for its parts."""

    def __init__(self, kinds: Kinds, oriented: bool, settings: Det3d) -> None:
        super().__init__()
        self.voting = Voting(CHANNELS)
        self.aggregation = VoteAggregation(CHANNELS)
        self.head = ProposalHead(HEADINGS if oriented else 1, len(kinds.sizes), len(kinds.names))
        self.mean_size: Tensor
        self.register_buffer("mean_size", torch.tensor(kinds.sizes, dtype=torch.float32))
        self.proposals = settings.proposals


def networks(data: LabeledScenes, settings: Det3d) -> nn.ModuleDict:
    return build(data.classes, data.oriented, settings)


def build(kinds: Kinds, oriented: bool, settings: Det3d) -> nn.ModuleDict:
    """`backbone3d` and `detector`, with random weights."""
    network = minkunet_of(settings.network3d, CHANNELS)
    return nn.ModuleDict({"backbone3d": network, "detector": Detector(kinds, oriented, settings)})


def detector_of(nets: nn.ModuleDict) -> Detector:
    """The part after the backbone."""
    detector = nets["detector"]
    assert isinstance(detector, Detector)
    return detector


def load_initial_weights(nets: nn.ModuleDict, settings: Det3d) -> InitialWeights:
    return load_backbone3d(nets["backbone3d"], settings.initial_weights, "det3d")


def freeze_and_select(nets: nn.ModuleDict, settings: Det3d) -> list[nn.Parameter]:
    return list(nets.parameters())


def set_training_mode(nets: nn.ModuleDict, settings: Det3d) -> None:
    nets.train()


class Detections(NamedTuple):
    """The network's output for a batch: seeds and votes [B, S, 3] in meters, and proposals."""

    seed_BS3: Tensor
    vote_BS3: Tensor
    proposals: Proposals


def detect(nets: nn.ModuleDict, batch: Batch) -> Detections:
    """Run the network on the scenes of a batch."""
    detector = detector_of(nets)
    clouds = collate_counted(batch.voxel_V3, batch.color_V3, batch.counts)
    features_VC = nets["backbone3d"](clouds).features
    seed_BS3 = batch.point_V3[batch.row_BS]
    vote_BS3, feature_BCS = detector.voting(seed_BS3, features_VC[batch.row_BS].transpose(1, 2))
    feature_BCS = normalize(feature_BCS, dim=1)
    center_BK3, cluster_BCK = detector.aggregation(vote_BS3, feature_BCS, detector.proposals)
    return Detections(seed_BS3, vote_BS3, detector.head(center_BK3, cluster_BCK))


# Training


def losses(nets: nn.ModuleDict, batch: Batch, settings: Det3d) -> dict[str, Tensor]:
    """VoteNet's terms, each with its weight."""
    if not weight(batch, settings):
        return {}
    detections = detect(nets, batch)
    detector = detector_of(nets)
    seed_row = torch.arange(batch.row_BS.shape[1], device=batch.row_BS.device)
    terms = votenet_loss.losses(
        detections.proposals,
        detections.seed_BS3,
        seed_row.expand_as(batch.row_BS),
        detections.vote_BS3,
        truth_of(batch, detector.mean_size, detector.head.headings),
        detector.mean_size,
    )
    return {name: weight * terms[name] for name, weight in votenet_loss.WEIGHTS.items()}


def truth_of(batch: Batch, mean_size_C3: Tensor, headings: int) -> Truth:
    """The true boxes of a batch as the head parametrizes them, and the votes of the seeds."""
    width = 2 * math.pi / headings
    angle = torch.remainder(batch.heading_BG, 2 * math.pi)
    bins = torch.remainder(torch.floor(angle / width + 0.5), headings).long()
    residual = torch.remainder(angle - bins * width + math.pi, 2 * math.pi) - math.pi
    if headings == 1:
        residual = torch.zeros_like(residual)
    size = (batch.size_BG3 - mean_size_C3[batch.kind_BG]) * batch.mask_BG[..., None]
    is_padding_BG1 = batch.mask_BG[..., None] == 0
    return Truth(
        center=batch.center_BG3.masked_fill(is_padding_BG1, votenet_loss.PADDING_CENTER),
        mask=batch.mask_BG,
        heading_bin=bins,
        heading_residual=residual,
        size_cluster=batch.kind_BG,
        size_residual=size,
        kind=batch.kind_BG,
        votes=batch.votes_V9[batch.row_BS],
        in_object=batch.in_object_V[batch.row_BS],
    )


def weight(batch: Batch, settings: Det3d) -> float:
    """The number of scenes."""
    return float(len(batch.names)) if trainable_grid(batch.voxel_V3, batch.counts) else 0.0


def optimizer(parameters: list[nn.Parameter], settings: Det3d) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=settings.lr, weight_decay=settings.weight_decay)


def learning_rate(settings: Det3d, step: int, steps: int) -> float:
    """Warm-up, then `lr`, divided by 10 after 4/9, 6/9 and 8/9 of the steps."""
    warmup = round(settings.warmup * steps)
    if step <= warmup:
        return warmup_rate(settings.lr, step, warmup)
    return settings.lr * 0.1 ** sum(9 * (step - 1) >= ninths * steps for ninths in (4, 6, 8))


# Prediction and measuring


class Item(NamedTuple):
    """A scene to measure, as points and in voxels."""

    position: int
    name: str
    notes: list[str]
    scene: Scene
    sample: Sample


class Counts(NamedTuple):
    """True boxes, position of a scene -> (classes int64 [N], boxes), and all predicted boxes."""

    truths: dict[int, tuple[np.ndarray, Boxes]]
    predictions: list[PredictedBox]


def measurable(data: LabeledScenes) -> list[int]:
    return list(range(len(data.frames)))


def read_item(data: LabeledScenes, position: int, settings: Det3d) -> Item:
    rng = np.random.default_rng([settings.seed, position])
    scene = scenes.draw_points(data.scene(position), settings.max_points, rng)
    name = data.frames[position].name
    sample = scenes.voxelize(
        name,
        scene,
        settings.voxel_m,
        vote_for_points=not data.oriented,
        seed_points=settings.seed_points,
    )
    return Item(position, name, scene.notes, scene, sample)


def predict_items(
    nets: nn.ModuleDict, items: list[Item], settings: Det3d, device: torch.device
) -> list[list[PredictedBox]]:
    return [_predict(nets, item, settings, device) for item in items]


def _predict(
    nets: nn.ModuleDict, item: Item, settings: Det3d, device: torch.device
) -> list[PredictedBox]:
    batch = processes.move(collate([item.sample]), device)
    with torch.no_grad():
        proposals = detect(nets, batch).proposals
    rule = Suppression(min_score=settings.min_score)
    mean_size = detector_of(nets).mean_size
    _, boxes = predict_boxes(proposals, mean_size, 0, item.scene.points, rule)
    return [box._replace(scene=item.position) for box in boxes]


def new_counts(data: LabeledScenes) -> Counts:
    return Counts({}, [])


def count(counts: Counts, data: LabeledScenes, item: Item, prediction: list[PredictedBox]) -> None:
    counts.truths[item.position] = item.scene.kind, item.scene.boxes
    counts.predictions.extend(prediction)


def figures(counts: Counts, data: LabeledScenes) -> dict[str, Any]:
    """Average precision (area under the precision envelope) and recall, of each class and their
    means over the classes that occur, at 0.25 and 0.5 IoU.
    """
    names, boxes = data.classes.names, {}
    for threshold in IOU_THRESHOLDS:
        of_kind = boxes3d.average_precision(counts.truths, counts.predictions, threshold)
        of_class = {names[kind]: values for kind, values in of_kind.items()}
        boxes[f"ap{round(100 * threshold)}"] = {
            "mean": float(np.mean([ap for ap, _ in of_class.values()])) if of_class else None,
            "recall": float(np.mean([r for _, r in of_class.values()])) if of_class else None,
            "classes": {name: ap for name, (ap, _) in of_class.items()},
        }
    return {
        "described_by": getattr(data, "described_by", None),
        "objects": int(sum(len(kind) for kind, _ in counts.truths.values())),
        "boxes": boxes,
    }


def summary(result: dict[str, Any]) -> list[str]:
    return [
        f"{name.upper()}: {percent(values['mean'])}, recall {percent(values['recall'])}"
        for name, values in result["boxes"].items()
    ]
