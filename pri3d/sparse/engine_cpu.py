"""The products of sparse convolutions on a CPU, in float32.

A block of pairs (see `kernel_map`) has the products of one offset: rows of features times one
matrix, added to other rows. Row by row, this needs no gathered copies and keeps the sums in
registers: for `ROWS` rows and `LANES` output channels at a time, every vector of weights is loaded
once. numba has no vector types, so the innermost loops are generated as LLVM IR, which LLVM
compiles for any CPU.

Products are added to a row in the order of its pairs and channels, so that sums are bit-identical
for any number of threads. Each product is summed on its own before it is added, because rounding
errors grow with the length of a sum.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float32
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor
from torch.nn.functional import pad

from pri3d.sparse.kernel_map import Pairs

LANES = 16
# Sums that fit into the registers: 32 of 16 numbers with AVX-512, otherwise 16 of 8.
ROWS = 8 if binding.get_host_cpu_features().get("avx512f") else 4
SMALL = 1 << 22  # fewer multiplications than this use one thread

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INT = types.intp


def add_products(
    x_NI: Float32[Tensor, "n in_channels"],
    kernel_KIO: Float32[Tensor, "offsets in_channels out_channels"],
    pairs: Pairs,
    out_MO: Float32[Tensor, "m out_channels"],
) -> None:
    """``out[near] += x[far] @ kernel[k]`` for all pairs, in position; float32, rows contiguous."""
    if short := -kernel_KIO.shape[2] % LANES:
        wider = pad(out_MO, (0, short))
        add_products(x_NI, pad(kernel_KIO, (0, short)), pairs, wider)
        out_MO.copy_(wider[:, : out_MO.shape[1]])
        return
    arrays = x_NI, kernel_KIO, out_MO
    _in_threads(_add_products, arrays, pairs, kernel_KIO.shape[1:], pairs.groups)


def add_weight_gradients(
    x_NI: Float32[Tensor, "n in_channels"],
    grad_MO: Float32[Tensor, "m out_channels"],
    pairs: Pairs,
    grad_KIO: Float32[Tensor, "offsets in_channels out_channels"],
) -> None:
    """``grad_kernel[k] += x[far].T @ grad[near]`` for all pairs, in position; float32."""
    if short := -grad_MO.shape[1] % LANES:
        wider = pad(grad_KIO, (0, short))
        add_weight_gradients(x_NI, pad(grad_MO, (0, short)), pairs, wider)
        grad_KIO.copy_(wider[:, :, : grad_KIO.shape[2]])
        return
    arrays, offsets = (x_NI, grad_MO, grad_KIO), np.arange(len(grad_KIO) + 1)
    _in_threads(_add_weight_gradients, arrays, pairs, grad_KIO.shape[1:], offsets)


def _in_threads(
    compiled: Callable,
    arrays: Sequence[Tensor],
    pairs: Pairs,
    sizes: Sequence[int],
    bounds: np.ndarray,
) -> None:
    """Call a compiled function for consecutive ranges of `bounds`, in several threads.

    sizes: numbers of input and output channels.
    """
    flat = [tensor.detach().view(-1).numpy() for tensor in (*arrays, pairs.near, pairs.far)]

    def work(low: int, high: int) -> None:
        compiled(*flat, pairs.blocks_B3, low, high, *sizes)

    threads = torch.get_num_threads()
    cost = len(pairs.near) * sizes[0] * sizes[1]
    if threads == 1 or cost < SMALL or len(bounds) < 3:
        work(bounds[0], bounds[-1])
        return
    # More parts than threads, since parts take different times.
    cuts = np.linspace(0, len(bounds) - 1, min(4 * threads, len(bounds) - 1) + 1).astype(int)
    list(_pool(threads, os.getpid()).map(work, bounds[cuts[:-1]], bounds[cuts[1:]]))


@functools.lru_cache(maxsize=1)
def _pool(threads: int, _process: int) -> ThreadPoolExecutor:
    """A pool that is kept, since starting threads takes as long as a small convolution.

    A forked process has its own pool.
    """
    return ThreadPoolExecutor(threads)


def _add_rows(rows: int):
    """An intrinsic that adds the products of `rows` pairs from p on, for LANES channels."""

    @intrinsic
    def add_rows(typing, x, kernel, out, near, far, p, matrix, n_in, n_out, lane):
        def generate(context, builder, signature, arguments):
            x, kernel, out, near, far = _pointers(context, builder, signature, arguments, 5)
            p, matrix, n_in, n_out, lane = arguments[5:]
            sums, features, positions = [], [], []
            for row in range(rows):
                pair = builder.add(p, _number(row))
                position = builder.add(builder.mul(_index(builder, near, pair), n_out), lane)
                sums.append(_zero(builder))
                positions.append(position)
                features.append(builder.mul(_index(builder, far, pair), n_in))
            with cgutils.for_range(builder, n_in) as loop:
                position = builder.add(matrix, builder.mul(loop.index, n_out))
                weights = _load(builder, kernel, builder.add(position, lane))
                for total, first in zip(sums, features):
                    value = builder.load(builder.gep(x, [builder.add(first, loop.index)]))
                    _add_scaled(builder, total, value, weights)
            _add_sums(builder, out, positions, sums)
            return context.get_dummy_value()

        return types.void(x, kernel, out, near, far, *[_INT] * 5), generate

    return add_rows


def _add_outer(rows: int):
    """An intrinsic that adds n pairs to `rows` rows of a matrix, for LANES channels."""

    @intrinsic
    def add_outer(typing, x, grad, out, near, far, p, n, matrix, n_in, n_out, row, lane):
        def generate(context, builder, signature, arguments):
            x, grad, out, near, far = _pointers(context, builder, signature, arguments, 5)
            p, n, matrix, n_in, n_out, row, lane = arguments[5:]
            sums, positions = [], []
            for i in range(rows):
                position = builder.mul(builder.add(row, _number(i)), n_out)
                position = builder.add(builder.add(matrix, position), lane)
                sums.append(_zero(builder))
                positions.append(position)
            with cgutils.for_range(builder, n) as loop:
                pair = builder.add(p, loop.index)
                position = builder.add(builder.mul(_index(builder, near, pair), n_out), lane)
                values = _load(builder, grad, position)
                first = builder.add(builder.mul(_index(builder, far, pair), n_in), row)
                for i, total in enumerate(sums):
                    value = builder.load(builder.gep(x, [builder.add(first, _number(i))]))
                    _add_scaled(builder, total, value, values)
            _add_sums(builder, out, positions, sums)
            return context.get_dummy_value()

        return types.void(x, grad, out, near, far, *[_INT] * 7), generate

    return add_outer


def _pointers(context, builder, signature, arguments, n: int) -> list:
    """Pointers to the data of the first n arguments, which are one-dimensional arrays."""
    kinds = zip(signature.args[:n], arguments[:n])
    return [context.make_array(kind)(context, builder, value).data for kind, value in kinds]


def _number(value: int):
    return ir.Constant(ir.IntType(types.intp.bitwidth), value)  # type: ignore[attr-defined]


def _index(builder, array, position):
    return builder.sext(builder.load(builder.gep(array, [position])), _number(0).type)


def _zero(builder):
    """A local variable, which LLVM keeps in a register."""
    variable = cgutils.alloca_once(builder, _VECTOR)
    builder.store(ir.Constant(_VECTOR, [0.0] * LANES), variable)
    return variable


def _vector_at(builder, array, position):
    return builder.bitcast(builder.gep(array, [position]), _VECTOR.as_pointer())


def _load(builder, array, position):
    value = builder.load(_vector_at(builder, array, position))
    value.align = 4  # of float32, not of the vector
    return value


def _add_sums(builder, out, positions, sums) -> None:
    for total, position in zip(sums, positions):
        value = builder.fadd(_load(builder, out, position), builder.load(total))
        builder.store(value, _vector_at(builder, out, position)).align = 4


def _add_scaled(builder, total, scale, vector) -> None:
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, scale, ir.Constant(ir.IntType(32), 0))
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    scale = builder.shuffle_vector(first, nothing, everywhere)
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    name = f"llvm.fmuladd.v{LANES}f32"
    multiply_add = cgutils.get_or_insert_function(builder.module, kind, name)
    builder.store(builder.call(multiply_add, [scale, vector, builder.load(total)]), total)


_some_rows, _one_row = _add_rows(ROWS), _add_rows(1)
_some_outer, _one_outer = _add_outer(ROWS), _add_outer(1)


@njit(cache=True, nogil=True)
def _add_products(x, kernel, out, near, far, blocks_B3, low, high, n_in, n_out):
    for b in range(low, high):
        offset, start, end = blocks_B3[b]
        matrix = offset * n_in * n_out
        for lane in range(0, n_out, LANES):
            p = start
            while p + ROWS <= end:
                _some_rows(x, kernel, out, near, far, p, matrix, n_in, n_out, lane)
                p += ROWS
            while p < end:
                _one_row(x, kernel, out, near, far, p, matrix, n_in, n_out, lane)
                p += 1


@njit(cache=True, nogil=True)
def _add_weight_gradients(x, grad, out, near, far, blocks_B3, low, high, n_in, n_out):
    for b in range(len(blocks_B3)):
        offset, start, end = blocks_B3[b]
        if offset < low or offset >= high:
            continue
        n, matrix = end - start, offset * n_in * n_out
        for lane in range(0, n_out, LANES):
            row = 0
            while row + ROWS <= n_in:
                _some_outer(x, grad, out, near, far, start, n, matrix, n_in, n_out, row, lane)
                row += ROWS
            while row < n_in:
                _one_outer(x, grad, out, near, far, start, n, matrix, n_in, n_out, row, lane)
                row += 1
