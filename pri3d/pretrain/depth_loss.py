"""The depth term that the published Pri3D code adds to its view term (preset `official`).

Shapes: B images, C channels, H x W pixels.
"""

from typing import TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

SOBEL = (
    ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0)),
    ((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -1.0)),
)
OFFSET = 0.5  # added before the logarithm, which is then defined at 0


def depth_head(channels: int) -> nn.Conv2d:
    """Predicts the depth of every cell from its features; `headnet` in published weights."""
    return nn.Conv2d(channels, 1, kernel_size=1)


def depth_loss(
    predicted_BHW: Float[Tensor, "b h1 w1"], target_BHW: Float[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    """Errors of depth, of its gradients and of its normals: mean over all pixels with depth.

    (ln(|d - t| + 0.5) + ln(|Sx d - Sx t| + 0.5) + ln(|Sy d - Sy t| + 0.5) + 1 - cos(n_d, n_t)) / 3

    with Sobel gradients S and normals n = (-Sx, -Sy, 1); Hu et al., "Revisiting Single Image Depth
    Estimation", WACV 2019, equations 3 to 5, as in Pri3D's release (all parts have the same weight,
    and their sum is divided by three). It may be negative.

    Args:
        predicted_BHW: meters; bilinearly resized to the size of the target if it differs.
        target_BHW: meters; 0: no value. Such pixels are left out of the means, but enter the
            gradients of their neighbors, as published.

    Raises:
        ValueError: no pixel has depth.
    """
    valid_BHW = target_BHW > 0
    if not valid_BHW.any():
        raise ValueError("depth_loss: no pixel of the target has depth")
    d, t = predicted_BHW[:, None], target_BHW[:, None].to(predicted_BHW.dtype)
    if d.shape[-2:] != t.shape[-2:]:
        d = interpolate(d, t.shape[-2:], mode="bilinear", align_corners=True)
    kernel = d.new_tensor(SOBEL)[:, None]
    gradient_d, gradient_t = (conv2d(x, kernel, padding=1) for x in (d, t))
    error = (d - t).abs().add(OFFSET).log()[:, 0]
    gradient_error = (gradient_d - gradient_t).abs().add(OFFSET).log().sum(dim=1)
    dot = (gradient_d * gradient_t).sum(dim=1) + 1
    length_d, length_t = ((g.square().sum(dim=1) + 1).sqrt() for g in (gradient_d, gradient_t))
    normal_error = 1 - dot / (length_d * length_t)
    return (error + gradient_error + normal_error)[valid_BHW].mean() / 3


@torch.no_grad()
def has_depth(target_BHW: Tensor | None) -> TypeGuard[Tensor]:
    """Whether a batch of images has any pixel with depth."""
    return target_BHW is not None and bool((target_BHW > 0).any())
