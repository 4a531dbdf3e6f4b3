"""The part of an image that a network sees: crops and mirror images, area-filtered to its input.

Shapes: C = 3 channels, H x W pixels.
"""

from typing import NamedTuple

import numpy as np
from numba import njit


class Crop(NamedTuple):
    """The part of the stored colour image that the network sees, in pixels; edges need not be
    between two of them. mirrored: left and right change places.
    """

    top: float
    left: float
    height: float
    width: float
    mirrored: bool


def random_crop(shape: tuple[int, int], crop: float, flip: bool, rng: np.random.Generator) -> Crop:
    """A part of an image of (height, width), of the same aspect and anywhere in it.

    crop: the smallest share of its sides; flip: whether every other one is mirrored.
    """
    share, down, across, side = rng.random(4)
    share = crop + (1 - crop) * share
    height, width = share * shape[0], share * shape[1]
    mirrored = bool(flip and side < 0.5)
    return Crop(down * (shape[0] - height), across * (shape[1] - width), height, width, mirrored)


def crop_image(
    rgb: np.ndarray, stored: tuple[int, int], placement: Crop, shape: tuple[int, int]
) -> np.ndarray:
    """The network's input, float32 [3, H, W] in 0..1; a pixel is the mean of the area it covers.

    rgb: u8, the image of the stored (height, width), or decoded smaller.
    """
    if rgb.shape[:2] == tuple(shape) and placement == (0, 0, *stored, False):
        return np.ascontiguousarray(rgb.transpose(2, 0, 1)) / np.float32(255)
    image_CHW = np.empty((3, *shape), np.float32)
    down, across = rgb.shape[0] / stored[0], rgb.shape[1] / stored[1]
    _average(
        rgb.reshape(rgb.shape[0], -1),
        *_taps(placement.top * down, placement.height * down, rgb.shape[0], shape[0]),
        *_taps(placement.left * across, placement.width * across, rgb.shape[1], shape[1]),
        *(placement.mirrored, image_CHW),
    )
    return image_CHW


def _taps(first: float, extent: float, size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `count` equal parts of an axis: its first pixel int64, and the shares float32
    [count, taps] of that and the next ones.
    """
    edges = np.clip(first + np.arange(count + 1) * (extent / count), 0, size)
    start = np.minimum(np.floor(edges[:-1] + 1e-9).astype(np.int64), size - 1)
    last = np.maximum(np.ceil(edges[1:] - 1e-9).astype(np.int64), start + 1)
    pixels = start[:, None] + np.arange((last - start).max())
    covered = np.minimum(pixels + 1, edges[1:, None]) - np.maximum(pixels, edges[:-1, None])
    share = np.clip(covered, 0, None) * (pixels < last[:, None])
    return start, (share / share.sum(axis=1, keepdims=True)).astype(np.float32)


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
