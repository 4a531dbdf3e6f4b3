"""Scenes with boxes as training samples of a detector: augmentation, voxels and votes.

Shapes: N points, V voxels, S points that vote (seeds), G boxes (padded), B scenes.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pri3d.boxes import Boxes
from pri3d.datasets.scenes import Scene
from pri3d.finetune.samples import Damaged, separate
from pri3d.matching.voxels import shift_to_origin, unique_voxels
from pri3d.selection import farthest_point_sampling


class Sample(NamedTuple):
    """A scene in voxels.

    voxel: int32 [V, 3]. point: float32 [V, 3], meters, the first point of each voxel; color:
    float32 [V, 3], its color in 0..1. votes: float32 [V, 9], three offsets to the centers of the
    objects that the point belongs to; in_object: bool [V]. seed: int64 [S], rows of the points that
    vote. boxes, kind: all boxes of the scene and their classes.
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


class Batch(NamedTuple):
    """Scenes one after another; counts: number of voxels of each.

    row_BS: rows of the voxels that vote, counted through the batch. Boxes are padded to G per
    scene; mask_BG is 1 for a box and 0 for padding.
    """

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


def draw_points(scene: Scene, max_points: int, rng: np.random.Generator) -> Scene:
    """A scene with at most `max_points` of its points, drawn at random."""
    if len(scene.points) <= max_points:
        return scene
    rows = rng.choice(len(scene.points), max_points, replace=False)
    return scene._replace(
        points=scene.points[rows], color=scene.color[rows], member=scene.member[rows]
    )


def augment_scene(scene: Scene, oriented: bool, rng: np.random.Generator) -> Scene:
    """A scene flipped, rotated and scaled at random, with its boxes (as published for VoteNet).

    Oriented boxes (SUN RGB-D): x flipped with probability 0.5, rotation by up to 30 degrees, scale
    0.85 to 1.15. Aligned boxes (ScanNet): x and y flipped with probability 0.5 each, rotation by up
    to 5 degrees; boxes grow to enclose the rotated ones.
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
    rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    points, center = scale * points @ rotation.T, scale * center @ rotation.T
    if oriented:
        heading, size = heading - angle, scale * size
    else:
        cos, sin = abs(cos), abs(sin)
        width = cos * size[:, 0] + sin * size[:, 1]
        depth = sin * size[:, 0] + cos * size[:, 1]
        size = np.stack([width, depth, size[:, 2]], axis=1)
    boxes = Boxes(center=center, size=size, heading=heading)
    return scene._replace(points=points, boxes=boxes)


def voxelize(
    name: str, scene: Scene, voxel_m: float, vote_for_points: bool, seed_points: int = 1024
) -> Sample:
    """A scene in voxels, with the votes of the first point of each voxel.

    Args:
        name: of the scene.
        scene: its points, colors and boxes.
        voxel_m: size of the voxels, in meters.
        vote_for_points: votes lead to the center of the points of an object rather than to the
            center of its box (as published for ScanNet).
        seed_points: number of points that vote, far from each other.
    """
    center = scene.boxes.center
    if vote_for_points:
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
        name=name,
        voxel_V3=voxel_N3[first].astype(np.int32),
        point_V3=point_V3.astype(np.float32),
        color_V3=scene.color[first] / np.float32(255),
        votes_V9=votes.reshape(-1, 9).astype(np.float32),
        in_object_V=in_object,
        seed_S=farthest_point_sampling(point_V3, seed_points),
        boxes=scene.boxes,
        kind=scene.kind,
        notes=scene.notes,
    )


def collate(samples: list[Sample | Damaged]) -> Batch:
    """One batch of samples, damaged ones among them."""
    good, damaged = separate(samples)
    shape = len(good), max([1, *(len(sample.kind) for sample in good)])
    center, size = np.zeros((*shape, 3), np.float32), np.zeros((*shape, 3), np.float32)
    heading, mask = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    kind = np.zeros(shape, np.int64)
    for i, sample in enumerate(good):
        n = len(sample.kind)
        center[i, :n], size[i, :n], heading[i, :n] = sample.boxes
        kind[i, :n], mask[i, :n] = sample.kind, 1
    counts = [len(sample.voxel_V3) for sample in good]
    seeds = np.stack([s.seed_S for s in good]) if good else np.zeros((0, 0), np.int64)
    first_row = np.cumsum([0, *counts])[: len(good), None]
    return Batch(
        names=[sample.name for sample in good],
        voxel_V3=_joined([s.voxel_V3 for s in good], np.zeros((0, 3), np.int32)),
        point_V3=_joined([s.point_V3 for s in good], np.zeros((0, 3), np.float32)),
        color_V3=_joined([s.color_V3 for s in good], np.zeros((0, 3), np.float32)),
        votes_V9=_joined([s.votes_V9 for s in good], np.zeros((0, 9), np.float32)),
        in_object_V=_joined([s.in_object_V for s in good], np.zeros(0, bool)),
        counts=counts,
        row_BS=torch.from_numpy(seeds + first_row),
        center_BG3=torch.from_numpy(center),
        size_BG3=torch.from_numpy(size),
        heading_BG=torch.from_numpy(heading),
        kind_BG=torch.from_numpy(kind),
        mask_BG=torch.from_numpy(mask),
        damaged=damaged,
        notes=[note for sample in good for note in sample.notes],
    )


def _joined(parts: list[np.ndarray], empty: np.ndarray) -> Tensor:
    """Arrays one after another; empty: the result of none, with shape and type."""
    return torch.from_numpy(np.concatenate([empty, *parts]))
