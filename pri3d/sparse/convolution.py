"""Layers on sparse tensors, with parameter names and shapes as in MinkowskiEngine.

Weights are `kernel` [size**3, in, out], or [in, out] for a kernel of size and stride 1; `bias` is
[1, out]. The parameters of a batch norm are one level deeper, under `bn`.

A layer computes its convolution with its attribute `convolve`, a function of an engine module:

    convolve(x, kernel_KIO, size, stride=1, dilation=1, transposed=False) -> features

The features belong to the output cells, at `x.stride * stride`, or `x.stride // stride` if
transposed, in the order of rows of that level in `x.cache.levels`. Weights are the same for all
engines.
"""

from __future__ import annotations

import logging
import math
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pri3d.errors import Pri3DError
from pri3d.sparse.coordinates import SparseTensor
from pri3d.sparse.engine_torch import convolve

log = logging.getLogger(__name__)


class Convolve(Protocol):
    """The function of an engine that computes a convolution."""

    def __call__(
        self,
        x: SparseTensor,
        kernel_KIO: Tensor,
        size: int,
        stride: int = 1,
        dilation: int = 1,
        transposed: bool = False,
    ) -> Tensor: ...


class SparseConv(nn.Module):
    """Sparse convolution; with stride s, the output cells are on the s times coarser grid.

    A kernel of size 1 and stride 1 acts on each row independently. Weights are drawn from a normal
    distribution with variance 2 / (size**3 * out_channels) (He et al. 2015, fan out); biases are 0.
    """

    convolve: Convolve
    bias: nn.Parameter | None

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
        shape: tuple[int, ...] = (in_channels, out_channels)
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
    """Transposed sparse convolution, back to the `stride` times finer cells of the tensor's cache.

    Weights are initialized as in `SparseConv`. The forward pass raises ValueError if the cache has
    no cells at the finer stride.
    """

    convolve: Convolve
    bias: nn.Parameter | None

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
    """The name of the engine for a device.

    Args:
        setting: `sparse.engine` of the settings. "auto" selects "triton" on a GPU if Triton works
            there (otherwise "torch", with a warning), and "torch" on a CPU.
        device: where the network is.
    """
    if setting != "auto":
        return setting
    if device.type != "cuda":
        return "torch"
    try:
        from pri3d.sparse.engine_triton import check  # imports Triton

        check(device)
    except Pri3DError as error:
        log.warning("%s; using torch, which is several times slower", error)
        return "torch"
    return "triton"


def use_engine(network: nn.Module, engine: str) -> None:
    """Set the engine of all sparse convolutions of a network.

    Args:
        network: its layers are changed in place.
        engine: "torch", "triton" or "minkowski" (see `engine_for`).

    Raises:
        Pri3DError: Triton or MinkowskiEngine is requested and not installed.
    """
    function: Convolve = convolve
    if engine == "minkowski":
        from pri3d.sparse.engine_minkowski import convolve as minkowski_convolve

        function = minkowski_convolve
    elif engine == "triton":
        from pri3d.sparse.engine_triton import convolve as triton_convolve

        function = triton_convolve
    for layer in network.modules():
        if isinstance(layer, SparseConv | SparseConvTranspose):
            layer.convolve = function


class SparseBatchNorm(nn.Module):
    """Batch normalization over all rows of a batch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(channels)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_features(self.bn(x.features))


def relu(x: SparseTensor) -> SparseTensor:
    """Rectify the features in place; no layer here needs the overwritten values."""
    return x.with_features(nn.functional.relu(x.features, inplace=True))


def add(x: SparseTensor, y: SparseTensor) -> SparseTensor:
    """Sum of two tensors on the same cells."""
    return x.with_features(x.features + y.features)


def concatenate(x: SparseTensor, y: SparseTensor) -> SparseTensor:
    """Concatenate the channels of two tensors on the same cells, x first."""
    return x.with_features(torch.cat([x.features, y.features], dim=1))


def _plus_bias(
    features_NC: Float[Tensor, "n channels"], bias: Float[Tensor, "1 channels"] | None
) -> Float[Tensor, "n channels"]:
    return features_NC if bias is None else features_NC + bias
