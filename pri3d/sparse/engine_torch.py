"""The arithmetic of sparse convolutions, in plain torch: CPU and CUDA; float64, float32, bf16.

Per kernel offset: gather the input rows, multiply by that offset's matrix, add to the output rows.
The matrix products are the cost; everything else is kept small beside them. Autograd keeps the
features and the weights only, none of the gathered rows.

Within one offset a row occurs at most once, and offsets are added one after the other: the order
in which they are summed is fixed, on CUDA too. (The matrix products themselves are the library's;
their last bits may depend on the number of threads.)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pri3d.sparse.coordinates import SparseTensor
from pri3d.sparse.kernel_map import KernelMap, kernel_map

# Gathered rows that stay in a core's own cache make a CPU 10 to 20 % faster; on CUDA the number of
# launches matters more.
CPU_BLOCK = 4096


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
    identity = rows.identity
    if identity is None:
        out = x.new_zeros(rows.n_outputs, kernel.shape[2], dtype=_sum_type(x))
    else:
        out = (x @ kernel[identity]).to(_sum_type(x))
    block = _block_rows(x, rows)
    # Buffers are made once: allocating them anew for every block costs more than the gathering.
    gathered = x.new_empty(block, x.shape[1])
    product = x.new_empty(block, kernel.shape[2])
    for k, inputs, outputs in _blocks(rows, block):
        n = len(inputs)
        torch.index_select(x, 0, inputs, out=gathered[:n])
        torch.mm(gathered[:n], kernel[k], out=product[:n])
        out.index_add_(0, outputs, product[:n].to(out.dtype))
    return out


def _backward(
    x: Tensor,
    kernel: Tensor,
    grad_out: Tensor,
    rows: KernelMap,
    wants_x: bool,
    wants_kernel: bool,
) -> tuple[Tensor | None, Tensor | None]:
    identity = rows.identity
    grad_x = grad_kernel = None
    if wants_kernel:
        grad_kernel = torch.zeros_like(kernel, dtype=_sum_type(x))
        if identity is not None:
            grad_kernel[identity] = x.t() @ grad_out
    if wants_x and identity is not None:
        grad_x = (grad_out @ kernel[identity].t()).to(_sum_type(x))
    elif wants_x:
        grad_x = torch.zeros_like(x, dtype=_sum_type(x))

    block = _block_rows(x, rows)
    gathered_x = x.new_empty(block, x.shape[1])
    gathered_grad = x.new_empty(block, kernel.shape[2])
    product = x.new_empty(block, x.shape[1])
    for k, inputs, outputs in _blocks(rows, block):
        n = len(inputs)
        torch.index_select(grad_out, 0, outputs, out=gathered_grad[:n])
        if wants_kernel:
            torch.index_select(x, 0, inputs, out=gathered_x[:n])
            grad_kernel[k] += gathered_x[:n].t() @ gathered_grad[:n]
        if wants_x:
            torch.mm(gathered_grad[:n], kernel[k].t(), out=product[:n])
            grad_x.index_add_(0, inputs, product[:n].to(grad_x.dtype))
    return grad_x, grad_kernel


def _block_rows(x: Tensor, rows: KernelMap) -> int:
    longest = max(len(inputs) for inputs in rows.inputs)
    return min(longest, CPU_BLOCK) if x.device.type == "cpu" else longest


def _blocks(rows: KernelMap, size: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Offset, input rows, output rows, in pieces of at most `size`; empty offsets are skipped."""
    for k, (inputs, outputs) in enumerate(zip(rows.inputs, rows.outputs)):
        for start in range(0, len(inputs), max(size, 1)):
            yield k, inputs[start : start + size], outputs[start : start + size]


def _sum_type(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
