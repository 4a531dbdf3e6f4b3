"""Samples of single frames: an image, its cloud in voxels, and which voxel shows at which pixel.

Every pixel with depth is a point, and the point is seen at one pixel of the network's input: these
are the correspondences. Neither a second frame nor a pose is needed.

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
from pri3d.pretrain.batches import VoxelBatch, collate_voxels, unusable
from pri3d.pretrain.matches import VoxelMatches
from pri3d.pretrain.order import order_of_epoch
from pri3d.pretrain.scan_cache import ScanCache, named_errors, stored_image
from pri3d.transforms.cloud import augment_colors, augment_points
from pri3d.transforms.color import augment, normalize
from pri3d.transforms.crop import Crop, crop_image, crop_intrinsics, random_crop

# From the camera's axes (x right, y down, z forward) to upright ones: x right, y forward, z up.
UPRIGHT = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])


class FrameCloud(NamedTuple):
    """One frame; None where it cannot be used.

    image: float32 [3, H, W]. cloud: its ids are pixels of the image, numbered row by row.
    """

    name: str
    image: Tensor | None
    cloud: VoxelMatches | None
    skipped: list[str]


class FrameCloudBatch(NamedTuple):
    """Frames of a micro-batch. names, skipped: of all its frames.

    cloud: their clouds in voxels, whose anchors are pixels numbered through the batch.
    """

    names: list[str]
    image_BCHW: Tensor
    cloud: VoxelBatch
    skipped: list[str]


class FrameClouds(torch.utils.data.Dataset):
    """The samples of a whole run in order: item i is frame i % batch of step i // batch.

    Every epoch is a seeded permutation of all frames of the scans, also of those without a pose; a
    sample depends on (seed, epoch, frame) only.

    Args:
        clouds_dir: folder with <scene>.h5 made by `pri3d clouds`.
        settings: of the run.
        held_out: scenes that are left out.
        scenes: scenes to train on; empty: all in clouds_dir.
        min_frames: a micro-batch with fewer usable frames is skipped.

    Raises:
        Pri3DError: a file is missing or damaged, a held-out scene is unknown, or no frame is left.
    """

    def __init__(
        self,
        clouds_dir: Path,
        settings: Pretrain,
        held_out: Collection[str] = (),
        scenes: Collection[str] = (),
        min_frames: int = 1,
    ):
        self.clouds_dir, self.chunks_dir, self.settings = Path(clouds_dir), None, settings
        available = {path.stem for path in self.clouds_dir.glob("*.h5")}
        if unknown := sorted(set(held_out) - available):
            raise Pri3DError(f"{clouds_dir}: has no scene {', '.join(unknown)} to hold out")
        # Sorted: the run does not depend on the order in which scenes are given.
        self.scenes = [s for s in sorted(set(scenes) or available) if s not in held_out]
        frames = []
        for scene_number, scene in enumerate(self.scenes):
            with Clouds(self.clouds_dir / f"{scene}.h5") as clouds:
                rows = len(clouds) + len(clouds.unposed)
                frames += [(scene_number, row) for row in range(rows)]
        if not frames:
            raise Pri3DError(
                f"{clouds_dir}: holds no frame to train on; make clouds first, or hold out fewer"
            )
        self.frames = np.array(frames)
        self.scans = ScanCache(self.clouds_dir, None)
        self.collate = functools.partial(collate_frame_clouds, min_frames=min_frames)

    def used_scenes(self) -> list[str]:
        """Scenes that have at least one frame."""
        return [self.scenes[scene] for scene in np.unique(self.frames[:, 0])]

    def __getitem__(self, index: int) -> FrameCloud:
        epoch, position = divmod(index, len(self.frames))
        frame = int(order_of_epoch(self.settings.seed, epoch, len(self.frames))[position])
        scene, row = self.frames[frame]
        scan = self.scans[self.scenes[scene]]
        clouds: Clouds | Unposed = scan.clouds
        if row >= len(scan.clouds):
            clouds, row = scan.clouds.unposed, row - len(scan.clouds)
        name = f"{self.scenes[scene]} frame {clouds.index[row]}"
        rng = np.random.default_rng([self.settings.seed, 3, epoch, frame])
        with named_errors(scan, name):
            return self._sample(name, clouds, int(row), rng)

    def _sample(
        self, name: str, clouds: Clouds | Unposed, row: int, rng: np.random.Generator
    ) -> FrameCloud:
        settings = self.settings
        shape = settings.height, settings.width
        crop_rng, cloud_rng, match_rng, color_rng = rng.spawn(4)
        crop = random_crop(clouds.color_shape, settings.crop, settings.flip, crop_rng)
        try:
            rgb = stored_image(clouds, row)
        except ValueError as error:
            return FrameCloud(name, None, None, [str(error)])
        image_CHW = torch.from_numpy(crop_image(rgb, clouds.color_shape, crop, shape))
        points_N3, pixel_N = points_in_image(clouds, row, crop, shape)
        color_N3 = image_CHW.numpy().reshape(3, -1).T[pixel_N]
        cloud = cloud_in_voxels(points_N3 @ UPRIGHT.T, color_N3, pixel_N, settings, cloud_rng)
        if reason := unusable(cloud):
            return FrameCloud(name, None, None, [f"cloud: {reason}"])
        chosen = match_rng.permutation(len(cloud.row_N))[: settings.matches]
        cloud = cloud._replace(id_N=cloud.id_N[chosen], row_N=cloud.row_N[chosen])
        if settings.augment_color:
            image_CHW = augment(image_CHW, color_rng)
        return FrameCloud(name, normalize(image_CHW), cloud, [])


def points_in_image(
    clouds: Clouds | Unposed, row: int, crop: Crop, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The points of a frame that the network's input shows.

    Depth pixels without a measurement, and points outside the input, are left out.

    Args:
        clouds: where the frame is stored.
        row: row of the frame in `clouds`.
        crop: the part of the color image that is the input.
        shape: (height, width) of the input.

    Returns:
        Points float64 [N, 3], meters, along the depth camera's axes, in row order of the depth
        image; and the input pixels int64 [N] that show them, numbered row by row.
    """
    depth = clouds.depth(row)
    points_N3 = np.empty((depth.size, 3))
    pixel_N = np.empty(depth.size, np.int64)
    color_K = crop_intrinsics(clouds.color_K, crop, shape)
    number = _unproject(
        depth,
        clouds.K,
        clouds.color_from_depth,
        color_K,
        shape[0],
        shape[1],
        points_N3,
        pixel_N,
    )
    return points_N3[:number], pixel_N[:number]


def cloud_in_voxels(
    points_N3: np.ndarray,
    color_N3: np.ndarray,
    id_N: np.ndarray,
    settings: Pretrain,
    rng: np.random.Generator,
) -> VoxelMatches:
    """Augments a cloud and voxelizes it; each voxel takes the color and the id of its first point.

    Args:
        points_N3: meters, z up.
        color_N3: float32 in 0..1.
        id_N: int64, a number for each point.
        settings: frame_voxel_m and augment_cloud.
        rng: source of the augmentation.

    Returns:
        All voxels [V], with id_N [V] and row_N = 0..V - 1.
    """
    point_rng, color_rng = rng.spawn(2)
    points_N3 = augment_points(points_N3, settings.augment_cloud, point_rng)
    voxel_N3 = shift_to_origin(np.floor(points_N3 / settings.frame_voxel_m).astype(np.int64))
    first, _ = unique_voxels(voxel_N3)
    color_V3 = color_N3[first]
    if "color" in settings.augment_cloud:
        color_V3 = augment_colors(color_V3, color_rng)
    return VoxelMatches(
        voxel_V3=voxel_N3[first].astype(np.int32),
        color_V3=color_V3,
        id_N=id_N[first],
        row_N=np.arange(len(first)),
    )


def collate_frame_clouds(samples: Sequence[FrameCloud], min_frames: int = 1) -> FrameCloudBatch:
    """One micro-batch; frames that cannot be used are only counted."""
    images, clouds = [], []
    for sample in samples:
        if sample.image is not None and sample.cloud is not None:
            images.append(sample.image)
            clouds.append(sample.cloud)
    skipped = [reason for sample in samples for reason in sample.skipped]
    if len(images) < min_frames:
        reason = f"cloud: fewer than {min_frames} frames in the micro-batch"
        skipped += [reason] * len(images)
        images, clouds = [], []
    image_BCHW = torch.stack(images) if images else torch.zeros(0, 3, 0, 0)
    pixels = image_BCHW.shape[2] * image_BCHW.shape[3]
    cloud = collate_voxels([(voxels, i * pixels) for i, voxels in enumerate(clouds)])
    return FrameCloudBatch([sample.name for sample in samples], image_BCHW, cloud, skipped)


@njit(cache=True, nogil=True)
def _unproject(
    depth: np.ndarray,
    K: np.ndarray,
    m: np.ndarray,
    color_K: np.ndarray,
    height: int,
    width: int,
    points: np.ndarray,
    pixels: np.ndarray,
) -> int:
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
