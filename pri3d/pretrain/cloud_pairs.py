"""Samples of two clouds of one place: the frames of a pair, each augmented on its own.

Correspondences are found before the augmentation: points of the world that are closer than the
radius (PointContrast, Xie et al., ECCV 2020, section 3.2).

Shapes: N matches or points, V voxels, L matches that are known.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from pri3d import geometry
from pri3d.artefacts import Clouds
from pri3d.config import Pretrain
from pri3d.pretrain.batches import Matches, VoxelBatch, collate_matches, collate_voxels, unusable
from pri3d.pretrain.frame_clouds import cloud_in_voxels, points_in_image
from pri3d.pretrain.matches import MIN_MATCHES, VoxelMatches
from pri3d.pretrain.pair_order import PairOrder, TrainingPair
from pri3d.pretrain.scan_cache import ScanCache, named_errors, row_of, stored_image
from pri3d.transforms.crop import Crop


class CloudPair(NamedTuple):
    """One pair; None where it cannot be used.

    clouds: the ids of both are points, in row order of the depth image. matches: rows of the
    voxels of both, int64 [N] each. known: all pairs of rows closer than the radius for the
    anchors of `matches` (a superset of them), int64 [L, 2].
    """

    name: str
    clouds: tuple[VoxelMatches, VoxelMatches] | None
    matches: tuple[np.ndarray, np.ndarray] | None
    known: np.ndarray | None
    skipped: list[str]


class CloudPairBatch(NamedTuple):
    """Pairs of a micro-batch. names, skipped: of all its pairs.

    pairs: anchors are voxels of voxels_a, positives voxels of voxels_b, numbered through the batch.
    known_L2: rows within each pair. known_counts: number of them in each pair.
    """

    names: list[str]
    voxels_a: VoxelBatch
    voxels_b: VoxelBatch
    pairs: Matches
    known_L2: Tensor
    known_counts: list[int]
    skipped: list[str]


class CloudPairs(torch.utils.data.Dataset):
    """The samples of a whole run in order: item i is pair i % batch of step i // batch.

    Pairs and their order are those of `ImagePairs`.

    Raises:
        Pri3DError: see `PairOrder`; on reading a sample, a file is missing or damaged.
    """

    def __init__(
        self, pairs: Path, clouds_dir: Path, settings: Pretrain, held_out: Collection[str] = ()
    ):
        self.clouds_dir, self.chunks_dir, self.settings = Path(clouds_dir), None, settings
        self.order = PairOrder(pairs, settings.seed, held_out)
        self.scans = ScanCache(self.clouds_dir, None)
        self.collate = collate_cloud_pairs

    def used_scenes(self) -> list[str]:
        """Scenes that have at least one pair, in the order of the pairs file."""
        return self.order.used_scenes()

    def __getitem__(self, index: int) -> CloudPair:
        item = self.order.item(index)
        scan = self.scans[item.scene]
        with named_errors(scan, item.name):
            return self._sample(item, scan.clouds)

    def _sample(self, item: TrainingPair, clouds: Clouds) -> CloudPair:
        settings = self.settings
        *cloud_rngs, match_rng = item.rng.spawn(3)
        in_voxels, world = [], []
        for number, rng in zip(item.frames, cloud_rngs):
            try:
                points_N3, color_N3 = colored_cloud(clouds, row_of(clouds, number))
            except ValueError as error:
                return _skipped(item, str(error))
            ids = np.arange(len(points_N3))
            cloud = cloud_in_voxels(points_N3, color_N3, ids, settings, rng)
            if reason := unusable(cloud):
                return _skipped(item, f"cloud: {reason}")
            in_voxels.append(cloud)
            world.append(points_N3[cloud.id_N])
        row_a, row_b, known = close_rows(
            world[0], world[1], settings.radius_m, settings.matches, match_rng
        )
        if len(row_a) < MIN_MATCHES:
            return _skipped(item, f"cloud: fewer than {MIN_MATCHES} matches")
        return CloudPair(item.name, (in_voxels[0], in_voxels[1]), (row_a, row_b), known, [])


def _skipped(item: TrainingPair, reason: str) -> CloudPair:
    return CloudPair(item.name, clouds=None, matches=None, known=None, skipped=[reason])


def colored_cloud(clouds: Clouds, row: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame's points with their colors; points outside the color image are left out.

    Returns:
        Points float64 [N, 3], meters, world, and colors float32 [N, 3] in 0..1.

    Raises:
        ValueError: the image cannot be used; the text is the reason.
    """
    rgb = stored_image(clouds, row)
    shape = rgb.shape[0], rgb.shape[1]
    height, width = clouds.color_shape
    whole = Crop(0, 0, height, width, mirrored=False)
    points_N3, pixel_N = points_in_image(clouds, row, whole, shape)
    color_N3 = rgb.reshape(-1, 3)[pixel_N] / np.float32(255)
    return geometry.transform(clouds.world_from_camera[row], points_N3), color_N3


def close_rows(
    a_N3: np.ndarray, b_N3: np.ndarray, radius: float, max_matches: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matches of two sets of points: rows that are closer than the radius.

    Args:
        a_N3: points, meters.
        b_N3: points, meters; their number may differ.
        radius: meters.
        max_matches: maximum number of matches.
        rng: source of the order and of the choice among several partners.

    Returns:
        Rows of A, each at most once and in random order, int64 [N]; for each a random one of the
        rows of B within the radius, int64 [N]; and all pairs of those rows of A with rows of B
        within the radius, int64 [L, 2].
    """
    order = rng.permutation(len(a_N3))
    tree = cKDTree(b_N3)
    matches, known = [np.zeros((2, 0), np.int64)], []
    missing = max_matches
    for start in range(0, len(order), lot := max(64, 2 * max_matches)):
        rows = order[start : start + lot]
        near = tree.query_ball_point(a_N3[rows], radius, return_sorted=True)
        number = np.fromiter(map(len, near), np.int64, len(rows))
        draws = rng.random(len(rows))
        has = np.flatnonzero(number)[:missing]
        partner = np.fromiter((near[i][int(draws[i] * number[i])] for i in has), np.int64, len(has))
        matches.append(np.stack([rows[has], partner]))
        known += [(rows[i], j) for i in has for j in near[i]]
        missing -= len(has)
        if not missing:
            break
    row_a, row_b = np.concatenate(matches, axis=1)
    return row_a, row_b, np.array(known, np.int64).reshape(-1, 2)


def collate_cloud_pairs(samples: Sequence[CloudPair]) -> CloudPairBatch:
    """One micro-batch; pairs that cannot be used are only counted."""
    clouds, matches, known = [], [], []
    for sample in samples:
        if sample.clouds is not None and sample.matches is not None and sample.known is not None:
            clouds.append(sample.clouds)
            matches.append(sample.matches)
            known.append(sample.known)
    voxels_a = collate_voxels([(cloud_a, 0) for cloud_a, _ in clouds])
    voxels_b = collate_voxels([(cloud_b, 0) for _, cloud_b in clouds])
    first_a, first_b = (np.cumsum([0, *v.counts]) for v in (voxels_a, voxels_b))
    in_batch = [(a + first_a[i], b + first_b[i]) for i, (a, b) in enumerate(matches)]
    known_L2 = np.concatenate(known or [np.zeros((0, 2), np.int64)])
    return CloudPairBatch(
        names=[sample.name for sample in samples],
        voxels_a=voxels_a,
        voxels_b=voxels_b,
        pairs=collate_matches(in_batch),
        known_L2=torch.from_numpy(known_L2),
        known_counts=[len(rows) for rows in known],
        skipped=[reason for sample in samples for reason in sample.skipped],
    )
