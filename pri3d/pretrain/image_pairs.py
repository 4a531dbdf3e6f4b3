"""Samples of image pairs: two images, their matching cells, and the chunks that they show.

A sample depends on (seed, epoch, pair) only. It is the same for any number of worker processes,
and which sample comes next follows from the step alone, which makes a resumed run exact.

Shapes: B pairs, N matches, V voxels, C = 3 channels, H x W pixels.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pri3d.artefacts import Clouds
from pri3d.config import Pretrain
from pri3d.geometry import View
from pri3d.pretrain import official_matches
from pri3d.pretrain.batches import Matches, VoxelBatch, collate_matches, collate_voxels, unusable
from pri3d.pretrain.geometric import rotate_chunk
from pri3d.pretrain.input_depth import input_view
from pri3d.pretrain.matches import (
    CELL,
    MIN_MATCHES,
    Frame,
    VoxelMatches,
    geo_matches,
    make_frame,
    view_matches,
)
from pri3d.pretrain.pair_order import PairOrder, TrainingPair
from pri3d.pretrain.scan_cache import Scan, ScanCache, named_errors, row_of, stored_image
from pri3d.transforms.color import augment, normalize
from pri3d.transforms.crop import Crop, crop_image, crop_intrinsics, random_crop


class ImagePair(NamedTuple):
    """One pair. Parts that cannot be used are None, each with its reason in `skipped`.

    images: float32 [3, H, W] each. view: matching cells of the two images, int64 [N] each. chunks:
    of the two frames, whose ids are cells. depths: float32 [H, W] meters of the two images, where
    depth is predicted.
    """

    name: str
    images: tuple[Tensor, Tensor] | None
    view: tuple[np.ndarray, np.ndarray] | None
    chunks: tuple[VoxelMatches | None, VoxelMatches | None]
    skipped: list[str]
    depths: tuple[Tensor, Tensor] | None = None


class ImagePairBatch(NamedTuple):
    """Pairs of a micro-batch. Cells are numbered through it: image * cells per image + cell.

    A pair without any usable term is left out. names, skipped: of all pairs of the micro-batch.
    depth_a_BHW, depth_b_BHW: meters in each input pixel, 0 = no value; None unless depth is
    predicted.
    """

    names: list[str]
    image_a_BCHW: Tensor
    image_b_BCHW: Tensor
    view: Matches
    voxels_a: VoxelBatch
    voxels_b: VoxelBatch
    skipped: list[str]
    depth_a_BHW: Tensor | None = None
    depth_b_BHW: Tensor | None = None


class ImagePairs(torch.utils.data.Dataset):
    """The samples of a whole run in order: item i is pair i % batch of step i // batch.

    Files are opened on first use, in the process that uses them.

    Args:
        pairs: file made by `pri3d pairs`.
        clouds_dir: folder with <scene>.h5 made by `pri3d clouds`.
        chunks_dir: likewise by `pri3d chunks`; None: without chunks.
        settings: of the run.
        held_out: scenes whose pairs are left out.
        match_images: match cells of the two images with each other.

    Raises:
        Pri3DError: see `PairOrder`; on reading a sample, a file is missing, damaged, or does not
            fit the others.
    """

    def __init__(
        self,
        pairs: Path,
        clouds_dir: Path,
        chunks_dir: Path | None,
        settings: Pretrain,
        held_out: Collection[str] = (),
        match_images: bool = True,
    ):
        self.clouds_dir = Path(clouds_dir)
        self.chunks_dir = None if chunks_dir is None else Path(chunks_dir)
        self.settings, self.match_images = settings, match_images
        self.order = PairOrder(pairs, settings.seed, held_out)
        self.scans = ScanCache(self.clouds_dir, self.chunks_dir)
        self.collate = collate_image_pairs

    def used_scenes(self) -> list[str]:
        """Scenes that have at least one pair, in the order of the pairs file."""
        return self.order.used_scenes()

    def __getitem__(self, index: int) -> ImagePair:
        item = self.order.item(index)
        scan = self.scans[item.scene]
        with named_errors(scan, item.name):
            return self._sample(item, scan)

    def _sample(self, item: TrainingPair, scan: Scan) -> ImagePair:
        settings, clouds, name = self.settings, scan.clouds, item.name
        shape = settings.height, settings.width
        rows = [row_of(clouds, number) for number in item.frames]
        image_rngs, (view_rng,), geo_rngs, crop_rngs, rotation_rngs = (
            item.rng.spawn(n) for n in (2, 1, 2, 2, 2)
        )
        crops = [
            random_crop(clouds.color_shape, settings.crop, settings.flip, rng) for rng in crop_rngs
        ]
        try:
            image_a, image_b = (
                _image(clouds, row, crop, shape, rng if settings.augment_color else None)
                for row, crop, rng in zip(rows, crops, image_rngs)
            )
        except ValueError as error:
            return ImagePair(name, None, None, (None, None), [str(error)])
        frames = [_frame(clouds, row, crop, shape) for row, crop in zip(rows, crops)]
        with_depth = settings.depth_loss and self.match_images
        official = settings.match_rule == "official"
        views = [input_view(frame) for frame in frames] if official or with_depth else []
        skipped: list[str] = []
        view = None
        if self.match_images:
            if official:
                view = official_matches.view_matches(views[0], views[1], settings.matches, view_rng)
            else:
                view = view_matches(
                    frames[0], frames[1], settings.radius_m, settings.matches, view_rng
                )
            if len(view[0]) < MIN_MATCHES:
                view = None
                skipped.append(f"view: fewer than {MIN_MATCHES} matches")
        chunks: list[VoxelMatches | None] = [None, None]
        if self.chunks_dir is not None:
            for side, number in enumerate(item.frames):
                seen = views[side] if official else frames[side]
                chunk = self._chunk(scan, number, seen, geo_rngs[side])
                if settings.rotate_chunks:
                    chunk = rotate_chunk(chunk, rotation_rngs[side].uniform(0, 2 * np.pi))
                reason = unusable(chunk)
                if reason is None:
                    chunks[side] = chunk
                else:
                    skipped.append(f"geo: {reason}")
        depths = None
        if with_depth:
            depth_a, depth_b = (torch.from_numpy(v.depth.astype(np.float32)) for v in views)
            depths = depth_a, depth_b
        return ImagePair(name, (image_a, image_b), view, (chunks[0], chunks[1]), skipped, depths)

    def _chunk(
        self, scan: Scan, number: int, seen: Frame | View, rng: np.random.Generator
    ) -> VoxelMatches:
        """The chunk of a frame, and which of its voxels match which cells of the frame."""
        settings = self.settings
        voxel_V3, color_V3, voxel_m = scan.chunk_of(number)
        if isinstance(seen, View):
            return official_matches.geo_matches(
                seen, voxel_V3, color_V3, voxel_m, settings.matches, rng
            )
        return geo_matches(
            seen, voxel_V3, color_V3, voxel_m, settings.radius_m, settings.matches, rng
        )


def collate_image_pairs(samples: Sequence[ImagePair]) -> ImagePairBatch:
    """One micro-batch; pairs that cannot be used are only counted."""
    images: tuple[list[Tensor], list[Tensor]] = ([], [])
    depths: tuple[list[Tensor], list[Tensor]] = ([], [])
    chunks: tuple[list[tuple[VoxelMatches, int]], ...] = ([], [])
    view = []
    first_cell = 0  # of the pair's images in the batch
    for sample in samples:
        if sample.images is None or (sample.view is None and not any(sample.chunks)):
            continue
        if sample.view is not None:
            view.append((sample.view[0] + first_cell, sample.view[1] + first_cell))
        for side in (0, 1):
            images[side].append(sample.images[side])
            chunk = sample.chunks[side]
            if chunk is not None:
                chunks[side].append((chunk, first_cell))
            if sample.depths is not None:
                depths[side].append(sample.depths[side])
        height, width = sample.images[0].shape[-2:]
        first_cell += (height // CELL) * (width // CELL)
    nothing = torch.zeros(0, 3, 0, 0)
    return ImagePairBatch(
        names=[s.name for s in samples],
        image_a_BCHW=torch.stack(images[0]) if images[0] else nothing,
        image_b_BCHW=torch.stack(images[1]) if images[1] else nothing,
        view=collate_matches(view),
        voxels_a=collate_voxels(chunks[0]),
        voxels_b=collate_voxels(chunks[1]),
        skipped=[reason for s in samples for reason in s.skipped],
        depth_a_BHW=torch.stack(depths[0]) if depths[0] else None,
        depth_b_BHW=torch.stack(depths[1]) if depths[1] else None,
    )


def _image(
    clouds: Clouds,
    row: int,
    crop: Crop,
    shape: tuple[int, int],
    rng: np.random.Generator | None,
) -> Tensor:
    """The network's input, float32 [3, H, W]; without a generator its colors are unchanged."""
    # A JPEG is decoded near the needed size; the scale must leave enough rows and columns.
    scale = max(shape[0] / crop.height, shape[1] / crop.width)
    min_height = min(int(np.ceil(scale * clouds.color_shape[0])), clouds.color_shape[0])
    rgb = stored_image(clouds, row, min_height)
    image_CHW = torch.from_numpy(crop_image(rgb, clouds.color_shape, crop, shape))
    return normalize(image_CHW if rng is None else augment(image_CHW, rng))


def _frame(clouds: Clouds, row: int, crop: Crop, shape: tuple[int, int]) -> Frame:
    input_K = crop_intrinsics(clouds.color_K, crop, shape)
    return make_frame(clouds.view(row), input_K, clouds.color_from_depth, shape)
