"""Images with labels, or with objects, in a seeded order.

A sample depends on (seed, epoch, image) only. Item i is image i of an endless list in which every
epoch is a permutation, so that the place in the data follows from the step.

Shapes: C = 3 channels, H x W pixels, N objects, B images of a batch.
"""

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pri3d.config import Insseg, Semseg
from pri3d.datasets import Split, at_size
from pri3d.datasets.frames import Objects
from pri3d.errors import Pri3DError
from pri3d.transforms.color import augment, normalise
from pri3d.transforms.crop import Crop, crop_image, random_crop

IGNORED = 255  # in targets: nothing annotated here


class Labelled(NamedTuple):
    """image float32 [3, H, W], normalised; target u8 [H, W]: class 0..K-1, or IGNORED."""

    name: str
    image_CHW: Tensor
    target_HW: Tensor


class WithObjects(NamedTuple):
    """image u8 [3, H, W] of any size, and torchvision's targets for it: boxes float32
    [N, 4] (x1, y1, x2, y2 in pixels), labels int64 [N] (1..K), masks u8 [N, H, W]."""

    name: str
    image_CHW: Tensor
    target: dict[str, Tensor]


class Damaged(NamedTuple):
    """A frame that cannot be read, and why."""

    name: str
    reason: str


class SemsegSamples(torch.utils.data.Dataset):
    """Training images of a split at the input's size. chosen: positions of the frames used."""

    def __init__(self, data: Split, chosen: list[int], settings: Semseg) -> None:
        self.data, self.chosen, self.settings = data, chosen, settings

    def __getitem__(self, item: int) -> Labelled | Damaged:
        frame, draws = draw(item, self.chosen, self.settings.seed)
        settings, name = self.settings, self.data.frames[frame].name
        shape = settings.height, settings.width
        place_rng, color_rng = draws.spawn(2)
        try:
            # Decoded so large that the smallest crop still has the input's rows.
            rgb = self.data.color(frame, int(np.ceil(shape[0] / settings.crop)))
            labels = self.data.labels(frame)
        except Pri3DError as error:
            return Damaged(name, str(error))
        place = random_crop(rgb.shape[:2], settings.crop, settings.flip, place_rng)
        image = torch.from_numpy(crop_image(rgb, rgb.shape[:2], place, shape))
        if settings.augment_color:
            image = augment(image, color_rng)
        target = crop_labels(labels, rgb.shape[:2], place, shape)
        return Labelled(name, normalise(image), torch.from_numpy(target - np.uint8(1)))


class InssegSamples(torch.utils.data.Dataset):
    """Training images of a split in their own size; one without a thing teaches what is none."""

    def __init__(self, data: Split, chosen: list[int], settings: Insseg) -> None:
        self.data, self.chosen, self.settings = data, chosen, settings

    def __getitem__(self, item: int) -> WithObjects | Damaged:
        frame, draws = draw(item, self.chosen, self.settings.seed)
        settings, name = self.settings, self.data.frames[frame].name
        flip_rng, color_rng = draws.spawn(2)
        try:
            rgb = self.data.color(frame)
            objects = self.data.objects(frame)
        except Pri3DError as error:
            return Damaged(name, str(error))
        image = as_tensor(rgb)
        if settings.augment_color:
            image = (augment(image.float() / 255, color_rng) * 255).round().to(torch.uint8)
        masks, labels = masks_of(objects, rgb.shape[:2], settings.min_pixels)
        if settings.flip and flip_rng.random() < 0.5:
            image, masks = image.flip(-1), masks[:, :, ::-1]
        return WithObjects(name, image.contiguous(), targets(masks, labels))


def draw(item: int, chosen: list[int], seed: int) -> tuple[int, np.random.Generator]:
    """The frame of an item of the endless list, and the generator of all that is random in it."""
    epoch, place = divmod(item, len(chosen))
    frame = chosen[_order(seed, epoch, len(chosen))[place]]
    return frame, np.random.default_rng([seed, 4, epoch, frame])


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, images: int) -> np.ndarray:
    return np.random.default_rng([seed, 3, epoch]).permutation(images)


def crop_labels(
    labels: np.ndarray, color_shape: tuple[int, int], place: Crop, shape: tuple[int, int]
) -> np.ndarray:
    """The labels [H, W] under a part of the colour image, at another size, from the nearest pixel.

    labels may have another size than the colour image.
    """
    scale = labels.shape[0] / color_shape[0], labels.shape[1] / color_shape[1]
    rows, columns = (
        np.minimum(((start + (np.arange(new) + 0.5) * (extent / new)) * by).astype(np.int64), size)
        for start, extent, new, by, size in (
            (place.top, place.height, shape[0], scale[0], labels.shape[0] - 1),
            (place.left, place.width, shape[1], scale[1], labels.shape[1] - 1),
        )
    )
    return labels[rows[:, None], columns[::-1] if place.mirrored else columns]


def as_tensor(rgb: np.ndarray) -> Tensor:
    """u8 [H, W, 3] to u8 [3, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))


def masks_of(
    objects: Objects, shape: tuple[int, int], min_pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Masks bool [N, H, W] at the size of the colour image and classes int64 [N], by number.

    Objects with fewer pixels than `min_pixels` (in their own image) are left out.
    """
    size = np.bincount(objects.number.ravel())
    kept = [n for n in sorted(objects.class_of) if size[n] >= min_pixels]
    number = at_size(objects.number, shape)
    kept = [n for n in kept if (number == n).any()]
    masks = number[None] == np.array(kept, np.int32).reshape(-1, 1, 1)
    return masks, np.array([objects.class_of[n] for n in kept], np.int64)


def targets(masks: np.ndarray, labels: np.ndarray) -> dict[str, Tensor]:
    """torchvision's targets; a box goes around all pixels of its mask, and is never empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.from_numpy(labels),
        "masks": torch.from_numpy(np.ascontiguousarray(masks).view(np.uint8)),
    }


class SemsegBatch(NamedTuple):
    """images float32 [B, 3, H, W], targets u8 [B, H, W]; damaged: what could not be read."""

    names: list[str]
    images_BCHW: Tensor | None
    targets_BHW: Tensor | None
    damaged: list[Damaged]


class InssegBatch(NamedTuple):
    names: list[str]
    images: list[Tensor]
    targets: list[dict[str, Tensor]]
    damaged: list[Damaged]


def collate_labelled(samples: list[Labelled | Damaged]) -> SemsegBatch:
    good = [sample for sample in samples if isinstance(sample, Labelled)]
    damaged = [sample for sample in samples if isinstance(sample, Damaged)]
    if not good:
        return SemsegBatch([], None, None, damaged)
    return SemsegBatch(
        [sample.name for sample in good],
        torch.stack([sample.image_CHW for sample in good]),
        torch.stack([sample.target_HW for sample in good]),
        damaged,
    )


def collate_objects(samples: list[WithObjects | Damaged]) -> InssegBatch:
    good = [sample for sample in samples if isinstance(sample, WithObjects)]
    return InssegBatch(
        [sample.name for sample in good],
        [sample.image_CHW for sample in good],
        [sample.target for sample in good],
        [sample for sample in samples if isinstance(sample, Damaged)],
    )
