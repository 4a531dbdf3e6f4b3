"""Colour augmentation of one image, driven by an explicit generator.

Pri3D (Hou et al., ICCV 2021) changes colours only: jitter of brightness, contrast and saturation by
up to 0.4 and of hue by up to 0.1 (with probability 0.8), grey (0.2) and Gaussian blur with a sigma
of 0.1 to 2 pixels (0.5). No crop and no flip: pixels stay where their depth says they are.

Shapes: C = 3 channels, H x W pixels.
"""

import math

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional

JITTER_PROBABILITY, JITTER, HUE = 0.8, 0.4, 0.1
GREY_PROBABILITY = 0.2
BLUR_PROBABILITY, BLUR_SIGMA = 0.5, (0.1, 2.0)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def augment(image_CHW: Tensor, rng: np.random.Generator) -> Tensor:
    """Change the colours of float32 [3, H, W] in 0..1; the same generator gives the same image.

    As many numbers are drawn whatever is applied, so that one draw does not shift the next ones.
    """
    jitter, grey, blur = rng.random(3) < (JITTER_PROBABILITY, GREY_PROBABILITY, BLUR_PROBABILITY)
    brightness, contrast, saturation = rng.uniform(1 - JITTER, 1 + JITTER, 3).tolist()
    hue = float(rng.uniform(-HUE, HUE))
    order = rng.permutation(4)
    sigma = float(rng.uniform(*BLUR_SIGMA))
    if jitter:
        changes = (
            (functional.adjust_brightness, brightness),
            (functional.adjust_contrast, contrast),
            (functional.adjust_saturation, saturation),
            (functional.adjust_hue, hue),
        )
        for position in order:
            change, amount = changes[position]
            image_CHW = change(image_CHW, amount)
    if grey:
        image_CHW = functional.rgb_to_grayscale(image_CHW, num_output_channels=3)
    if blur:
        size = 2 * math.ceil(3 * sigma) + 1  # what lies beyond three sigma is 0.3 % in all
        image_CHW = functional.gaussian_blur(image_CHW, [size, size], [sigma, sigma])
    return image_CHW


def normalise(image_CHW: Tensor) -> Tensor:
    """Colours 0..1 to what networks trained on ImageNet expect: zero mean, unit variance."""
    mean_C11 = image_CHW.new_tensor(IMAGENET_MEAN)[:, None, None]
    std_C11 = image_CHW.new_tensor(IMAGENET_STD)[:, None, None]
    return (image_CHW - mean_C11) / std_C11
