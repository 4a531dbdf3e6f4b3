"""Training samples straight from the artefacts: two images, their chunks, and what matches what.

A sample depends on (seed, epoch, pair) only. It is the same for any number of worker processes,
and the place in the data follows from the step, which is what makes a resumed run exact.

Shapes: V voxels, C = 3 channels, H x W pixels.
"""

import functools
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pri3d.artefacts import Clouds, Pairs
from pri3d.config import Pretrain
from pri3d.errors import Pri3DError
from pri3d.geometry import View
from pri3d.pretrain import official_matches
from pri3d.pretrain.batches import Batch, Matches, Sample, Side, collate
from pri3d.pretrain.geometric import crop_intrinsics, turn
from pri3d.pretrain.input_depth import input_view
from pri3d.pretrain.matches import Chunk, Frame, frame, geo_matches, view_matches
from pri3d.pretrain.scan_cache import Scan, ScanCache, damage_is_named, row_of, stored_image
from pri3d.transforms.color import augment, normalise
from pri3d.transforms.crop import Crop, crop_image, random_crop

__all__ = ["Batch", "Matches", "PairSamples", "Sample", "Side", "collate", "order_of_rank"]

MIN_MATCHES = 2  # with one match there is no negative, and so no loss
COARSEST_VOXELS = 16  # the 3D network's coarsest grid; batch norm needs two cells there


class PairSamples(torch.utils.data.Dataset):
    """The samples of a whole run in order: item i is pair i % batch of step i // batch.

    Every epoch is a seeded permutation of the pairs. mode: "view", "geo" or "joint"; chunks are
    not read for "view". held_out: names of scans whose pairs are left out. Files are opened on
    first use, in the process that uses them. Raises Pri3DError when there is no pair, or a file is
    missing, damaged or does not fit the others.
    """

    def __init__(
        self,
        pairs: Path,
        clouds_dir: Path,
        chunks_dir: Path,
        mode: str,
        settings: Pretrain,
        held_out: Collection[str] = (),
    ):
        self.clouds_dir, self.chunks_dir = Path(clouds_dir), Path(chunks_dir)
        self.with_view, self.with_geo = mode in ("view", "joint"), mode in ("geo", "joint")
        self.settings = settings
        with Pairs(pairs) as source:
            if not len(source.a):
                raise Pri3DError(
                    f"{pairs}: holds no pairs to train on; lower pairs.min_overlap or give scans "
                    "whose frames overlap"
                )
            self.scenes = source.scenes
            if unknown := sorted(set(held_out) - set(self.scenes)):
                raise Pri3DError(
                    f"{pairs}: has no scene {', '.join(unknown)} to hold out; it has "
                    f"{', '.join(self.scenes[:5])}{' ...' if len(self.scenes) > 5 else ''}"
                )
            self.frame_scene, self.frame_index = source.frame_scene, source.frame_index
            left_out = np.isin(self.scenes, list(held_out))
            kept = ~left_out[self.frame_scene[source.a]]
            if not kept.any():
                raise Pri3DError(
                    f"{pairs}: all its {len(kept)} pairs are of scans that are held out; hold out "
                    "fewer, or give more scans"
                )
            self.a, self.b = source.a[kept], source.b[kept]
        self.collate = collate
        self.scans = ScanCache(self.clouds_dir, self.chunks_dir if self.with_geo else None)

    def __len__(self) -> int:
        return self.settings.steps * self.settings.batch

    def used_scenes(self) -> list[str]:
        """Scans that have at least one pair here, in the order of the pairs file."""
        return [self.scenes[scene] for scene in np.unique(self.frame_scene[self.a])]

    def __getitem__(self, index: int) -> Sample:
        name, scan, numbers, draws = self.asked(index)
        with damage_is_named(scan, name):
            return self._sample(name, scan, numbers, draws)

    def asked(self, index: int) -> tuple[str, Scan, list[int], np.random.Generator]:
        """The pair that an item is: what to call it, its scan, the numbers of its two frames, and
        where all that is random about it comes from."""
        epoch, place = divmod(index, len(self.a))
        pair = int(order_of_epoch(self.settings.seed, epoch, len(self.a))[place])
        draws = np.random.default_rng([self.settings.seed, 1, epoch, pair])
        frames = self.a[pair], self.b[pair]
        scene = self.scenes[self.frame_scene[frames[0]]]
        numbers = [int(self.frame_index[frame]) for frame in frames]
        name = f"{scene} frames {numbers[0]} and {numbers[1]}"
        return name, self.scans[scene], numbers, draws

    def _sample(self, name, scan: Scan, numbers, draws: np.random.Generator) -> Sample:
        settings, clouds = self.settings, scan.clouds
        shape = settings.height, settings.width
        rows = [row_of(clouds, number) for number in numbers]
        image_rngs, (view_rng,), geo_rngs, place_rngs, turn_rngs = (
            draws.spawn(n) for n in (2, 1, 2, 2, 2)
        )
        places = [
            random_crop(clouds.color_shape, settings.crop, settings.flip, rng) for rng in place_rngs
        ]
        try:
            images = tuple(
                _image(clouds, row, place, shape, rng if settings.augment_color else None)
                for row, place, rng in zip(rows, places, image_rngs)
            )
        except ValueError as error:
            return Sample(name, None, None, (None, None), [str(error)])
        seen = [_frame(clouds, row, place, shape) for row, place in zip(rows, places)]
        with_depth = settings.depth_loss and self.with_view
        official = settings.match_rule == "official"
        inputs = [input_view(frame) for frame in seen] if official or with_depth else []
        skipped, view, on_surface = [], None, [None, None]
        if self.with_view:
            if official:
                view = official_matches.view_matches(*inputs, settings.matches, view_rng)
            else:
                view = view_matches(*seen, settings.radius_m, settings.matches, view_rng)
            if len(view[0]) < MIN_MATCHES:
                view = None
                skipped.append(f"view: fewer than {MIN_MATCHES} matches")
        if self.with_geo:
            for side in (0, 1):
                looked_at = inputs[side] if official else seen[side]
                chunk = self._chunk(scan, numbers[side], looked_at, geo_rngs[side])
                if settings.rotate_chunks:
                    chunk = turn(chunk, turn_rngs[side].uniform(0, 2 * np.pi))
                reason = unusable(chunk)
                if reason is None:
                    on_surface[side] = chunk
                else:
                    skipped.append(f"geo: {reason}")
        depths = tuple(torch.from_numpy(seen.depth.astype(np.float32)) for seen in inputs)
        return Sample(
            name, images, view, tuple(on_surface), skipped, depths if with_depth else None
        )

    def _chunk(self, scan: Scan, number: int, seen: Frame | View, rng) -> Chunk:
        """The chunk of a frame, and what of it the frame matches."""
        settings, (voxel, color), voxel_m = (
            self.settings,
            scan.chunk_of(number),
            scan.chunks.voxel_m,
        )
        if settings.match_rule == "official":
            return official_matches.geo_matches(seen, voxel, color, voxel_m, settings.matches, rng)
        radius, at_most = settings.radius_m, settings.matches
        return geo_matches(seen, voxel, color, voxel_m, radius, at_most, rng)


@functools.lru_cache(maxsize=2)
def order_of_epoch(seed: int, epoch: int, number: int) -> np.ndarray:
    """The permutation of so many pairs or frames that an epoch is."""
    return np.random.default_rng([seed, 0, epoch]).permutation(number)


def order_of_rank(
    start_step: int, settings: Pretrain, rank: int, ranks: int
) -> Iterator[list[int]]:
    """Items of each micro-batch that one of several processes trains on, step after step.

    Steps are counted from 0, up to settings.steps. Of each step's micro-batches, rank r takes
    those with i % ranks == r; all ranks together take what a single process would. Raises
    Pri3DError when a batch cannot be dealt out evenly.
    """
    batch, share = settings.batch, max(1, settings.batch // ranks)
    micro = micro_batch_of(settings, ranks)
    if batch % (micro * ranks):
        of = f" and micro-batches of {micro} (pretrain.micro_batch)" if micro < share else ""
        multiple = ranks * micro if micro < share else ranks
        raise Pri3DError(
            f"pretrain.batch: {batch} pairs cannot be dealt out evenly to {ranks} processes{of}; "
            f"make it a multiple of {multiple}"
        )
    return (
        list(range(step * batch + first, step * batch + first + micro))
        for step in range(start_step, settings.steps)
        for first in range(rank * micro, batch, micro * ranks)
    )


def micro_batch_of(settings: Pretrain, ranks: int) -> int:
    """Pairs that each of several processes has in memory at once."""
    share = max(1, settings.batch // ranks)
    return min(settings.micro_batch or share, share)


def _image(clouds: Clouds, row: int, place: Crop, shape: tuple[int, int], rng) -> Tensor:
    """The network's input, float32 [3, H, W]; without a generator its colours stay."""
    # A JPEG is decoded near the size needed; the scale must leave enough rows and columns.
    scale = max(shape[0] / place.height, shape[1] / place.width)
    least = min(int(np.ceil(scale * clouds.color_shape[0])), clouds.color_shape[0])
    rgb = stored_image(clouds, row, least)
    image_CHW = torch.from_numpy(crop_image(rgb, clouds.color_shape, place, shape))
    return normalise(image_CHW if rng is None else augment(image_CHW, rng))


def _frame(clouds: Clouds, row: int, place: Crop, shape: tuple[int, int]) -> Frame:
    input_K = crop_intrinsics(clouds.color_K, place, shape)
    return frame(clouds.view(row), input_K, clouds.color_from_depth, shape)


def unusable(chunk: Chunk) -> str | None:
    """Why nothing can be learned from a chunk, or None."""
    if _within_one_cell(chunk.voxel_V3):
        return f"chunk within one cell of {COARSEST_VOXELS} voxels"
    if len(chunk.cell_N) < MIN_MATCHES:
        return f"fewer than {MIN_MATCHES} matches"
    return None


def _within_one_cell(voxel_V3: np.ndarray) -> bool:
    if not len(voxel_V3):
        return True
    # They are sorted: nearly always, the last is already in another cell than the first.
    first = voxel_V3[0] // COARSEST_VOXELS
    if (voxel_V3[-1] // COARSEST_VOXELS != first).any():
        return False
    return bool((voxel_V3 // COARSEST_VOXELS == first).all())
