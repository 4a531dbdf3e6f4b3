"""Color augmentation of one image, driven by an explicit generator.

Pri3D (Hou et al., ICCV 2021) augments colors only: jitter of brightness, contrast and saturation by
up to 0.4 and of hue by up to 0.1 (with probability 0.8), gray (0.2), and Gaussian blur with a sigma
of 0.1 to 2 pixels (0.5). The functions compute what torchvision's functions of these names compute;
compiled here, they take a fifth of the time.

Shapes: C = 3 channels, H x W pixels, T taps.
"""

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor

JITTER_PROBABILITY, JITTER, HUE = 0.8, 0.4, 0.1
GRAY_PROBABILITY = 0.2
BLUR_PROBABILITY, BLUR_SIGMA = 0.5, (0.1, 2.0)
GRAY = (0.2989, 0.587, 0.114)  # shares of red, green and blue, as in torchvision

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def augment(image_CHW: Tensor, rng: np.random.Generator) -> Tensor:
    """Augment the colors of an image.

    The same numbers are drawn whatever is applied, so that one decision does not affect the next.

    Args:
        image_CHW: float32, in 0..1.
        rng: determines the result.

    Returns:
        A new image, float32 [3, H, W] in 0..1.
    """
    jitter, gray, blur = rng.random(3) < (JITTER_PROBABILITY, GRAY_PROBABILITY, BLUR_PROBABILITY)
    brightness, contrast, saturation = rng.uniform(1 - JITTER, 1 + JITTER, 3).tolist()
    hue = float(rng.uniform(-HUE, HUE))
    order = rng.permutation(4)
    sigma = float(rng.uniform(*BLUR_SIGMA))
    image = image_CHW.numpy().copy()
    if jitter:
        changes = (
            (adjust_brightness, brightness),
            (adjust_contrast, contrast),
            (adjust_saturation, saturation),
            (adjust_hue, hue),
        )
        for position in order:
            change, amount = changes[position]
            change(image.reshape(3, -1), np.float32(amount))
    if gray:
        image[:] = np.tensordot(np.array(GRAY, np.float32), image, 1)
    if blur:
        image = gaussian_blur(image, sigma)
    return torch.from_numpy(image)


def normalize(image_CHW: Tensor) -> Tensor:
    """Normalize the colors of an image, or of a batch, by ImageNet's mean and standard deviation.

    Colors are in 0..1.
    """
    mean_C11 = image_CHW.new_tensor(IMAGENET_MEAN)[:, None, None]
    std_C11 = image_CHW.new_tensor(IMAGENET_STD)[:, None, None]
    return (image_CHW - mean_C11) / std_C11


def adjust_brightness(image_CN: np.ndarray, factor: np.float32) -> None:
    """Multiply all colors; in place, like the next three, for float32 [3, N] in 0..1."""
    _scale(image_CN, factor, np.float32(0))


def adjust_contrast(image_CN: np.ndarray, factor: np.float32) -> None:
    """Move all colors away from the mean gray of the image, or towards it."""
    mean = np.float32(image_CN.mean(axis=1) @ np.array(GRAY, np.float32))
    _scale(image_CN, factor, (1 - factor) * mean)


@njit(cache=True, nogil=True, error_model="numpy")
def _scale(image_CN, factor, summand):
    zero, one = np.float32(0), np.float32(1)
    for c in range(3):
        for i in range(image_CN.shape[1]):
            image_CN[c, i] = min(max(image_CN[c, i] * factor + summand, zero), one)


@njit(cache=True, nogil=True, error_model="numpy")
def adjust_saturation(image_CN, factor):
    """Move each color away from its own gray, or towards it."""
    zero, one = np.float32(0), np.float32(1)
    red, green, blue = np.float32(GRAY[0]), np.float32(GRAY[1]), np.float32(GRAY[2])
    for i in range(image_CN.shape[1]):
        r, g, b = image_CN[0, i], image_CN[1, i], image_CN[2, i]
        rest = (one - factor) * (red * r + green * g + blue * b)
        image_CN[0, i] = min(max(r * factor + rest, zero), one)
        image_CN[1, i] = min(max(g * factor + rest, zero), one)
        image_CN[2, i] = min(max(b * factor + rest, zero), one)


@njit(cache=True, nogil=True, error_model="numpy")
def adjust_hue(image_CN, shift):
    """Rotate the hue (of HSV) of each color by a share of the full circle."""
    zero, one, two, three = np.float32(0), np.float32(1), np.float32(2), np.float32(3)
    four, five, six = np.float32(4), np.float32(5), np.float32(6)
    for i in range(image_CN.shape[1]):
        r, g, b = image_CN[0, i], image_CN[1, i], image_CN[2, i]
        value = max(max(r, g), b)
        chroma = value - min(min(r, g), b)
        per_chroma = one / (chroma if chroma > zero else one)
        from_green = two + (b - r) * per_chroma
        from_blue = four + (r - g) * per_chroma
        hue = from_green if value == g else from_blue
        hue = (g - b) * per_chroma if value == r else hue
        hue += shift * six + six  # sixths of the circle, 0 or more
        image_CN[0, i] = _channel(hue + five, value, chroma)
        image_CN[1, i] = _channel(hue + three, value, chroma)
        image_CN[2, i] = _channel(hue + one, value, chroma)


@njit(cache=True, nogil=True, error_model="numpy")
def _channel(k, value, chroma):
    """A channel of a color with this value and chroma; k: sixths of the circle from its own hue."""
    zero, one, four, six = np.float32(0), np.float32(1), np.float32(4), np.float32(6)
    k -= six * np.floor(k * (one / six))
    return value - chroma * max(zero, min(min(k, four - k), one))


def gaussian_blur(image_CHW: np.ndarray, sigma: float) -> np.ndarray:
    """Blur an image, float32 [3, H, W], mirrored at its outermost pixels beyond its edges."""
    reach = math.ceil(3 * sigma)  # 0.3 % of the weight is beyond three sigma
    weight_T = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weight_T = (weight_T / weight_T.sum()).astype(np.float32)
    padded = np.pad(image_CHW, ((0, 0), (reach, reach), (reach, reach)), "reflect")
    down = np.empty((3, image_CHW.shape[1], padded.shape[2]), np.float32)
    blurred = np.empty(image_CHW.shape, np.float32)
    _blur(padded, weight_T, down, blurred)
    return blurred


@njit(cache=True, nogil=True)
def _blur(padded, weight_T, down, blurred):
    """Blur along the columns, then along the rows."""
    taps = len(weight_T)
    channels, height, width = blurred.shape
    for c in range(channels):
        for row in range(height):
            line = down[c, row]
            line[:] = np.float32(0)
            for t in range(taps):
                weight, source = weight_T[t], padded[c, row + t]
                for column in range(len(line)):
                    line[column] += weight * source[column]
            out = blurred[c, row]
            out[:] = np.float32(0)
            for t in range(taps):
                weight = weight_T[t]
                for column in range(width):
                    out[column] += weight * line[column + t]
