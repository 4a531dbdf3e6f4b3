"""Frozen 2D networks that a 3D network learns from, and the layer that brings their features to
the resolution of pixels (PPKT, Liu et al., arXiv 2104.04687).

Shapes: B images, C channels, H x W pixels, h x w places of the last feature map, N pixels.
"""

from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pri3d.errors import Pri3DError
from pri3d.models.resunet import ENCODERS, resnet_encoder, stem


class Teacher(nn.Module):
    """A frozen network: images [B, 3, H, W] to its last feature map [B, channels, h, w].

    name: an encoder of `ENCODERS`, "torchvision:NAME" (a classifier that ends in an average over a
    map, which is taken) or "timm:NAME" (what its `forward_features` gives; the tokens of a vision
    transformer are put back to where their patches are). shape: height and width of the images. It
    has no gradient, and its batch norm keeps its statistics in training too. Raises Pri3DError
    where there is no such network, or it makes no map of such images.
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
            self.network, self.channels = resnet_encoder(name), ENCODERS[name][1][-1]
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> nn.Module:
        """Stays as it is: a teacher does not learn."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image_BCHW: Tensor) -> Tensor:
        image_BCHW = image_BCHW.contiguous(memory_format=torch.channels_last)
        if self.kind == "timm":
            return _timm_map(self.network, image_BCHW)
        if self.kind == "torchvision":
            return _last_map(self.network, image_BCHW)
        x = stem(self.network, image_BCHW)
        for stage in range(1, 5):
            x = self.network.get_submodule(f"layer{stage}")(x)
        return x


def _of_timm(name: str, shape: tuple[int, int]) -> tuple[nn.Module, int]:
    try:
        import timm
    except ImportError:
        raise Pri3DError(
            f"pretrain.teacher: timm:{name} needs timm; pip install 'pri3d[timm]'"
        ) from None
    network = None
    # For images of any size: networks with windows, with tokens; others are so anyway.
    for how in ({"strict_img_size": False}, {"dynamic_img_size": True}, {}):
        try:
            network = timm.create_model(name, pretrained=False, **how)
            break
        except TypeError:  # is no word of this network
            continue
        except RuntimeError as error:
            raise Pri3DError(f"pretrain.teacher: timm: {error}; take another") from None
    return network, _channels(f"timm:{name}", network, _timm_map, shape)


def _timm_map(network: nn.Module, image_BCHW: Tensor) -> Tensor:
    map_BChw = network.forward_features(image_BCHW)
    if map_BChw.ndim == 4 and getattr(network, "output_fmt", "NCHW") == "NHWC":
        map_BChw = map_BChw.permute(0, 3, 1, 2)
    if map_BChw.ndim == 3 and hasattr(network, "num_prefix_tokens"):
        tokens_BNC = map_BChw[:, network.num_prefix_tokens :]
        places = network.patch_embed.dynamic_feat_size(image_BCHW.shape[2:])
        map_BChw = tokens_BNC.transpose(1, 2).unflatten(2, places)
    return map_BChw


def _of_torchvision(name: str, shape: tuple[int, int]) -> tuple[nn.Module, int]:
    if name not in torchvision.models.list_models(torchvision.models):
        raise Pri3DError(
            f"pretrain.teacher: torchvision has no classifier {name}; take one of "
            "torchvision.models.list_models(torchvision.models)"
        )
    network = torchvision.models.get_model(name, weights=None)
    return network, _channels(f"torchvision:{name}", network, _last_map, shape)


def _channels(name: str, network: nn.Module, map_of: Callable, shape: tuple[int, int]) -> int:
    """Of the map that a network makes, told by trying."""
    try:
        with torch.no_grad():
            map_BChw = map_of(network.eval(), torch.zeros(1, 3, *shape))
    except Exception as error:  # what they raise depends on the network
        raise Pri3DError(
            f"pretrain.teacher: {name} makes no map of an image of {shape[0]} x {shape[1]} pixels "
            f"({error}); take another, or another pretrain.height and width"
        ) from None
    if map_BChw.ndim != 4:
        raise Pri3DError(
            f"pretrain.teacher: {name} has no map of its features, but {list(map_BChw.shape)}; "
            "take a network with convolutions"
        )
    return map_BChw.shape[1]


class _LastAveraged(TorchFunctionMode):
    """Notes the map that was averaged last: the classifier's, for averages within come before."""

    map_BChw: Tensor | None = None

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        over_places = function is Tensor.mean and [*args[1:], *kwargs.values()][:1] == [[2, 3]]
        if function is nn.functional.adaptive_avg_pool2d or over_places:
            self.map_BChw = args[0]
        return function(*args, **kwargs)


def _last_map(network: nn.Module, image_BCHW: Tensor) -> Tensor:
    with _LastAveraged() as seen:
        classes_BC = network(image_BCHW)
    return classes_BC if seen.map_BChw is None else seen.map_BChw


class UpsamplingProjection(nn.Module):
    """PPKT's upsampling feature projection layer: a 1x1 convolution, then bilinear upsampling to
    the size of the image (corners on corners).

    Convolutions and interpolation commute, and only the asked pixels are interpolated.
    """

    def __init__(self, channels: int, projection_channels: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels, projection_channels, 1)

    def forward(
        self, map_BChw: Tensor, pixel_N: Tensor, counts: list[int], shape: tuple[int, int]
    ) -> Tensor:
        """Features [N, projection_channels] of pixels, which are numbered through the batch: image * H * W +
        row * W + column. counts: pixels asked of each image, one after another; shape: (H, W).
        """
        height, width = shape
        projected_BChw = self.projection(map_BChw)
        rows = []
        for i, pixel_n in enumerate(pixel_N.split(counts)):
            place = pixel_n - i * height * width
            row = torch.div(place, width, rounding_mode="floor")
            # grid_sample's -1 and 1 are the centres of the first and of the last place.
            y = row.to(map_BChw.dtype) * (2 / (height - 1)) - 1
            x = (place - row * width).to(map_BChw.dtype) * (2 / (width - 1)) - 1
            grid_1n2 = torch.stack([x, y], dim=-1)[None, None]
            sampled = nn.functional.grid_sample(
                projected_BChw[i : i + 1], grid_1n2, mode="bilinear", align_corners=True
            )
            rows.append(sampled[0, :, 0].t())
        return torch.cat(rows) if rows else projected_BChw.new_zeros(0, projected_BChw.shape[1])
