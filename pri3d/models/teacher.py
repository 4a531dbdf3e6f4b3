"""Frozen 2D networks as teachers of a 3D network, and the layer that brings their features to the
resolution of the image (PPKT, Liu et al., arXiv 2104.04687).

Shapes: B images, C channels, H x W pixels, h x w cells of the last feature map, N pixels.
"""

from collections.abc import Callable
from typing import Any, Self

import torch
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pri3d.errors import Pri3DError
from pri3d.models.resunet import ENCODERS, encode, resnet_encoder


class Teacher(nn.Module):
    """A frozen network that maps images [B, 3, H, W] to its last feature map [B, channels, h, w].

    It has no gradients, and its batch norm keeps its statistics, also in training.

    Args:
        name: a key of `ENCODERS`; "torchvision:NAME", a classifier, of which the map before its
            global average is taken; or "timm:NAME", of which the output of `forward_features` is
            taken, with the tokens of a vision transformer at the positions of their patches.
        shape: height and width of the images.

    Raises:
        Pri3DError: there is no such network, or it has no feature map for images of this size.
    """

    def __init__(self, name: str, shape: tuple[int, int] = (240, 320)) -> None:
        super().__init__()
        kind, _, inner = name.rpartition(":")
        self.kind = kind
        if kind == "timm":
            self.network, self.channels = _of_timm(inner, shape)
        elif kind == "torchvision":
            self.network, self.channels = _of_torchvision(inner, shape)
        else:
            self.network, self.channels = resnet_encoder(name), ENCODERS[name].channels[-1]
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Keep the network in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image_BCHW: Tensor) -> Tensor:
        image_BCHW = image_BCHW.contiguous(memory_format=torch.channels_last)
        if self.kind == "timm":
            return _timm_map(self.network, image_BCHW)
        if self.kind == "torchvision":
            return _last_map(self.network, image_BCHW)
        return encode(self.network, image_BCHW)[-1]


def _of_timm(name: str, shape: tuple[int, int]) -> tuple[nn.Module, int]:
    try:
        import timm
    except ImportError:
        raise Pri3DError(
            f"pretrain.teacher: timm:{name} needs timm; pip install 'pri3d[timm]'"
        ) from None
    # Options for images of any size: of networks with windows and with tokens; others need none.
    options: list[dict[str, Any]] = [{"strict_img_size": False}, {"dynamic_img_size": True}, {}]
    while True:
        try:
            network = timm.create_model(name, pretrained=False, **options.pop(0))
            break
        except TypeError:  # the network does not have this option
            if not options:
                raise
        except RuntimeError as error:
            raise Pri3DError(f"pretrain.teacher: timm: {error}; choose another network") from None
    return network, _channels(f"timm:{name}", network, _timm_map, shape)


# Attributes of timm's networks, which are not part of nn.Module, make this Any.
def _timm_map(network: Any, image_BCHW: Tensor) -> Tensor:
    map_BChw: Tensor = network.forward_features(image_BCHW)
    if map_BChw.ndim == 4 and getattr(network, "output_fmt", "NCHW") == "NHWC":
        map_BChw = map_BChw.permute(0, 3, 1, 2)
    if map_BChw.ndim == 3 and hasattr(network, "num_prefix_tokens"):
        tokens_BNC = map_BChw[:, network.num_prefix_tokens :]
        shape = network.patch_embed.dynamic_feat_size(image_BCHW.shape[2:])
        map_BChw = tokens_BNC.transpose(1, 2).unflatten(2, shape)
    return map_BChw


def _of_torchvision(name: str, shape: tuple[int, int]) -> tuple[nn.Module, int]:
    if name not in torchvision.models.list_models(torchvision.models):
        raise Pri3DError(
            f"pretrain.teacher: torchvision has no classifier {name}; choose one of "
            "torchvision.models.list_models(torchvision.models)"
        )
    network = torchvision.models.get_model(name, weights=None)
    return network, _channels(f"torchvision:{name}", network, _last_map, shape)


def _channels(
    name: str,
    network: nn.Module,
    map_of: Callable[[nn.Module, Tensor], Tensor],
    shape: tuple[int, int],
) -> int:
    """The number of channels of a network's map, found by a forward pass."""
    try:
        with torch.no_grad():
            map_BChw = map_of(network.eval(), torch.zeros(1, 3, *shape))
    except Exception as error:  # its type depends on the network
        raise Pri3DError(
            f"pretrain.teacher: {name} fails on images of {shape[0]} x {shape[1]} pixels "
            f"({error}); choose another network, or another pretrain.height and width"
        ) from None
    if map_BChw.ndim != 4:
        raise Pri3DError(
            f"pretrain.teacher: {name} has no feature map, but features of the shape "
            f"{list(map_BChw.shape)}; choose a convolutional network"
        )
    return map_BChw.shape[1]


class _LastAveraged(TorchFunctionMode):
    """Keeps the last map that is averaged: the classifier averages after all other layers."""

    map_BChw: Tensor | None = None

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        over_cells = function is Tensor.mean and [*args[1:], *kwargs.values()][:1] == [[2, 3]]
        if function is nn.functional.adaptive_avg_pool2d or over_cells:
            self.map_BChw = args[0]
        return function(*args, **kwargs)


def _last_map(network: nn.Module, image_BCHW: Tensor) -> Tensor:
    with _LastAveraged() as last:
        classes_BC: Tensor = network(image_BCHW)
    return classes_BC if last.map_BChw is None else last.map_BChw


class UpsamplingProjection(nn.Module):
    """PPKT's upsampling feature projection: a 1x1 convolution, then bilinear upsampling.

    The map is upsampled to the size of the image with aligned corners. Convolution and
    interpolation commute, so only the requested pixels are interpolated.

    Args:
        channels: of the map.
        projection_channels: of the result.
    """

    def __init__(self, channels: int, projection_channels: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels, projection_channels, 1)

    def forward(
        self, map_BChw: Tensor, pixel_N: Tensor, counts: list[int], shape: tuple[int, int]
    ) -> Tensor:
        """Interpolate the projected map at pixels.

        Args:
            map_BChw: the last feature map.
            pixel_N: pixels numbered through the batch, image * H * W + row * W + column; the pixels
                of one image after those of the previous one.
            counts: number of pixels of each image.
            shape: height H and width W of the images.

        Returns:
            Features [N, projection_channels].
        """
        height, width = shape
        projected_BChw = self.projection(map_BChw)
        rows = []
        for i, pixel_n in enumerate(pixel_N.split(counts)):
            pixel_n = pixel_n - i * height * width
            row = torch.div(pixel_n, width, rounding_mode="floor")
            # In grid_sample, -1 and 1 are the centers of the first and of the last cell.
            y = row.to(map_BChw.dtype) * (2 / (height - 1)) - 1
            x = (pixel_n - row * width).to(map_BChw.dtype) * (2 / (width - 1)) - 1
            grid_1n2 = torch.stack([x, y], dim=-1)[None, None]
            sampled = nn.functional.grid_sample(
                projected_BChw[i : i + 1], grid_1n2, mode="bilinear", align_corners=True
            )
            rows.append(sampled[0, :, 0].t())
        return torch.cat(rows) if rows else projected_BChw.new_zeros(0, projected_BChw.shape[1])
