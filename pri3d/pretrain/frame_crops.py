"""Samples of single images: two random crops of each, for moco.

The frames are those of the pairs that Pri3D trains on, so that both learn from the same images.

Shapes: B images, C = 3 channels, H x W pixels.
"""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from pri3d.config import Pretrain
from pri3d.pretrain.order import order_of_epoch
from pri3d.pretrain.pair_order import PairOrder
from pri3d.pretrain.scan_cache import ScanCache, named_errors, row_of, stored_image
from pri3d.transforms.color import augment, normalize

MIN_AREA = 0.2  # share of the image's area that a crop has at least
ASPECT = (3 / 4, 4 / 3)  # range of a crop's aspect ratio, relative to the image's own


class FrameCrops(NamedTuple):
    """Two crops of one frame, float32 [3, H, W] each; None where its image cannot be used."""

    name: str
    crops: tuple[Tensor, Tensor] | None
    skipped: list[str]


class FrameCropBatch(NamedTuple):
    """Two crops of each frame of a micro-batch. names, skipped: of all its frames."""

    names: list[str]
    query_BCHW: Tensor
    key_BCHW: Tensor
    skipped: list[str]


class FrameCropSamples(torch.utils.data.Dataset):
    """The samples of a whole run in order: item i is frame i % batch of step i // batch.

    Every epoch is a seeded permutation of the frames that occur in pairs; a sample depends on
    (seed, epoch, frame) only.

    Raises:
        Pri3DError: see `PairOrder`; on reading a sample, a file is missing or damaged.
    """

    def __init__(
        self, pairs: Path, clouds_dir: Path, settings: Pretrain, held_out: Collection[str] = ()
    ):
        self.clouds_dir, self.chunks_dir, self.settings = Path(clouds_dir), None, settings
        self.order = PairOrder(pairs, settings.seed, held_out)
        self.frames = self.order.frames()
        self.scans = ScanCache(self.clouds_dir, None)
        self.collate = collate_frame_crops

    def used_scenes(self) -> list[str]:
        """Scenes that have at least one frame, in the order of the pairs file."""
        return self.order.used_scenes()

    def __getitem__(self, index: int) -> FrameCrops:
        epoch, position = divmod(index, len(self.frames))
        order = order_of_epoch(self.settings.seed, epoch, len(self.frames))
        frame = int(self.frames[order[position]])
        scene, number = self.order.frame(frame)
        name = f"{scene} frame {number}"
        scan = self.scans[scene]
        try:
            with named_errors(scan, name):
                rgb = stored_image(scan.clouds, row_of(scan.clouds, number))
        except ValueError as error:
            return FrameCrops(name, None, [str(error)])
        query_rng, key_rng = np.random.default_rng([self.settings.seed, 2, epoch, frame]).spawn(2)
        return FrameCrops(name, (self._crop(rgb, query_rng), self._crop(rgb, key_rng)), [])

    def _crop(self, rgb: np.ndarray, rng: np.random.Generator) -> Tensor:
        settings = self.settings
        image_CHW = torch.from_numpy(rgb).permute(2, 0, 1)
        box = crop_box((image_CHW.shape[1], image_CHW.shape[2]), rng)
        shape = [settings.height, settings.width]
        image_CHW = functional.resized_crop(image_CHW.float() / 255, *box, shape, antialias=True)
        if rng.random() < 0.5:
            image_CHW = functional.horizontal_flip(image_CHW)
        image_CHW = image_CHW.clamp(0, 1)
        return normalize(augment(image_CHW, rng) if settings.augment_color else image_CHW)


def crop_box(shape: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A random crop of 20 to 100 % of the area of an image of (height, width).

    Returns:
        Top, left, height and width, in pixels.
    """
    height, width = shape
    area = rng.uniform(MIN_AREA, 1)
    aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
    rows = min(height, max(1, round(height * math.sqrt(area / aspect))))
    columns = min(width, max(1, round(width * math.sqrt(area * aspect))))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    return int(top), int(left), rows, columns


def collate_frame_crops(samples: Sequence[FrameCrops]) -> FrameCropBatch:
    """One micro-batch; frames that cannot be used are only counted."""
    used = [sample.crops for sample in samples if sample.crops is not None]
    nothing = torch.zeros(0, 3, 0, 0)
    return FrameCropBatch(
        names=[sample.name for sample in samples],
        query_BCHW=torch.stack([query for query, _ in used]) if used else nothing,
        key_BCHW=torch.stack([key for _, key in used]) if used else nothing,
        skipped=[reason for sample in samples for reason in sample.skipped],
    )
