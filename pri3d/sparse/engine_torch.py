"""Sparse convolutions with torch, on CPU and CUDA, in float64, float32 and bf16.

On a CPU, float32 and narrower types are computed by `engine_cpu`. Everything else is plain torch:
for every block of pairs (`kernel_map`), gather the input rows, multiply them by the offset's
matrix, and add the products to the output rows. Autograd keeps only the features and the weights,
none of the gathered rows.

The order of sums is fixed: blocks depend on the cells only, and an output row occurs at most once
per block. (The last bits of torch's matrix products may depend on the number of threads.)
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from pri3d.sparse.coordinates import SparseTensor
from pri3d.sparse.engine_cpu import add_products, add_weight_gradients
from pri3d.sparse.kernel_map import KernelMap, Pairs, kernel_map


def convolve(
    x: SparseTensor,
    kernel_KIO: Float[Tensor, "offsets in_channels out_channels"],
    size: int,
    stride: int = 1,
    dilation: int = 1,
    transposed: bool = False,
) -> Float[Tensor, "n_outputs out_channels"]:
    """Sparse convolution of a tensor: features [n_outputs, O] (see `convolution`).

    Under autocast the products have autocast's type; sums over offsets are formed in float32 or
    float64, and the result has the type of the products.
    """
    arguments = prepare(x, kernel_KIO, size, stride, dilation, transposed)
    return SparseConvolution.apply(*arguments)


def prepare(
    x: SparseTensor,
    kernel_KIO: Float[Tensor, "offsets in_channels out_channels"],
    size: int,
    stride: int,
    dilation: int,
    transposed: bool,
) -> tuple[
    Float[Tensor, "n in_channels"], Float[Tensor, "offsets in_channels out_channels"], KernelMap
]:
    """Features and kernel in the type of the products, and the kernel map."""
    if transposed:
        rows = kernel_map(x.cache, x.stride // stride, size, stride, dilation).transposed()
    else:
        rows = kernel_map(x.cache, x.stride, size, stride, dilation)
    features_NI = x.features
    device = features_NI.device.type
    if torch.is_autocast_enabled(device) and features_NI.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        features_NI, kernel_KIO = features_NI.to(dtype), kernel_KIO.to(dtype)
    return features_NI, kernel_KIO, rows


class SparseConvolution(torch.autograd.Function):
    """(features [N, I], kernel [K, I, O], map) -> features [n_outputs, O]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, rows: KernelMap) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.rows = rows
        with torch.autocast(x.device.type, enabled=False):
            return _forward(x, kernel, rows).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, kernel = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            grad_x, grad_kernel = _backward(
                x, kernel, grad_out.contiguous(), ctx.rows, *ctx.needs_input_grad[:2]
            )
        grad_x = None if grad_x is None else grad_x.to(x.dtype)
        grad_kernel = None if grad_kernel is None else grad_kernel.to(kernel.dtype)
        return grad_x, grad_kernel, None


def _forward(x: Tensor, kernel: Tensor, rows: KernelMap) -> Tensor:
    if rows.identity is None:
        out = x.new_zeros(rows.n_outputs, kernel.shape[2], dtype=_sum_type(x))
    else:
        out = (x @ kernel[rows.identity]).to(_sum_type(x))
    _add_products(x, kernel, rows.pairs(), out)
    return out


def _backward(
    x: Tensor,
    kernel: Tensor,
    grad_out: Tensor,
    rows: KernelMap,
    wants_x: bool,
    wants_kernel: bool,
) -> tuple[Tensor | None, Tensor | None]:
    grad_x = grad_kernel = None
    if wants_x:
        grad_x = _forward(grad_out, kernel.transpose(1, 2), rows.transposed())
    if wants_kernel:
        grad_kernel = torch.zeros_like(kernel, dtype=_sum_type(x))
        if rows.identity is not None:
            grad_kernel[rows.identity] = x.t() @ grad_out
        _add_weight_gradients(x, grad_out, rows.pairs(), grad_kernel)
    return grad_x, grad_kernel


def _add_products(x: Tensor, kernel: Tensor, pairs: Pairs, out: Tensor) -> None:
    """``out[near] += x[far] @ kernel[k]`` for all pairs; out is a new tensor."""
    if _on_cpu(x):
        add_products(x.float().contiguous(), kernel.float().contiguous(), pairs, out)
        return
    for k, start, end in pairs.blocks_B3.tolist():
        product = x.index_select(0, pairs.far[start:end]) @ kernel[k]
        out.index_add_(0, pairs.near[start:end], product.to(out.dtype))


def _add_weight_gradients(x: Tensor, grad: Tensor, pairs: Pairs, grad_kernel: Tensor) -> None:
    """``grad_kernel[k] += x[far].T @ grad[near]`` for all pairs."""
    if _on_cpu(x):
        add_weight_gradients(x.float().contiguous(), grad.float().contiguous(), pairs, grad_kernel)
        return
    for k, start, end in pairs.blocks_B3.tolist():
        x_k, grad_k = (
            rows.index_select(0, positions[start:end])
            for rows, positions in ((x, pairs.far), (grad, pairs.near))
        )
        grad_kernel[k] += x_k.t() @ grad_k


def _on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype != torch.float64


def _sum_type(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
