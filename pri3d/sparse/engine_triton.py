"""Sparse convolutions by Triton kernels on CUDA; float32, bf16, float16.

A kernel map is a *neighbor table*: the input row of each offset at every output cell, or -1. Cells
with the same occupied offsets are adjacent (for kernels of up to 31 offsets), so that a tile of
cells skips the offsets that none of its cells has. One program computes a tile of output rows and
channels for all offsets: it gathers input rows, multiplies them by the offset's matrix on the
tensor cores and adds them in registers, so that no product is written to memory. Gradients of the
features use the same kernel on the map of the transposed convolution. For gradients of the weights,
the cells are cut into parts, whose sums are added in a fixed order: results do not differ from run
to run.

A float32 product is computed from three tf32 products, with errors like those of float32, or from
one if `torch.backends.cuda.matmul.allow_tf32` is set. float64 is computed by `engine_torch`.

The methods are known: implicit products over sorted bit masks from spconv 2 and TorchSparse++ (Tang
et al., MICRO 2023), float32 from tf32 from Ootomo and Yokota (IJHPCA 2022).

Shapes: N output cells, K offsets, I and O channels in and out.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from jaxtyping import Int32, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from pri3d.errors import Pri3DError
from pri3d.sparse import engine_torch
from pri3d.sparse.coordinates import SparseTensor
from pri3d.sparse.kernel_map import KernelMap

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise Pri3DError(
        f"sparse.engine: Triton cannot be imported ({error}); install torch's build for CUDA, or "
        "choose torch"
    ) from None

SEARCHED = 256  # cells per program of the search
# Approximate number of programs for the gradient of weights: a few per multiprocessor.
PARTS = 1024


def convolve(
    x: SparseTensor,
    kernel_KIO: Tensor,
    size: int,
    stride: int = 1,
    dilation: int = 1,
    transposed: bool = False,
) -> Tensor:
    """Sparse convolution of a tensor: features [n_outputs, O] (see `convolution`).

    Types as in `engine_torch`.

    Raises:
        Pri3DError: the tensor is not on a GPU.
    """
    if x.features.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise Pri3DError(
            f"sparse.engine: Triton computes on a GPU, not on {x.features.device}; choose torch"
        )
    arguments = engine_torch.prepare(x, kernel_KIO, size, stride, dilation, transposed)
    if arguments[0].dtype == torch.float64:
        return engine_torch.SparseConvolution.apply(*arguments)
    return _SparseConvolution.apply(*arguments)


def check(device: torch.device) -> None:
    """Check that Triton works on a GPU.

    Raises:
        Pri3DError: the GPU is older than Ampere, or Triton cannot compile its launcher.
    """
    if torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
        raise Pri3DError("sparse.engine: Triton's kernels need an NVIDIA GPU, Ampere or newer")
    try:
        zero = torch.zeros(1, dtype=torch.int64, device=device)
        with torch.cuda.device_of(zero):
            table = zero.int()
            _search[(1, 1)](zero, zero, zero, zero, table, 1, 1, STEPS=1, TILE=SEARCHED)
    except Exception as error:  # from the compiler, the driver or the file system
        lines = str(error).splitlines() or [type(error).__name__]
        raise Pri3DError(
            f"sparse.engine: Triton cannot compile here ({lines[0]}); it needs a C compiler and "
            "Python's headers"
        ) from None


class Table(NamedTuple):
    """A neighbor table: input row of each offset and cell, or -1, and output row of each cell."""

    far_KN: Int32[Tensor, "offsets n_outputs"]
    rows_N: Int64[Tensor, " n_outputs"]


class _SparseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, rows: KernelMap) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.rows = rows
        with torch.cuda.device_of(x):
            return _products(x.contiguous(), kernel.contiguous(), rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, kernel = ctx.saved_tensors
        grad_out = grad_out.contiguous()
        grad_x = grad_kernel = None
        with torch.cuda.device_of(x):
            if ctx.needs_input_grad[0]:
                grad_x = _gradient_of_features(grad_out, kernel.transpose(1, 2), ctx.rows)
            if ctx.needs_input_grad[1]:
                grad_kernel = _weight_gradients(x.contiguous(), grad_out, ctx.rows)
                grad_kernel = grad_kernel.to(kernel.dtype)
        return grad_x, grad_kernel, None


def _gradient_of_features(grad: Tensor, kernel_KOI: Tensor, rows: KernelMap) -> Tensor:
    if (
        rows.mirrored
    ):  # what offset k of the one direction meets, offset K - 1 - k of the other does
        return _products(grad, kernel_KOI.flip(0), rows)
    return _products(grad, kernel_KOI, rows.transposed())


def _products(x: Tensor, kernel: Tensor, rows: KernelMap) -> Tensor:
    """``out[n] = sum_k x[far[k, n]] @ kernel[k]``; kernel [K, I, O] with any strides."""
    (n_offsets, n_in, n_out), n = kernel.shape, rows.n_outputs
    out = x.new_empty(n, n_out)
    if n == 0 or len(x) == 0:
        return out.zero_()
    table = _table(rows)
    tile_n, most_o = (64, 128) if x.element_size() == 2 else (32, 128)
    tile_o, tile_i = min(most_o, _tile(n_out)), min(32, _tile(n_in))
    _multiply[(triton.cdiv(n, tile_n), triton.cdiv(n_out, tile_o))](
        x, kernel, *table, out, n, *kernel.stride(),
        N_OFFSETS=n_offsets, N_IN=n_in, N_OUT=n_out, TILE_N=tile_n, TILE_I=tile_i, TILE_O=tile_o,
        PRECISION=_precision(), num_warps=4,
    )  # fmt: skip
    return out


def _weight_gradients(x: Tensor, grad: Tensor, rows: KernelMap) -> Tensor:
    """``sum_n x[far[k, n]].T @ grad[n]``, float32 [K, I, O]."""
    n_offsets, n_in, n_out, n = len(rows.differences_K), x.shape[1], grad.shape[1], rows.n_outputs
    if n == 0 or len(x) == 0:
        return x.new_zeros(n_offsets, n_in, n_out, dtype=torch.float32)
    table = _table(rows)
    tile_i, tile_o = min(64, _tile(n_in)), min(64, _tile(n_out))
    tile_n = 64 if x.element_size() == 2 else 32
    tiles_i, tiles_o = triton.cdiv(n_in, tile_i), triton.cdiv(n_out, tile_o)
    steps = triton.cdiv(n * n_offsets * tiles_i * tiles_o, PARTS * tile_n)
    steps = max(4, triton.next_power_of_2(steps))
    parts = triton.cdiv(n, steps * tile_n)
    sums = x.new_empty(parts, n_offsets, n_in, n_out, dtype=torch.float32)
    _multiply_transposed[(n_offsets * tiles_i * tiles_o, parts)](
        x, grad, *table, sums, n, tiles_i, tiles_o, STEPS=steps, N_IN=n_in, N_OUT=n_out,
        TILE_N=tile_n, TILE_I=tile_i, TILE_O=tile_o, PRECISION=_precision(), num_warps=4,
    )  # fmt: skip
    return sums[0] if parts == 1 else sums.sum(dim=0)


def _table(rows: KernelMap) -> Table:
    """The neighbor table of a map, which keeps it."""
    if "table" not in rows.by_output:
        table = _searched(rows)
        n_offsets = len(table.far_KN)
        if n_offsets < 32:  # the occupied offsets fit into the bits of an int32
            bits = 1 << torch.arange(n_offsets, dtype=torch.int32, device=table.far_KN.device)
            occupied = ((table.far_KN >= 0) * bits[:, None]).sum(dim=0, dtype=torch.int32)
            order = occupied.argsort(stable=True)
            table = Table(table.far_KN[:, order], table.rows_N[order])
        rows.by_output["table"] = table
    cached: Table = rows.by_output["table"]
    return cached


def _searched(rows: KernelMap) -> Table:
    near, far = rows.outputs, rows.inputs
    differences = torch.from_numpy(rows.differences_K).to(near.keys.device)
    far_KN = torch.empty(
        len(differences), len(near.keys), dtype=torch.int32, device=near.keys.device
    )
    _search[(triton.cdiv(len(near.keys), SEARCHED), len(differences))](
        near.keys, far.keys, far.rows, differences, far_KN, len(near.keys), len(far.keys),
        STEPS=len(far.keys).bit_length(), TILE=SEARCHED,
    )  # fmt: skip
    return Table(far_KN, near.rows)


def _tile(channels: int) -> int:
    """The next power of two, at least 16, the minimum of the tensor cores."""
    return max(16, triton.next_power_of_2(channels))


def _precision() -> str:
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


@triton.jit(do_not_specialize=["n_near", "n_far"])
def _search(
    near_keys, far_keys, far_rows, differences, table, n_near, n_far,
    STEPS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TILE + tl.arange(0, TILE)
    k = tl.program_id(1)
    inside = n < n_near
    wanted = tl.load(near_keys + n, mask=inside, other=0) + tl.load(differences + k)
    smaller = tl.zeros([TILE], tl.int32)  # number of keys known to be smaller than the wanted key
    for step in tl.static_range(STEPS):
        probe = smaller + (1 << (STEPS - 1 - step))
        key = tl.load(far_keys + probe - 1, mask=inside & (probe <= n_far), other=0)
        smaller = tl.where((probe <= n_far) & (key < wanted), probe, smaller)
    exists = inside & (smaller < n_far)
    hit = exists & (tl.load(far_keys + smaller, mask=exists, other=0) == wanted)
    row = tl.load(far_rows + smaller, mask=hit, other=-1).to(tl.int32)
    tl.store(table + k.to(tl.int64) * n_near + n, row, mask=inside)


@triton.jit(do_not_specialize=["n_near"])
def _multiply(
    x, kernel, table, rows, out, n_near, stride_k, stride_i, stride_o,
    N_OFFSETS: tl.constexpr, N_IN: tl.constexpr, N_OUT: tl.constexpr,
    TILE_N: tl.constexpr, TILE_I: tl.constexpr, TILE_O: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TILE_N + tl.arange(0, TILE_N)
    o = tl.program_id(1) * TILE_O + tl.arange(0, TILE_O)
    i = tl.arange(0, TILE_I)
    inside = n < n_near
    total = tl.zeros([TILE_N, TILE_O], tl.float32)
    for k in range(N_OFFSETS):
        far = tl.load(table + k * n_near.to(tl.int64) + n, mask=inside, other=-1)
        if tl.max(far) >= 0:
            x_rows = x + far.to(tl.int64)[:, None] * N_IN + i[None, :]
            weights = kernel + k * stride_k + i[:, None] * stride_i + o[None, :] * stride_o
            for begin in range(0, N_IN, TILE_I):
                left = N_IN - begin
                a = tl.load(x_rows + begin, mask=(far >= 0)[:, None] & (i < left)[None, :], other=0)
                in_weights = (i < left)[:, None] & (o < N_OUT)[None, :]
                b = tl.load(weights + begin * stride_i, mask=in_weights, other=0)
                total = tl.dot(a, b, total, input_precision=PRECISION)
    row = tl.load(rows + n, mask=inside, other=0)
    pointers = out + row[:, None] * N_OUT + o[None, :]
    tl.store(pointers, total.to(out.dtype.element_ty), mask=inside[:, None] & (o < N_OUT)[None, :])


@triton.jit(do_not_specialize=["n_near"])
def _multiply_transposed(
    x, grad, table, rows, sums, n_near, tiles_i, tiles_o,
    STEPS: tl.constexpr, N_IN: tl.constexpr, N_OUT: tl.constexpr,
    TILE_N: tl.constexpr, TILE_I: tl.constexpr, TILE_O: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tile, part = tl.program_id(0), tl.program_id(1)
    k = tile // (tiles_i * tiles_o)
    i = tile // tiles_o % tiles_i * TILE_I + tl.arange(0, TILE_I)
    o = tile % tiles_o * TILE_O + tl.arange(0, TILE_O)
    total = tl.zeros([TILE_I, TILE_O], tl.float32)
    for step in range(STEPS):
        n = (part * STEPS + step) * TILE_N + tl.arange(0, TILE_N)
        far = tl.load(table + k * n_near.to(tl.int64) + n, mask=n < n_near, other=-1)
        if tl.max(far) >= 0:
            hit = far >= 0
            row = tl.load(rows + n, mask=hit, other=0)
            x_pointers = x + far.to(tl.int64)[None, :] * N_IN + i[:, None]
            a = tl.load(x_pointers, mask=hit[None, :] & (i < N_IN)[:, None], other=0)
            grad_pointers = grad + row[:, None] * N_OUT + o[None, :]
            b = tl.load(grad_pointers, mask=hit[:, None] & (o < N_OUT)[None, :], other=0)
            total = tl.dot(a, b, total, input_precision=PRECISION)
    weights = tl.num_programs(0) // (tiles_i * tiles_o)
    base = sums + ((part * weights + k).to(tl.int64) * N_IN) * N_OUT
    pointers = base + i[:, None] * N_OUT + o[None, :]
    tl.store(pointers, total, mask=(i < N_IN)[:, None] & (o < N_OUT)[None, :])
