"""The arithmetic of sparse convolutions, in plain torch: CPU and CUDA; float64, float32, bf16.

Pairs of input and output rows are worked off in blocks (`kernel_map`): gather the input rows of
some offsets, multiply those of each offset by its matrix, add all products to the output rows. The
matrix products are the cost; everything else is kept small beside them. Autograd keeps the
features and the weights only, none of the gathered rows.

Blocks depend on the cells alone, and an output row takes its products in their order. On CUDA a
block has one offset, under which a row occurs at most once. So the order of sums is fixed. (The
matrix products themselves are the library's; their last bits may depend on the number of threads.)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pri3d.sparse.coordinates import SparseTensor
from pri3d.sparse.kernel_map import KernelMap, kernel_map


def convolve(
    x: SparseTensor,
    kernel_KIO: Tensor,
    size: int,
    stride: int = 1,
    dilation: int = 1,
    transposed: bool = False,
) -> Tensor:
    """Sparse convolution of a tensor: features [n_outputs, O] (see `convolution`).

    Under autocast the products run in autocast's type; sums over offsets are always formed in
    float32 or better, and the result has the type of the products.
    """
    if transposed:
        rows = kernel_map(x.cache, x.stride // stride, size, stride, dilation).transposed()
    else:
        rows = kernel_map(x.cache, x.stride, size, stride, dilation)
    features_NI = x.features
    device = features_NI.device.type
    if torch.is_autocast_enabled(device) and features_NI.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        features_NI, kernel_KIO = features_NI.to(dtype), kernel_KIO.to(dtype)
    return _SparseConvolution.apply(features_NI, kernel_KIO, rows)


class _SparseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, kernel: Tensor, rows: KernelMap) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.rows = rows
        with torch.autocast(x.device.type, enabled=False):
            return _forward(x, kernel, rows).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out: Tensor):
        x, kernel = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            grad_x, grad_kernel = _backward(
                x, kernel, grad_out.contiguous(), ctx.rows, *ctx.needs_input_grad[:2]
            )
        grad_x = None if grad_x is None else grad_x.to(x.dtype)
        grad_kernel = None if grad_kernel is None else grad_kernel.to(kernel.dtype)
        return grad_x, grad_kernel, None


def _forward(x: Tensor, kernel: Tensor, rows: KernelMap) -> Tensor:
    weights = kernel.unbind(0)
    if rows.identity is None:
        out = x.new_zeros(rows.n_outputs, kernel.shape[2], dtype=_sum_type(x))
    else:
        out = (x @ weights[rows.identity]).to(_sum_type(x))
    blocks = rows.blocks()
    # Buffers are made once: allocating them anew for every block costs more than the gathering.
    longest = max((len(block.near) for block in blocks), default=0)
    gathered, product = x.new_empty(longest, x.shape[1]), x.new_empty(longest, kernel.shape[2])
    for block in blocks:
        n = len(block.near)
        torch.index_select(x, 0, block.far, out=gathered[:n])
        parts = zip(
            block.offsets, gathered[:n].split(block.counts), product[:n].split(block.counts)
        )
        for k, x_k, product_k in parts:
            torch.mm(x_k, weights[k], out=product_k)
        out.index_add_(0, block.near.long(), product[:n].to(out.dtype))
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
    weights = kernel.transpose(1, 2).unbind(0)
    if wants_kernel:
        grad_kernel = torch.zeros_like(kernel, dtype=_sum_type(x))
        if rows.identity is not None:
            grad_kernel[rows.identity] = x.t() @ grad_out
    if wants_x and rows.identity is not None:
        grad_x = (grad_out @ weights[rows.identity]).to(_sum_type(x))
    elif wants_x:
        grad_x = torch.zeros_like(x, dtype=_sum_type(x))

    blocks = rows.transposed().blocks()
    longest = max((len(block.near) for block in blocks), default=0)
    gathered_grad = x.new_empty(longest, kernel.shape[2])
    gathered_x = x.new_empty(longest if wants_kernel else 0, x.shape[1])
    product = x.new_empty(longest if wants_x else 0, x.shape[1])
    for block in blocks:
        n = len(block.near)
        torch.index_select(grad_out, 0, block.far, out=gathered_grad[:n])
        grad_K = gathered_grad[:n].split(block.counts)
        if wants_kernel:
            torch.index_select(x, 0, block.near, out=gathered_x[:n])
            for k, x_k, grad_k in zip(block.offsets, gathered_x[:n].split(block.counts), grad_K):
                _add_product(grad_kernel[k], x_k.t(), grad_k)
        if wants_x:
            for k, grad_k, product_k in zip(block.offsets, grad_K, product[:n].split(block.counts)):
                torch.mm(grad_k, weights[k], out=product_k)
            grad_x.index_add_(0, block.near.long(), product[:n].to(grad_x.dtype))
    return grad_x, grad_kernel


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def _sum_type(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
