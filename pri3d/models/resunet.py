"""The 2D network of Pri3D (Hou et al., "Pri3D: Can 3D Priors Help 2D Representation Learning?",
ICCV 2021): a ResNet encoder and a decoder of up-projections (Laina et al., "Deeper Depth
Prediction with Fully Convolutional Residual Networks", 3DV 2016) with additive skips.

Shapes: B images, C channels, H x W pixels. Parameter names are those of the published weights,
whose checkpoints put `backbone.` before them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models.resnet import BasicBlock

from pri3d.errors import Pri3DError

# name: (torchvision model, its weights, channels at strides 4, 8, 16, 32)
ENCODERS = {
    "resnet18": ("ResNet18_Weights", (64, 128, 256, 512)),
    "resnet34": ("ResNet34_Weights", (64, 128, 256, 512)),
    "resnet50": ("ResNet50_Weights", (256, 512, 1024, 2048)),
    "resnet18_half": (None, (32, 64, 128, 256)),
}


def resunet(name: str) -> ResUNet:
    """A ResNet UNet: `resnet18`, `resnet34`, `resnet50` or `resnet18_half`, with random weights.

    Raises ValueError for another name.
    """
    encoder = resnet_encoder(name)
    return ResUNet(encoder, ENCODERS[name][1])


def resnet_encoder(name: str, dilated: bool = False, **options: Any) -> nn.Module:
    """torchvision's ResNet without its classifier, or the half-width one.

    dilated: the last two stages keep stride 8 and look further instead, as DeepLab has it; only
    ResNet-50 can, the others stay as they are. options: torchvision's (`norm_layer`).
    """
    if name not in ENCODERS:
        raise ValueError(f"resunet: no encoder {name!r}; there are {', '.join(ENCODERS)}")
    if ENCODERS[name][0] is None:
        return NarrowResNet(ENCODERS[name][1], **options)
    if dilated and name == "resnet50":
        options["replace_stride_with_dilation"] = [False, True, True]
    encoder = getattr(torchvision.models, name)(weights=None, **options)
    del encoder.fc, encoder.avgpool
    return encoder


def stem(encoder: nn.Module, x_BCHW: Tensor) -> Tensor:
    """What an encoder does before its first stage: [B, C, H / 4, W / 4]."""
    return encoder.maxpool(encoder.relu(encoder.bn1(encoder.conv1(x_BCHW))))


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights (IMAGENET1K_V1) of an encoder, without the classifier.

    They are downloaded into torch's cache on first use. Raises Pri3DError when they cannot be, or
    there are none.
    """
    if ENCODERS[name][0] is None:
        raise Pri3DError(
            f"there are no ImageNet weights of {name}; take another encoder (network2d), or start at "
            "random"
        )
    weights = getattr(torchvision.models, ENCODERS[name][0]).IMAGENET1K_V1
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # of the download, or of a damaged file
        raise Pri3DError(
            f"the ImageNet weights of {name} cannot be fetched ({error}); put "
            f"{weights.url.rpartition('/')[2]} into {torch.hub.get_dir()}/checkpoints, or start at "
            "random (initial_weights_2d, init) or from a file"
        ) from None
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


class NarrowResNet(nn.Module):
    """A ResNet-18 of other widths, with torchvision's blocks, names and initial weights.

    For CPUs; torchvision's own has its widths built in.
    """

    def __init__(
        self, channels: tuple[int, int, int, int], norm_layer: Callable = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = norm_layer(channels[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        before = channels[0]
        for stage, width in enumerate(channels, 1):
            stride = 1 if stage == 1 else 2
            shortcut = None
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
    """See `resunet`. Images [B, 3, H, W] to features [B, channels, H/2, W/2].

    `channels` is 32 with ResNet-18 and -34, 128 with ResNet-50, 16 with the half one. Sides may be
    any number of pixels; the result is twice the size of the encoder's map at stride 4.
    """

    def __init__(self, encoder: nn.Module, encoder_channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = Decoder(encoder_channels)
        self.channels = encoder_channels[0] // 2

    def forward(self, x_BCHW: Tensor) -> Tensor:
        encoder = self.encoder
        at4 = encoder.layer1(stem(encoder, x_BCHW))
        at8 = encoder.layer2(at4)
        at16 = encoder.layer3(at8)
        at32 = encoder.layer4(at16)
        return self.decoder(at4, at8, at16, at32)


class Decoder(nn.Module):
    """Four up-projections, each halving the channels; the last one ends at stride 2."""

    def __init__(self, encoder_channels: tuple[int, int, int, int]) -> None:
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
        x = self.up4(x, (2 * height, 2 * width))
        return self.conv0(x)


class UpProjection(nn.Module):
    """Bilinear up-sampling followed by a residual block of 5x5 and 3x3 convolutions."""

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
