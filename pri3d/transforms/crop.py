"""Random crops and mirror images, resized to the network's input by area averaging.

A crop or a mirror image is the same scene seen by another color camera. Matches and depth are
computed with that camera's intrinsics, and need no correction of their own.

Shapes: C = 3 channels, H x W pixels.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from pri3d import geometry


class Crop(NamedTuple):
    """A part of a stored color image, in pixels; its edges may be anywhere within a pixel.

    mirrored: left and right are swapped.
    """

    top: float
    left: float
    height: float
    width: float
    mirrored: bool


def random_crop(
    shape: tuple[int, int], min_share: float, flip: bool, rng: np.random.Generator
) -> Crop:
    """A random part of an image, with the aspect ratio of the image.

    Args:
        shape: height and width of the image.
        min_share: min share of its sides that the crop has; the share is uniform up to 1.
        flip: mirror with probability 0.5.
        rng: of the crop; four numbers are always drawn.
    """
    share, down, across, side = rng.random(4)
    share = min_share + (1 - min_share) * share
    height, width = share * shape[0], share * shape[1]
    return Crop(
        top=down * (shape[0] - height),
        left=across * (shape[1] - width),
        height=height,
        width=width,
        mirrored=bool(flip and side < 0.5),
    )


def crop_intrinsics(color_K: np.ndarray, crop: Crop, shape: tuple[int, int]) -> np.ndarray:
    """Intrinsics [3, 3] of the network's input of (height, width); mirrored: fx is negative."""
    K = np.array(color_K, np.float64)
    K[0, 2] -= crop.left
    K[1, 2] -= crop.top
    K = geometry.scale_intrinsics(K, (crop.height, crop.width), shape)
    if crop.mirrored:
        K[0, 0], K[0, 2] = -K[0, 0], shape[1] - 1 - K[0, 2]
    return K


def crop_image(
    rgb: np.ndarray, stored: tuple[int, int], crop: Crop, shape: tuple[int, int]
) -> np.ndarray:
    """Crop and resize an image; a pixel is the mean of the area that it covers.

    Args:
        rgb: u8 [h, w, 3], decoded at the stored size or at a smaller one.
        stored: height and width of the stored image.
        crop: in pixels of the stored image.
        shape: height and width of the result.

    Returns:
        The network's input, float32 [3, H, W] in 0..1.
    """
    whole = Crop(top=0, left=0, height=stored[0], width=stored[1], mirrored=False)
    if rgb.shape[:2] == tuple(shape) and crop == whole:
        return np.ascontiguousarray(rgb.transpose(2, 0, 1)) / np.float32(255)
    image_CHW = np.empty((3, *shape), np.float32)
    down, across = rgb.shape[0] / stored[0], rgb.shape[1] / stored[1]
    rows = _taps(crop.top * down, crop.height * down, rgb.shape[0], shape[0])
    columns = _taps(crop.left * across, crop.width * across, rgb.shape[1], shape[1])
    _average(
        rgb.reshape(rgb.shape[0], -1),
        rows.first,
        rows.share,
        columns.first,
        columns.share,
        crop.mirrored,
        image_CHW,
    )
    return image_CHW


class _Taps(NamedTuple):
    """The pixels that each of n parts of an axis covers.

    first: int64 [n], the first of them; share: float32 [n, taps], the shares of it and the next.
    """

    first: np.ndarray
    share: np.ndarray


def _taps(begin: float, extent: float, size: int, count: int) -> _Taps:
    """The taps of `count` equal parts of a range on an axis of `size` pixels."""
    edges = np.clip(begin + np.arange(count + 1) * (extent / count), 0, size)
    start = np.minimum(np.floor(edges[:-1] + 1e-9).astype(np.int64), size - 1)
    last = np.maximum(np.ceil(edges[1:] - 1e-9).astype(np.int64), start + 1)
    pixels = start[:, None] + np.arange((last - start).max())
    covered = np.minimum(pixels + 1, edges[1:, None]) - np.maximum(pixels, edges[:-1, None])
    share = np.clip(covered, 0, None) * (pixels < last[:, None])
    return _Taps(start, (share / share.sum(axis=1, keepdims=True)).astype(np.float32))


@njit(cache=True, nogil=True)
def _average(rgb, first_row, row_shares, first_column, column_shares, mirrored, image_CHW):
    _, height, width = image_CHW.shape
    line = np.empty(rgb.shape[1], np.float32)
    for row in range(height):
        line[:] = np.float32(0)
        for t in range(row_shares.shape[1]):
            share = row_shares[row, t] / np.float32(255)
            if share > 0:
                source = rgb[first_row[row] + t]
                for i in range(len(line)):
                    line[i] += share * np.float32(source[i])
        for column in range(width):
            to = width - 1 - column if mirrored else column
            for c in range(3):
                total = np.float32(0)
                for t in range(column_shares.shape[1]):
                    share = column_shares[column, t]
                    if share > 0:
                        total += share * line[3 * (first_column[column] + t) + c]
                image_CHW[c, row, to] = total
