"""Samples of two clouds of one place: the frames of a pair, each changed at random by itself.

What matches what is known before the clouds are changed: points of the world that lie closer than
the radius (PointContrast, Xie et al., ECCV 2020, section 3.2).

Shapes: N matches, V voxels.
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
from pri3d.pretrain.batches import Matches, Side, collate_matches, collate_side
from pri3d.pretrain.frame_clouds import cloud_in_voxels, points_in_image
from pri3d.pretrain.matches import Chunk
from pri3d.pretrain.samples import MIN_MATCHES, PairSamples, unusable
from pri3d.pretrain.scan_cache import damage_is_named, row_of, stored_image
from pri3d.transforms.crop import Crop


class CloudPair(NamedTuple):
    """One pair: two clouds, the voxels [N], [N] that match, and all voxels of the second that lie
    within the radius of those of the first, int64 [L, 2]; None where it cannot be used."""

    name: str
    clouds: tuple[Chunk, Chunk] | None
    matches: tuple[np.ndarray, np.ndarray] | None
    listed: np.ndarray | None
    skipped: list[str]


class CloudPairBatch(NamedTuple):
    """Pairs of a micro-batch. pairs: anchors are voxels of side_a, positives of side_b. listed_L2,
    listed_counts: all voxels within the radius, counted within each pair."""

    names: list[str]
    side_a: Side
    side_b: Side
    pairs: Matches
    listed_L2: Tensor
    listed_counts: list[int]
    skipped: list[str]


class CloudPairs(torch.utils.data.Dataset):
    """The samples of a whole run in order, of the same pairs in the same order as `PairSamples`."""

    with_geo = False

    def __init__(
        self, pairs: Path, clouds_dir: Path, settings: Pretrain, held_out: Collection[str] = ()
    ):
        self.pairs = PairSamples(pairs, clouds_dir, clouds_dir, "view", settings, held_out)
        self.clouds_dir, self.settings = Path(clouds_dir), settings
        self.collate = collate_cloud_pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def used_scenes(self) -> list[str]:
        """Scans that have at least one pair, in the order of the pairs file."""
        return self.pairs.used_scenes()

    def __getitem__(self, index: int) -> CloudPair:
        name, scan, numbers, rng = self.pairs.asked(index)
        rngs = rng.spawn(3)
        with damage_is_named(scan, name):
            return self._sample(name, scan.clouds, numbers, rngs)

    def _sample(self, name: str, clouds: Clouds, numbers: list[int], rngs) -> CloudPair:
        settings, sides, world = self.settings, [], []
        for number, rng in zip(numbers, rngs):
            try:
                points, color = colored_cloud(clouds, row_of(clouds, number))
            except ValueError as error:  # of the image
                return CloudPair(name, None, None, None, [str(error)])
            side = cloud_in_voxels(points, color, np.arange(len(points)), settings, rng)
            if reason := unusable(side):
                return CloudPair(name, None, None, None, [f"cloud: {reason}"])
            sides.append(side)
            world.append(points[side.cell_N])
        *found, listed = matching(*world, settings.radius_m, settings.matches, rngs[2])
        if len(found[0]) < MIN_MATCHES:
            reason = f"cloud: fewer than {MIN_MATCHES} matches"
            return CloudPair(name, None, None, None, [reason])
        return CloudPair(name, tuple(sides), tuple(found), listed, [])


def colored_cloud(clouds: Clouds, row: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame's points float64 [N, 3] metres in the world, and their colours float32 [N, 3] in
    0..1; points that the colour image does not show are left out.
    """
    rgb = stored_image(clouds, row)
    shape = rgb.shape[:2]
    whole = Crop(0, 0, *clouds.color_shape, False)
    points, pixels = points_in_image(clouds, row, whole, shape)
    color = rgb.reshape(-1, 3)[pixels] / np.float32(255)
    return geometry.transform(clouds.world_from_camera[row], points), color


def matching(
    a_N3: np.ndarray, b_N3: np.ndarray, radius: float, at_most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of A, each at most once and in random order, and for each a random one of the rows of B
    that are closer than the radius: int64 [n], [n]; and all of those, int64 [L, 2].
    """
    rows = rng.permutation(len(a_N3))
    tree, found, listed = cKDTree(b_N3), [np.zeros((2, 0), np.int64)], []
    missing = at_most
    for start in range(0, len(rows), step := max(64, 2 * at_most)):
        asked = rows[start : start + step]
        near = tree.query_ball_point(a_N3[asked], radius, return_sorted=True)
        number = np.fromiter(map(len, near), np.int64, len(asked))
        draws = rng.random(len(asked))
        has = np.flatnonzero(number)[:missing]
        partner = np.fromiter((near[i][int(draws[i] * number[i])] for i in has), np.int64, len(has))
        found.append(np.stack([asked[has], partner]))
        listed += [(asked[i], j) for i in has for j in near[i]]
        missing -= len(has)
        if not missing:
            break
    row_a, row_b = np.concatenate(found, axis=1)
    return row_a, row_b, np.array(listed, np.int64).reshape(-1, 2)


def collate_cloud_pairs(samples: Sequence[CloudPair]) -> CloudPairBatch:
    """One micro-batch; pairs that cannot be used are only counted."""
    used = [sample for sample in samples if sample.clouds is not None]
    sides = [collate_side([(s.clouds[i], 0) for s in used]) for i in (0, 1)]
    firsts = [np.cumsum([0, *side.counts]) for side in sides]
    matches = [
        (sample.matches[0] + first_a, sample.matches[1] + first_b)
        for sample, first_a, first_b in zip(used, *firsts)
    ]
    return CloudPairBatch(
        [sample.name for sample in samples],
        *sides,
        collate_matches(matches),
        torch.from_numpy(np.concatenate([s.listed for s in used] or [np.zeros((0, 2), np.int64)])),
        [len(s.listed) for s in used],
        [reason for sample in samples for reason in sample.skipped],
    )
