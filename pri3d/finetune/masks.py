"""Masks and boxes of the objects in an image.

Shapes: N objects, H x W pixels.
"""

import numpy as np
import torch
from torch import Tensor

from pri3d.datasets import Objects, at_size


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
