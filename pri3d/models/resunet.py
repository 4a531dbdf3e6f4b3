"""The 2D network of Pri3D (Hou et al., "Pri3D: Can 3D Priors Help 2D Representation Learning?",
ICCV 2021): a ResNet encoder and a decoder of up-projections (Laina et al., "Deeper Depth
Prediction with Fully Convolutional Residual Networks", 3DV 2016) with additive skips.

Shapes: B images, C channels, H x W pixels. Parameter names are those of the published weights,
whose checkpoints put `backbone.` before them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models.resnet import BasicBlock

from pri3d.errors import Pri3DError

Channels = tuple[int, int, int, int]  # at strides 4, 8, 16 and 32


class Encoder(NamedTuple):
    """The name of its ImageNet weights in torchvision, if there are any, and its channels."""

    imagenet: str | None
    channels: Channels


# Names are torchvision's, except for the half-width one.
ENCODERS: dict[str, Encoder] = {
    "resnet18": Encoder("ResNet18_Weights", (64, 128, 256, 512)),
    "resnet34": Encoder("ResNet34_Weights", (64, 128, 256, 512)),
    "resnet50": Encoder("ResNet50_Weights", (256, 512, 1024, 2048)),
    "resnet18_half": Encoder(None, (32, 64, 128, 256)),
}


def resunet(name: str) -> ResUNet:
    """A ResNet UNet with random weights.

    Args:
        name: of its encoder, a key of ENCODERS.

    Raises:
        ValueError: there is no such encoder.
    """
    encoder = resnet_encoder(name)
    return ResUNet(encoder, ENCODERS[name].channels)


def resnet_encoder(name: str, dilated: bool = False, **options: Any) -> nn.Module:
    """torchvision's ResNet without its classifier, or a ResNet-18 of half the width.

    Args:
        name: a key of ENCODERS.
        dilated: the last two stages keep stride 8 and use dilated convolutions, as in DeepLab. Only
            ResNet-50 supports it; the others are not changed.
        options: of torchvision (`norm_layer`).

    Raises:
        ValueError: there is no such encoder.
    """
    if name not in ENCODERS:
        raise ValueError(f"resunet: no encoder {name!r}; choose one of {', '.join(ENCODERS)}")
    if ENCODERS[name].imagenet is None:
        return NarrowResNet(ENCODERS[name].channels, **options)
    if dilated and name == "resnet50":
        options["replace_stride_with_dilation"] = [False, True, True]
    encoder: nn.Module = getattr(torchvision.models, name)(weights=None, **options)
    del encoder.fc, encoder.avgpool
    return encoder


def encode(encoder: nn.Module, x_BCHW: Tensor, stages: int = 4) -> list[Tensor]:
    """The feature maps of an encoder.

    Args:
        encoder: made by `resnet_encoder`.
        x_BCHW: images.
        stages: number of stages to run.

    Returns:
        The output of each stage, [B, C, H / s, W / s], at the strides s = 4, 8, 16 and 32 (with a
        dilated encoder 4, 8, 8 and 8).
    """
    parts = dict(encoder.named_children())
    x_BCHW = parts["maxpool"](parts["relu"](parts["bn1"](parts["conv1"](x_BCHW))))
    maps = []
    for stage in range(1, stages + 1):
        x_BCHW = parts[f"layer{stage}"](x_BCHW)
        maps.append(x_BCHW)
    return maps


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights (IMAGENET1K_V1) of an encoder, without the classifier.

    They are downloaded into torch's cache on first use.

    Args:
        name: a key of ENCODERS.

    Raises:
        Pri3DError: the encoder has no such weights, or they cannot be downloaded.
    """
    imagenet = ENCODERS[name].imagenet
    if imagenet is None:
        raise Pri3DError(
            f"there are no ImageNet weights of {name}; choose another encoder (network2d) or "
            "random initial weights"
        )
    weights = getattr(torchvision.models, imagenet).IMAGENET1K_V1
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # the download fails, or the file is damaged
        raise Pri3DError(
            f"the ImageNet weights of {name} cannot be downloaded ({error}); put "
            f"{weights.url.rpartition('/')[2]} into {torch.hub.get_dir()}/checkpoints, or set "
            "other initial weights (random, or a file)"
        ) from None
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


class NarrowResNet(nn.Module):
    """A ResNet-18 of other widths, with torchvision's blocks, names and initialization, for CPUs.

    torchvision's own ResNet-18 has fixed widths.

    Args:
        channels: of the four stages.
        norm_layer: number of channels -> normalization layer.
    """

    def __init__(
        self, channels: Channels, norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = norm_layer(channels[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        before = channels[0]
        for stage, width in enumerate(channels, 1):
            stride = 1 if stage == 1 else 2
            shortcut: nn.Module | None = None
            if stride > 1:
                shortcut = nn.Sequential(
                    nn.Conv2d(before, width, 1, stride, bias=False), norm_layer(width)
                )
            first = BasicBlock(before, width, stride, shortcut, norm_layer=norm_layer)
            second = BasicBlock(width, width, norm_layer=norm_layer)
            self.add_module(f"layer{stage}", nn.Sequential(first, second))
            before = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ResUNet(nn.Module):
    """See `resunet`. Maps images [B, 3, H, W] to features [B, channels, H/2, W/2].

    `channels` is 32 with ResNet-18 and -34, 128 with ResNet-50, and 16 with half the width. Images
    may have any size; the result is twice the size of the encoder's map at stride 4.
    """

    def __init__(self, encoder: nn.Module, encoder_channels: Channels) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = Decoder(encoder_channels)
        self.channels = encoder_channels[0] // 2

    def forward(self, x_BCHW: Tensor) -> Tensor:
        at4, at8, at16, at32 = encode(self.encoder, x_BCHW)
        features: Tensor = self.decoder(at4, at8, at16, at32)
        return features


class Decoder(nn.Module):
    """Four up-projections, each halving the channels; the last one ends at stride 2."""

    def __init__(self, encoder_channels: Channels) -> None:
        super().__init__()
        c4, c8, c16, c32 = encoder_channels
        self.up1 = UpProjection(c32, c16)
        self.up2 = UpProjection(c16, c8)
        self.up3 = UpProjection(c8, c4)
        self.up4 = UpProjection(c4, c4 // 2)
        self.conv0 = nn.Conv2d(c4 // 2, c4 // 2, 1)

    def forward(self, at4: Tensor, at8: Tensor, at16: Tensor, at32: Tensor) -> Tensor:
        x = self.up1(at32, at16.shape[-2:]) + at16
        x = self.up2(x, at8.shape[-2:]) + at8
        x = self.up3(x, at4.shape[-2:]) + at4
        height, width = at4.shape[-2:]
        x = self.conv0(self.up4(x, (2 * height, 2 * width)))
        return x


class UpProjection(nn.Module):
    """Bilinear upsampling followed by a residual block of 5x5 and 3x3 convolutions."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 5, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv1_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn1_2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(in_channels, out_channels, 5, padding=2, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
        branch1 = nn.functional.relu(self.bn1(self.conv1(x)), inplace=True)
        branch1 = self.bn1_2(self.conv1_2(branch1))
        branch2 = self.bn2(self.conv2(x))
        return nn.functional.relu(branch1 + branch2, inplace=True)
