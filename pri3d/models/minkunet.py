"""The sparse 3D UNets of the MinkUNet family (Choy et al., "4D Spatio-Temporal ConvNets:
Minkowski Convolutional Neural Networks", CVPR 2019).

Parameter names are those of the published networks, so that their weights load; checkpoints of
Pri3D put `backbone3d.` before them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pri3d.config import NAMED_3D, Network3d
from pri3d.sparse.convolution import (
    SparseBatchNorm,
    SparseConv,
    SparseConvTranspose,
    add,
    concatenate,
    relu,
    use_engine,
)
from pri3d.sparse.coordinates import SparseTensor

STEM_CHANNELS = 32
# The modules of a MinkUNet that bring features back to the voxels.
DECODER = (
    "convtr4p16s2",
    "bntr4",
    "block5",
    "convtr5p8s2",
    "bntr5",
    "block6",
    "convtr6p4s2",
    "bntr6",
    "block7",
    "convtr7p2s2",
    "bntr7",
    "block8",
    "final",
)


def minkunet(
    in_channels: int = 3,
    out_channels: int = 96,
    widths: Sequence[int] = NAMED_3D["minkunet34c"]["widths"],
    blocks: Sequence[int] = NAMED_3D["minkunet34c"]["blocks"],
    stem_kernel: int = 5,
    engine: str = "torch",
) -> MinkUNet:
    """A MinkUNet with random weights; the default is Pri3D's MinkUNet34C (37,863,424 parameters).

    Args:
        in_channels: of the voxels.
        out_channels: of the result.
        widths: channels of the four encoder stages (strides 2, 4, 8, 16) and of the four decoder
            stages (strides 8, 4, 2, 1).
        blocks: number of residual blocks of the same stages.
        stem_kernel: 5, or 3 in PointContrast and its relatives.
        engine: see `use_engine`; the weights are the same for all engines.

    Raises:
        ValueError: `widths` or `blocks` does not have eight entries.
        Pri3DError: the engine is not available.
    """
    if len(widths) != 8 or len(blocks) != 8:
        raise ValueError(f"minkunet: {len(widths)} widths and {len(blocks)} blocks; expected 8, 8")
    network = MinkUNet(in_channels, out_channels, widths, blocks, stem_kernel)
    use_engine(network, engine)
    return network


def minkunet_of(shape: Network3d, out_channels: int | None = None) -> MinkUNet:
    """The MinkUNet of the setting `network3d`, for three input channels.

    Args:
        shape: the setting.
        out_channels: of the last layer; default: as in the setting.
    """
    channels = shape.channels if out_channels is None else out_channels
    return minkunet(3, channels, shape.widths, shape.blocks, shape.stem_kernel)


class ResidualBlock(nn.Module):
    """Two 3x3x3 convolutions with a shortcut: a 1x1x1 convolution if the width changes."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = SparseConv(in_channels, channels, 3)
        self.norm1 = SparseBatchNorm(channels)
        self.conv2 = SparseConv(channels, channels, 3)
        self.norm2 = SparseBatchNorm(channels)
        self.downsample = None
        if in_channels != channels:
            self.downsample = nn.Sequential(
                SparseConv(in_channels, channels, 1), SparseBatchNorm(channels)
            )

    def forward(self, x: SparseTensor) -> SparseTensor:
        out = relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return relu(add(out, shortcut))


def stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    """Residual blocks, the first of which changes the width."""
    layers = [ResidualBlock(in_channels if i == 0 else channels, channels) for i in range(blocks)]
    return nn.Sequential(*layers)


class MinkUNet(nn.Module):
    """See `minkunet`. Maps a SparseTensor at stride 1 to one with its rows in the same order."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        stem_kernel: int,
    ) -> None:
        super().__init__()
        w, stem = widths, STEM_CHANNELS
        self.channels = out_channels

        self.conv0p1s1 = SparseConv(in_channels, stem, stem_kernel)
        self.bn0 = SparseBatchNorm(stem)

        self.conv1p1s2 = SparseConv(stem, stem, 2, stride=2)
        self.bn1 = SparseBatchNorm(stem)
        self.block1 = stage(stem, w[0], blocks[0])
        self.conv2p2s2 = SparseConv(w[0], w[0], 2, stride=2)
        self.bn2 = SparseBatchNorm(w[0])
        self.block2 = stage(w[0], w[1], blocks[1])
        self.conv3p4s2 = SparseConv(w[1], w[1], 2, stride=2)
        self.bn3 = SparseBatchNorm(w[1])
        self.block3 = stage(w[1], w[2], blocks[2])
        self.conv4p8s2 = SparseConv(w[2], w[2], 2, stride=2)
        self.bn4 = SparseBatchNorm(w[2])
        self.block4 = stage(w[2], w[3], blocks[3])

        self.convtr4p16s2 = SparseConvTranspose(w[3], w[4], 2, stride=2)
        self.bntr4 = SparseBatchNorm(w[4])
        self.block5 = stage(w[4] + w[2], w[4], blocks[4])
        self.convtr5p8s2 = SparseConvTranspose(w[4], w[5], 2, stride=2)
        self.bntr5 = SparseBatchNorm(w[5])
        self.block6 = stage(w[5] + w[1], w[5], blocks[5])
        self.convtr6p4s2 = SparseConvTranspose(w[5], w[6], 2, stride=2)
        self.bntr6 = SparseBatchNorm(w[6])
        self.block7 = stage(w[6] + w[0], w[6], blocks[6])
        self.convtr7p2s2 = SparseConvTranspose(w[6], w[7], 2, stride=2)
        self.bntr7 = SparseBatchNorm(w[7])
        self.block8 = stage(w[7] + stem, w[7], blocks[7])

        self.final = SparseConv(w[7], out_channels, 1, bias=True)

    def encode(self, x: SparseTensor) -> list[SparseTensor]:
        """Features of the stem at stride 1, and of the stages at strides 2, 4, 8 and 16."""
        at1 = relu(self.bn0(self.conv0p1s1(x)))
        at2 = self.block1(relu(self.bn1(self.conv1p1s2(at1))))
        at4 = self.block2(relu(self.bn2(self.conv2p2s2(at2))))
        at8 = self.block3(relu(self.bn3(self.conv3p4s2(at4))))
        at16 = self.block4(relu(self.bn4(self.conv4p8s2(at8))))
        return [at1, at2, at4, at8, at16]

    def forward(self, x: SparseTensor) -> SparseTensor:
        at1, at2, at4, at8, at16 = self.encode(x)
        out = relu(self.bntr4(self.convtr4p16s2(at16)))
        out = self.block5(concatenate(out, at8))
        out = relu(self.bntr5(self.convtr5p8s2(out)))
        out = self.block6(concatenate(out, at4))
        out = relu(self.bntr6(self.convtr6p4s2(out)))
        out = self.block7(concatenate(out, at2))
        out = relu(self.bntr7(self.convtr7p2s2(out)))
        out = self.block8(concatenate(out, at1))
        return self.final(out)
