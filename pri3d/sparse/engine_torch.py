"""The arithmetic of sparse convolutions, in plain torch: CPU and CUDA, float32, float64, bf16.

Per kernel offset: gather the input rows, multiply by that offset's matrix, add to the output rows.
The matrix products are the cost; everything else is kept small beside them. Autograd keeps the
features and the weights only, none of the gathered rows.

Within one offset an output row occurs once, and offsets are added one after the other: sums are
formed in a fixed order on every device and with any number of threads.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pri3d.sparse.kernel_map import KernelMap


def convolve(features_NI: Tensor, kernel_KIO: Tensor, kernel_map: KernelMap) -> Tensor:
    """Sparse convolution: features [n_inputs, I] and kernel [K, I, O] to [n_outputs, O].

    Under autocast the products run in autocast's type; sums over offsets are always formed in
    float32 or better and the result has the type of the products.
    """
    device = features_NI.device.type
    if torch.is_autocast_enabled(device) and features_NI.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        features_NI, kernel_KIO = features_NI.to(dtype), kernel_KIO.to(dtype)
    return _SparseConvolution.apply(features_NI, kernel_KIO, kernel_map)


def _add_products(out: Tensor, rows: Tensor, matrices: list[Tensor], gathers, scatters) -> Tensor:
    """``out[scatters[k]] += rows[gathers[k]] @ matrices[k]`` for every k, in that order."""
    longest = max((len(gather) for gather in gathers), default=0)
    # One buffer for all offsets: allocating tens of megabytes anew each time costs more than
    # the gathering itself.
    gathered = rows.new_empty(longest, rows.shape[1])
    product = rows.new_empty(longest, out.shape[1])
    for matrix, gather, scatter in zip(matrices, gathers, scatters):
        n = len(gather)
        if n:
            torch.index_select(rows, 0, gather, out=gathered[:n])
            torch.mm(gathered[:n], matrix, out=product[:n])
            out.index_add_(0, scatter, product[:n].to(out.dtype))
    return out


class _SparseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features_NI: Tensor, kernel_KIO: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(features_NI, kernel_KIO)
        ctx.kernel_map = kernel_map
        return _convolved(features_NI, kernel_KIO, kernel_map)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient_MO: Tensor):
        features_NI, kernel_KIO = ctx.saved_tensors
        kernel_map = ctx.kernel_map
        gradient_MO = gradient_MO.contiguous()
        grad_features = grad_kernel = None
        if ctx.needs_input_grad[0]:
            grad_features = _convolved(
                gradient_MO, kernel_KIO.transpose(1, 2), kernel_map.transposed()
            )
        if ctx.needs_input_grad[1]:
            grad_kernel = _kernel_gradient(features_NI, gradient_MO, kernel_map)
        return grad_features, grad_kernel, None


def _convolved(rows: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
    with torch.autocast(rows.device.type, enabled=False):
        if kernel_map.identity is None:
            out = rows.new_zeros(kernel_map.n_outputs, kernel.shape[2], dtype=_sum_type(rows))
        else:
            out = torch.mm(rows, kernel[kernel_map.identity]).to(_sum_type(rows))
        matrices = list(kernel.unbind(0))
        _add_products(out, rows, matrices, kernel_map.inputs, kernel_map.outputs)
        return out.to(rows.dtype)


def _kernel_gradient(features_NI: Tensor, gradient_MO: Tensor, kernel_map: KernelMap) -> Tensor:
    n_in, n_out = features_NI.shape[1], gradient_MO.shape[1]
    pairs = list(zip(kernel_map.inputs, kernel_map.outputs))
    longest = max((len(inputs) for inputs, _ in pairs), default=0)
    left = features_NI.new_empty(longest, n_in)
    right = gradient_MO.new_empty(longest, n_out)
    grad_kernel = features_NI.new_zeros(len(pairs), n_in, n_out)
    with torch.autocast(features_NI.device.type, enabled=False):
        for k, (inputs, outputs) in enumerate(pairs):
            n = len(inputs)
            if k == kernel_map.identity:
                torch.mm(features_NI.t(), gradient_MO, out=grad_kernel[k])
            elif n:
                torch.index_select(features_NI, 0, inputs, out=left[:n])
                torch.index_select(gradient_MO, 0, outputs, out=right[:n])
                torch.mm(left[:n].t(), right[:n], out=grad_kernel[k])
    return grad_kernel


def _sum_type(rows: Tensor) -> torch.dtype:
    return torch.float64 if rows.dtype == torch.float64 else torch.float32
