"""Samples of single frames: an image, its cloud in voxels, and which voxel shows at which pixel.

Every pixel with depth is a point, and the point is seen at one pixel of the network's input: that
is the whole correspondence. No other frame and no pose is asked for.

Shapes: N points or matches, V voxels, C = 3 channels, H x W pixels.
"""

import functools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from pri3d.artefacts import Clouds, Unposed
from pri3d.config import Pretrain
from pri3d.errors import Pri3DError
from pri3d.matching.voxels import shift_to_origin, unique_voxels
from pri3d.pretrain.batches import Side, collate_side
from pri3d.pretrain.geometric import crop_intrinsics
from pri3d.pretrain.matches import Chunk
from pri3d.pretrain.samples import order_of_epoch, unusable
from pri3d.pretrain.scan_cache import ScanCache, damage_is_named, stored_image
from pri3d.transforms.cloud import augment_colors, augment_points
from pri3d.transforms.color import augment, normalise
from pri3d.transforms.crop import Crop, crop_image, random_crop

# From the camera's axes (x right, y down, z forward) to upright ones: x right, y forward, z up.
UPRIGHT = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])


class FrameCloud(NamedTuple):
    """One frame; cloud.cell_N are pixels of the image, row by row. None where it cannot be used."""

    name: str
    image: Tensor | None
    cloud: Chunk | None
    skipped: list[str]


class CloudBatch(NamedTuple):
    """Frames of a micro-batch; side: their clouds, whose anchors are pixels of the batch."""

    names: list[str]
    image_BCHW: Tensor
    side: Side
    skipped: list[str]


class FrameClouds(torch.utils.data.Dataset):
    """The samples of a whole run in order: item i is frame i % batch of step i // batch.

    Every epoch is a seeded permutation of all frames of the scans, those without a pose among them;
    a sample depends on (seed, epoch, frame) only. scenes: the scans to use, default all files in
    clouds_dir; held_out: those left out of them. least: a micro-batch with fewer frames is left
    out. Raises Pri3DError where there is no frame, or a file is missing or damaged.
    """

    with_geo = False

    def __init__(
        self,
        clouds_dir: Path,
        settings: Pretrain,
        held_out: Collection[str] = (),
        scenes: Collection[str] = (),
        least: int = 1,
    ):
        self.clouds_dir, self.settings = Path(clouds_dir), settings
        there = {path.stem for path in self.clouds_dir.glob("*.h5")}
        scenes = sorted(set(scenes) or there)  # in whatever order they are given
        if unknown := sorted(set(held_out) - there):
            raise Pri3DError(f"{clouds_dir}: has no scene {', '.join(unknown)} to hold out")
        self.scenes = [scene for scene in scenes if scene not in held_out]
        frames = []
        for place, scene in enumerate(self.scenes):
            with Clouds(self.clouds_dir / f"{scene}.h5") as clouds:
                frames += [(place, row) for row in range(len(clouds) + len(clouds.unposed))]
        if not frames:
            raise Pri3DError(
                f"{clouds_dir}: holds no frame to train on; make clouds first, or hold out fewer"
            )
        self.frames = np.array(frames)
        self.scans = ScanCache(self.clouds_dir, None)
        self.collate = functools.partial(collate_clouds, least=least)

    def __len__(self) -> int:
        return self.settings.steps * self.settings.batch

    def used_scenes(self) -> list[str]:
        """Scans that have at least one frame."""
        return [self.scenes[place] for place in np.unique(self.frames[:, 0])]

    def __getitem__(self, index: int) -> FrameCloud:
        epoch, place = divmod(index, len(self.frames))
        frame = int(order_of_epoch(self.settings.seed, epoch, len(self.frames))[place])
        scene, row = self.frames[frame]
        scan = self.scans[self.scenes[scene]]
        clouds = scan.clouds
        if row >= len(clouds):
            clouds, row = clouds.unposed, row - len(clouds)
        name = f"{self.scenes[scene]} frame {clouds.index[row]}"
        rngs = np.random.default_rng([self.settings.seed, 3, epoch, frame]).spawn(4)
        with damage_is_named(scan, name):
            return self._sample(name, clouds, int(row), rngs)

    def _sample(self, name: str, clouds: Clouds | Unposed, row: int, rngs) -> FrameCloud:
        settings = self.settings
        shape = settings.height, settings.width
        place = random_crop(clouds.color_shape, settings.crop, settings.flip, rngs[0])
        try:
            rgb = stored_image(clouds, row)
        except ValueError as error:
            return FrameCloud(name, None, None, [str(error)])
        image_CHW = torch.from_numpy(crop_image(rgb, clouds.color_shape, place, shape))
        points, pixels = points_in_image(clouds, row, place, shape)
        color_N3 = image_CHW.numpy().reshape(3, -1).T[pixels]
        cloud = cloud_in_voxels(points @ UPRIGHT.T, color_N3, pixels, settings, rngs[1])
        if reason := unusable(cloud):
            return FrameCloud(name, None, None, [f"cloud: {reason}"])
        drawn = rngs[2].permutation(len(cloud.row_N))[: settings.matches]
        cloud = cloud._replace(cell_N=cloud.cell_N[drawn], row_N=cloud.row_N[drawn])
        image_CHW = normalise(augment(image_CHW, rngs[3]) if settings.augment_color else image_CHW)
        return FrameCloud(name, image_CHW, cloud, [])


def points_in_image(
    clouds: Clouds | Unposed, row: int, place: Crop, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Points of a frame's depth pixels, float64 [N, 3] metres in the depth camera's axes, and the
    pixels int64 [N] of the network's input of (height, width) that show them, in row order.

    Depth pixels without a measurement, and points outside the input, are left out.
    """
    depth = clouds.depth(row)
    points = np.empty((depth.size, 3))
    pixels = np.empty(depth.size, np.int64)
    color_K = crop_intrinsics(clouds.color_K, place, shape)
    number = _unproject(
        *(depth, clouds.K, clouds.color_from_depth, color_K, *shape, points, pixels)
    )
    return points[:number], pixels[:number]


def cloud_in_voxels(
    points_N3: np.ndarray,
    color_N3: np.ndarray,
    id_N: np.ndarray,
    settings: Pretrain,
    rng: np.random.Generator,
) -> Chunk:
    """The points (z up), changed at random, in voxels: each has its first point's colour, and that
    point's id in `cell_N`; row_N counts the voxels. Colours are float32 in 0..1.
    """
    at_random, colors = rng.spawn(2)
    points_N3 = augment_points(points_N3, settings.augment_cloud, at_random)
    voxel_N3 = shift_to_origin(np.floor(points_N3 / settings.frame_voxel_m).astype(np.int64))
    first, _ = unique_voxels(voxel_N3)
    color_V3 = color_N3[first]
    if "color" in settings.augment_cloud:
        color_V3 = augment_colors(color_V3, colors)
    return Chunk(voxel_N3[first].astype(np.int32), color_V3, id_N[first], np.arange(len(first)))


def collate_clouds(samples: Sequence[FrameCloud], least: int = 1) -> CloudBatch:
    """One micro-batch; frames that cannot be used are only counted."""
    used = [sample for sample in samples if sample.cloud is not None]
    skipped = [reason for sample in samples for reason in sample.skipped]
    if len(used) < least:
        skipped += [f"cloud: fewer than {least} frames in the micro-batch"] * len(used)
        used = []
    images = torch.stack([s.image for s in used]) if used else torch.zeros(0, 3, 0, 0)
    pixels = images.shape[2] * images.shape[3]
    side = collate_side([(sample.cloud, i * pixels) for i, sample in enumerate(used)])
    return CloudBatch([sample.name for sample in samples], images, side, skipped)


@njit(cache=True, nogil=True)
def _unproject(depth, K, m, color_K, height, width, points, pixels):
    number = 0
    for row in range(depth.shape[0]):
        for column in range(depth.shape[1]):
            d = depth[row, column]
            if not (d > 0 and d < np.inf):
                continue
            x, y = (column - K[0, 2]) / K[0, 0] * d, (row - K[1, 2]) / K[1, 1] * d
            z = m[2, 0] * x + m[2, 1] * y + m[2, 2] * d + m[2, 3]
            if not z > 0:
                continue
            across = m[0, 0] * x + m[0, 1] * y + m[0, 2] * d + m[0, 3]
            down = m[1, 0] * x + m[1, 1] * y + m[1, 2] * d + m[1, 3]
            u = across / z * color_K[0, 0] + color_K[0, 2] + 0.5
            v = down / z * color_K[1, 1] + color_K[1, 2] + 0.5
            if u >= 0 and u < width and v >= 0 and v < height:
                points[number, 0], points[number, 1], points[number, 2] = x, y, d
                pixels[number] = np.int64(v) * width + np.int64(u)
                number += 1
    return number
