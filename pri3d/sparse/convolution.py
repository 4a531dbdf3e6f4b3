"""Layers on sparse tensors, with parameter names and shapes as in MinkowskiEngine.

Weights are `kernel` [size**3, in, out], or [in, out] for a kernel of size and stride 1; `bias` is
[1, out]. The parameters of a batch norm lie one level deeper, under `bn`.

What computes a convolution is its layer's `convolve`, a function of an engine module:

    convolve(x, kernel_KIO, size, stride=1, dilation=1, transposed=False) -> features

on the cells that the output has, at `x.stride * stride`, or `x.stride // stride` if transposed, in
the order of rows of `x.cache.levels` there. Weights are the same for all engines.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor, nn

from pri3d.errors import Pri3DError
from pri3d.sparse.coordinates import SparseTensor
from pri3d.sparse.engine_torch import convolve


class SparseConv(nn.Module):
    """Convolution of cells; with `stride` s the output lies on the s times coarser grid.

    A kernel of size 1 and stride 1 acts on every row by itself. Weights are drawn from a normal
    distribution with variance 2 / (size**3 * out_channels) (He et al. 2015, fan out); biases are 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.convolve = convolve
        self.kernel_size, self.stride, self.dilation = kernel_size, stride, dilation
        shape = (in_channels, out_channels)
        if kernel_size > 1 or stride > 1:
            shape = (kernel_size**3, *shape)
        self.kernel = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(1, out_channels)) if bias else None
        nn.init.normal_(self.kernel, std=math.sqrt(2 / (kernel_size**3 * out_channels)))

    def forward(self, x: SparseTensor) -> SparseTensor:
        if self.kernel.ndim == 2:
            return x.with_features(_plus_bias(x.features @ self.kernel, self.bias))
        out = self.convolve(x, self.kernel, self.kernel_size, self.stride, self.dilation)
        return x.at_stride(x.stride * self.stride, _plus_bias(out, self.bias))


class SparseConvTranspose(nn.Module):
    """Transposed convolution, back to the `stride` times finer cells that the tensor came from.

    Raises ValueError if the tensor's cache has no cells at that stride. Initialised as SparseConv.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.convolve = convolve
        self.kernel_size, self.stride = kernel_size, stride
        self.kernel = nn.Parameter(torch.empty(kernel_size**3, in_channels, out_channels))
        self.bias = nn.Parameter(torch.zeros(1, out_channels)) if bias else None
        nn.init.normal_(self.kernel, std=math.sqrt(2 / (kernel_size**3 * out_channels)))

    def forward(self, x: SparseTensor) -> SparseTensor:
        fine = x.stride // self.stride
        if x.stride % self.stride or fine not in x.cache.levels:
            raise ValueError(
                f"transposed convolution: a tensor at stride {x.stride} did not come from cells at "
                f"stride {x.stride}/{self.stride}"
            )
        out = self.convolve(x, self.kernel, self.kernel_size, self.stride, transposed=True)
        return x.at_stride(fine, _plus_bias(out, self.bias))


def engine_for(setting: str, device: torch.device) -> str:
    """The engine that setting `sparse.engine` means on a device: `auto` is "triton" on a GPU, else
    "torch". Where Triton does not run on the GPU it says so, and is "torch".
    """
    if setting != "auto":
        return setting
    if device.type != "cuda":
        return "torch"
    try:
        # Imported only where it is wanted: it needs Triton.
        from pri3d.sparse.engine_triton import check

        check(device)
    except Pri3DError as error:
        print(f"{error}; goes on with torch, several times slower", file=sys.stderr)
        return "torch"
    return "triton"


def use_engine(network: nn.Module, engine: str) -> None:
    """Have all sparse convolutions of a network computed by an engine.

    engine: "torch", "triton" or "minkowski" (see `engine_for`). Raises Pri3DError where Triton or
    MinkowskiEngine is asked for and not installed.
    """
    chosen = convolve
    if engine == "minkowski":
        # Imported only where it is wanted: it needs MinkowskiEngine.
        from pri3d.sparse.engine_minkowski import convolve as chosen
    elif engine == "triton":
        # Imported only where it is wanted: it needs Triton.
        from pri3d.sparse.engine_triton import convolve as chosen
    for layer in network.modules():
        if isinstance(layer, SparseConv | SparseConvTranspose):
            layer.convolve = chosen


class SparseBatchNorm(nn.Module):
    """Batch norm over all rows of a batch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(channels)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_features(self.bn(x.features))


def relu(x: SparseTensor) -> SparseTensor:
    """Rectify the features, in place: no layer here needs what it overwrites."""
    return x.with_features(nn.functional.relu(x.features, inplace=True))


def add(x: SparseTensor, y: SparseTensor) -> SparseTensor:
    """The sum of two tensors on the same cells."""
    return x.with_features(x.features + y.features)


def concatenate(x: SparseTensor, y: SparseTensor) -> SparseTensor:
    """The channels of two tensors on the same cells, x first."""
    return x.with_features(torch.cat([x.features, y.features], dim=1))


def _plus_bias(features_NC: Tensor, bias: Tensor | None) -> Tensor:
    return features_NC if bias is None else features_NC + bias
