"""Training samples straight from the artefacts: two images, their chunks, and what matches what.

A sample depends on (seed, epoch, pair) only. It is the same for any number of worker processes,
and the place in the data follows from the step, which is what makes a resumed run exact.

Shapes: B pairs, N matches, V voxels, C = 3 channels, H x W pixels.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pri3d import geometry
from pri3d.artefacts import Chunks, Clouds, Pairs
from pri3d.config import Pretrain
from pri3d.errors import Pri3DError
from pri3d.pretrain.augment import augment, normalise
from pri3d.pretrain.matches import CELL, Chunk, Frame, frame, geo_matches, view_matches
from pri3d.scans.images import area_resize, decode_color

LEAST_MATCHES = 2  # with one match there is no negative, and so no loss
COARSEST_VOXELS = 16  # the 3D network's coarsest grid; batch norm needs two cells there
OPEN_SCANS = 16  # a worker keeps so many scans open


class Sample(NamedTuple):
    """One pair. Terms of the loss that cannot be formed are None, with the reason in `skipped`."""

    name: str
    images: tuple[Tensor, Tensor] | None
    view: tuple[np.ndarray, np.ndarray] | None
    chunks: tuple[Chunk | None, Chunk | None]
    skipped: list[str]


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
            self.frame_scene, self.frame_index = source.frame_scene, source.frame_index
            left_out = np.isin(self.scenes, list(held_out))
            kept = ~left_out[self.frame_scene[source.a]]
            if not kept.any():
                raise Pri3DError(
                    f"{pairs}: all its {len(kept)} pairs are of scans that are held out; hold out "
                    "fewer, or give more scans"
                )
            self.a, self.b = source.a[kept], source.b[kept]
        self._order: tuple[int, np.ndarray] | None = None
        self._scans: OrderedDict[str, tuple[Clouds, Chunks | None]] = OrderedDict()

    def __len__(self) -> int:
        return self.settings.steps * self.settings.batch

    def used_scenes(self) -> list[str]:
        """Scans that have at least one pair here, in the order of the pairs file."""
        return [self.scenes[scene] for scene in np.unique(self.frame_scene[self.a])]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_scans": OrderedDict()}  # open files stay in their process

    def __getitem__(self, index: int) -> Sample:
        epoch, place = divmod(index, len(self.a))
        pair = int(self._epoch_order(epoch)[place])
        rngs = np.random.default_rng([self.settings.seed, 1, epoch, pair]).spawn(5)
        frames = self.a[pair], self.b[pair]
        scene = self.scenes[self.frame_scene[frames[0]]]
        numbers = [int(self.frame_index[frame]) for frame in frames]
        name = f"{scene} frames {numbers[0]} and {numbers[1]}"
        clouds, chunks = self._scan(scene)
        try:
            return self._sample(name, clouds, chunks, numbers, rngs)
        except OSError as error:  # a checksum of HDF5
            raise Pri3DError(
                f"{clouds.path}{f' or {chunks.path}' if chunks else ''}: {name} cannot be read "
                f"({error}); `pri3d verify` says which file is damaged, make it again"
            ) from None

    def _sample(self, name, clouds, chunks, numbers, rngs) -> Sample:
        settings = self.settings
        shape = settings.height, settings.width
        rows = [_row(clouds, number) for number in numbers]
        try:
            images = tuple(
                _image(clouds, row, shape, rng if settings.augment else None)
                for row, rng in zip(rows, rngs[:2])
            )
        except ValueError as error:
            return Sample(name, None, None, (None, None), [str(error)])
        frame_a, frame_b = (_frame(clouds, row, shape) for row in rows)
        skipped, view, on_surface = [], None, [None, None]
        if self.with_view:
            view = view_matches(frame_a, frame_b, settings.radius_m, settings.matches, rngs[2])
            if len(view[0]) < LEAST_MATCHES:
                view = None
                skipped.append(f"view: fewer than {LEAST_MATCHES} matches")
        if self.with_geo:
            for side, seen in enumerate((frame_a, frame_b)):
                in_chunk = chunks.rows(_row(chunks, numbers[side]))
                chunk = geo_matches(
                    seen,
                    chunks.voxel[in_chunk],
                    chunks.color[in_chunk],
                    chunks.voxel_m,
                    settings.radius_m,
                    settings.matches,
                    rngs[3 + side],
                )
                reason = _unusable(chunk)
                if reason is None:
                    on_surface[side] = chunk
                else:
                    skipped.append(f"geo: {reason}")
        return Sample(name, images, view, tuple(on_surface), skipped)

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng([self.settings.seed, 0, epoch])
            self._order = epoch, rng.permutation(len(self.a))
        return self._order[1]

    def _scan(self, scene: str) -> tuple[Clouds, Chunks | None]:
        if scene not in self._scans:
            chunks = Chunks(self.chunks_dir / f"{scene}.h5") if self.with_geo else None
            self._scans[scene] = Clouds(self.clouds_dir / f"{scene}.h5"), chunks
            while len(self._scans) > OPEN_SCANS:
                _, readers = self._scans.popitem(last=False)
                for reader in filter(None, readers):
                    reader.close()
        self._scans.move_to_end(scene)
        return self._scans[scene]


def order_of_rank(
    start_step: int, settings: Pretrain, rank: int, ranks: int
) -> Iterator[list[int]]:
    """Items of each micro-batch that one of several processes trains on, step after step.

    Steps are counted from 0, up to settings.steps. Of each step's micro-batches, rank r takes
    those with i % ranks == r; all ranks together take what a single process would. Raises
    Pri3DError when a batch cannot be dealt out evenly.
    """
    batch, share = settings.batch, max(1, settings.batch // ranks)
    micro = min(settings.micro_batch or share, share)
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


def _row(reader: Clouds | Chunks, number: int) -> int:
    """Position of a frame number in an artefact."""
    rows = np.flatnonzero(reader.index == number)
    if not len(rows):
        raise Pri3DError(
            f"{reader.path}: has no frame {number}, which the pairs name; make clouds, overlap, "
            "pairs and chunks from the same scan"
        )
    return int(rows[0])


def _image(clouds: Clouds, row: int, shape: tuple[int, int], rng) -> Tensor:
    """The network's input, float32 [3, H, W]; without a generator it is not augmented."""
    data = clouds.color_jpeg(row)
    if not data:
        raise ValueError("no colour image")
    # A JPEG is decoded near the size needed; the scale must leave enough rows and columns.
    scale = max(shape[0] / clouds.color_shape[0], shape[1] / clouds.color_shape[1])
    try:
        rgb = decode_color(
            data, "jpeg", clouds.color_shape, int(np.ceil(scale * clouds.color_shape[0]))
        )
    except ValueError:
        raise ValueError("colour image does not decode") from None
    if rgb.shape[:2] != tuple(shape):
        rgb = area_resize(rgb, shape)
    image_CHW = torch.from_numpy(rgb).permute(2, 0, 1).contiguous() / 255
    return normalise(image_CHW if rng is None else augment(image_CHW, rng))


def _frame(clouds: Clouds, row: int, shape: tuple[int, int]) -> Frame:
    input_K = geometry.scale_intrinsics(clouds.color_K, clouds.color_shape, shape)
    return frame(clouds.view(row), input_K, clouds.color_from_depth, shape)


def _unusable(chunk: Chunk) -> str | None:
    coarse = chunk.voxel_V3 // COARSEST_VOXELS
    if not len(coarse) or (coarse == coarse[0]).all():
        return f"chunk within one cell of {COARSEST_VOXELS} voxels"
    if len(chunk.cell_N) < LEAST_MATCHES:
        return f"fewer than {LEAST_MATCHES} matches"
    return None


class Matches(NamedTuple):
    """Rows of two feature tables that belong together, of several samples one after another.

    counts: matches of each sample; their sum is N.
    """

    anchor_N: Tensor
    positive_N: Tensor
    counts: list[int]


class Side(NamedTuple):
    """Chunks of the first or of the second frames; counts: voxels of each chunk, their sum is V.

    matches: anchors are cells of the batch, positives are voxels of the batch.
    """

    voxel_V3: Tensor
    color_V3: Tensor
    counts: list[int]
    matches: Matches


class Batch(NamedTuple):
    """Pairs of one step. Cells are numbered through the batch: image * cells of an image + cell.

    A pair without any usable term is not among them. names, skipped: of all pairs of the step.
    """

    names: list[str]
    image_a_BCHW: Tensor
    image_b_BCHW: Tensor
    view: Matches
    side_a: Side
    side_b: Side
    skipped: list[str]
    depth_a_BHW: Tensor | None = None
    depth_b_BHW: Tensor | None = None


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of the samples of a step; few tensors, so that workers share few of them."""
    used = [s for s in samples if s.view is not None or any(c is not None for c in s.chunks)]
    images = [
        torch.stack([s.images[side] for s in used]) if used else torch.zeros(0, 3, 0, 0)
        for side in (0, 1)
    ]
    height, width = images[0].shape[-2:]
    first_cell = [i * (height // CELL) * (width // CELL) for i in range(len(used))]
    view = [
        (s.view[0] + start, s.view[1] + start)
        for s, start in zip(used, first_cell)
        if s.view is not None
    ]
    sides = []
    for side in (0, 1):
        chunks = [(s.chunks[side], start) for s, start in zip(used, first_cell)]
        sides.append(_collate_side([(c, start) for c, start in chunks if c is not None]))
    return Batch(
        [s.name for s in samples],
        *images,
        _collate_matches(view),
        *sides,
        [reason for s in samples for reason in s.skipped],
    )


def _collate_side(chunks: list[tuple[Chunk, int]]) -> Side:
    counts = [len(chunk.voxel_V3) for chunk, _ in chunks]
    first_row = np.cumsum([0, *counts])
    matches = [
        (chunk.cell_N + first_cell, chunk.row_N + row)
        for (chunk, first_cell), row in zip(chunks, first_row)
    ]
    empty = np.zeros((0, 3))
    voxel_V3 = np.concatenate([chunk.voxel_V3 for chunk, _ in chunks] or [empty])
    color_V3 = np.concatenate([chunk.color_V3 for chunk, _ in chunks] or [empty])
    return Side(
        torch.from_numpy(voxel_V3.astype(np.int32)),
        torch.from_numpy(color_V3.astype(np.float32)) / 255,
        counts,
        _collate_matches(matches),
    )


def _collate_matches(matches: list[tuple[np.ndarray, np.ndarray]]) -> Matches:
    none = np.zeros(0, np.int64)
    anchor_N = np.concatenate([anchor for anchor, _ in matches] or [none])
    positive_N = np.concatenate([positive for _, positive in matches] or [none])
    counts = [len(anchor) for anchor, _ in matches]
    return Matches(torch.from_numpy(anchor_N), torch.from_numpy(positive_N), counts)
