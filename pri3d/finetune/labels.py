"""Labels of images as training targets: cropped, as masks, and as boxes.

Shapes: N objects, H x W pixels.
"""

import numpy as np
import torch
from torch import Tensor

from pri3d.datasets import Objects, at_size
from pri3d.transforms.crop import Crop


def as_tensor(rgb: np.ndarray) -> Tensor:
    """u8 [H, W, 3] to u8 [3, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))


def masks_of(
    objects: Objects, shape: tuple[int, int], min_pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Masks bool [N, H, W] at the size of the color image and classes int64 [N], by object number.

    Objects with fewer than `min_pixels` pixels in their own image are left out.
    """
    size = np.bincount(objects.number.ravel())
    kept = [n for n in sorted(objects.class_of) if size[n] >= min_pixels]
    number = at_size(objects.number, shape)
    kept = [n for n in kept if (number == n).any()]
    masks = number[None] == np.array(kept, np.int32).reshape(-1, 1, 1)
    return masks, np.array([objects.class_of[n] for n in kept], np.int64)


def targets(masks: np.ndarray, labels: np.ndarray) -> dict[str, Tensor]:
    """torchvision's targets; a box encloses all pixels of its mask, and is never empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.from_numpy(labels),
        "masks": torch.from_numpy(np.ascontiguousarray(masks).view(np.uint8)),
    }


def crop_labels(
    labels: np.ndarray, color_shape: tuple[int, int], crop: Crop, shape: tuple[int, int]
) -> np.ndarray:
    """The labels under a crop of the color image, resized with nearest-neighbor sampling.

    Args:
        labels: [H, W], of any size.
        color_shape: height and width of the color image, to which the crop refers.
        crop: crop of the color image.
        shape: height and width of the result.
    """
    row_scale, column_scale = labels.shape[0] / color_shape[0], labels.shape[1] / color_shape[1]
    rows = _nearest(crop.top, crop.height, shape[0], row_scale, labels.shape[0])
    columns = _nearest(crop.left, crop.width, shape[1], column_scale, labels.shape[1])
    return labels[rows[:, None], columns[::-1] if crop.mirrored else columns]


def _nearest(start: float, extent: float, count: int, scale: float, size: int) -> np.ndarray:
    """The pixels nearest to the centers of `count` equal parts of an axis."""
    centers = start + (np.arange(count) + 0.5) * (extent / count)
    return np.minimum((centers * scale).astype(np.int64), size - 1)
