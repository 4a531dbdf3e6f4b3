"""The products of sparse convolutions on a CPU, in float32.

A block of pairs (see `kernel_map`) has the products of one offset: rows of features, wherever they
lie, times one matrix, added to other rows. Doing it row by row needs no gathered copies, and keeps
what is added up in registers: for some rows at once (`ROWS`) and `LANES` output channels, every
vector of weights is loaded once for all of these rows. numba has no vectors of its own, so that the
innermost loops are written in LLVM's language, which fits them to any CPU.

What is added to a row is added in the order of its pairs and of its channels: sums are the same to
the bit, whatever the number of threads. Each product is summed by itself before it is added: errors
of rounding grow with the length of a sum.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor
from torch.nn.functional import pad

from pri3d.sparse.kernel_map import Pairs

LANES = 16
# As many sums as fit into the registers: 32 of 16 numbers with AVX-512, 16 of 8 otherwise.
ROWS = 8 if binding.get_host_cpu_features().get("avx512f") else 4
SMALL = 1 << 22  # multiplications that are not worth a second thread

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INT = types.intp


def add_products(x_NI: Tensor, kernel_KIO: Tensor, pairs: Pairs, out_MO: Tensor) -> None:
    """``out[near] += x[far] @ kernel[k]`` for all pairs, in place; float32, rows contiguous."""
    if short := -kernel_KIO.shape[2] % LANES:
        wider = pad(out_MO, (0, short))
        add_products(x_NI, pad(kernel_KIO, (0, short)), pairs, wider)
        out_MO.copy_(wider[:, : out_MO.shape[1]])
        return
    arrays = x_NI, kernel_KIO, out_MO
    _in_threads(_add_products, arrays, pairs, kernel_KIO.shape[1:], pairs.groups)


def add_weight_gradients(x_NI: Tensor, grad_MO: Tensor, pairs: Pairs, grad_KIO: Tensor) -> None:
    """``grad_kernel[k] += x[far].T @ grad[near]`` for all pairs, in place; float32."""
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
    """Call one of the compiled functions for ranges of `bounds` that fill it together.

    sizes: channels in and out.
    """
    flat = [tensor.detach().view(-1).numpy() for tensor in (*arrays, pairs.near, pairs.far)]

    def work(low: int, high: int) -> None:
        compiled(*flat, pairs.blocks_B3, low, high, *sizes)

    threads = torch.get_num_threads()
    cost = len(pairs.near) * sizes[0] * sizes[1]
    if threads == 1 or cost < SMALL or len(bounds) < 3:
        work(bounds[0], bounds[-1])
        return
    # More parts than threads: they do not all take the same time.
    cuts = np.linspace(0, len(bounds) - 1, min(4 * threads, len(bounds) - 1) + 1).astype(int)
    list(_pool(threads, os.getpid()).map(work, bounds[cuts[:-1]], bounds[cuts[1:]]))


@functools.lru_cache(maxsize=1)
def _pool(threads: int, _process: int) -> ThreadPoolExecutor:
    """Kept, for starting threads takes as long as a small convolution; a fork has its own."""
    return ThreadPoolExecutor(threads)


def _add_rows(rows: int):
    """The intrinsic that does `rows` pairs, from pair p on, for the channels from `lane` on."""

    @intrinsic
    def add_rows(typing, x, kernel, out, near, far, p, matrix, n_in, n_out, lane):
        def generate(context, builder, signature, arguments):
            x, kernel, out, near, far = _pointers(context, builder, signature, arguments, 5)
            p, matrix, n_in, n_out, lane = arguments[5:]
            sums, features, places = [], [], []
            for row in range(rows):
                pair = builder.add(p, _number(row))
                place = builder.add(builder.mul(_index(builder, near, pair), n_out), lane)
                sums.append(_zero(builder))
                places.append(place)
                features.append(builder.mul(_index(builder, far, pair), n_in))
            with cgutils.for_range(builder, n_in) as loop:
                place = builder.add(matrix, builder.mul(loop.index, n_out))
                weights = _load(builder, kernel, builder.add(place, lane))
                for total, first in zip(sums, features):
                    value = builder.load(builder.gep(x, [builder.add(first, loop.index)]))
                    _add_scaled(builder, total, value, weights)
            _add_sums(builder, out, places, sums)
            return context.get_dummy_value()

        return types.void(x, kernel, out, near, far, *[_INT] * 5), generate

    return add_rows


def _add_outer(rows: int):
    """The intrinsic that adds n pairs up in `rows` rows of a matrix, for LANES channels."""

    @intrinsic
    def add_outer(typing, x, grad, out, near, far, p, n, matrix, n_in, n_out, row, lane):
        def generate(context, builder, signature, arguments):
            x, grad, out, near, far = _pointers(context, builder, signature, arguments, 5)
            p, n, matrix, n_in, n_out, row, lane = arguments[5:]
            sums, places = [], []
            for i in range(rows):
                place = builder.mul(builder.add(row, _number(i)), n_out)
                place = builder.add(builder.add(matrix, place), lane)
                sums.append(_zero(builder))
                places.append(place)
            with cgutils.for_range(builder, n) as loop:
                pair = builder.add(p, loop.index)
                place = builder.add(builder.mul(_index(builder, near, pair), n_out), lane)
                values = _load(builder, grad, place)
                first = builder.add(builder.mul(_index(builder, far, pair), n_in), row)
                for i, total in enumerate(sums):
                    value = builder.load(builder.gep(x, [builder.add(first, _number(i))]))
                    _add_scaled(builder, total, value, values)
            _add_sums(builder, out, places, sums)
            return context.get_dummy_value()

        return types.void(x, grad, out, near, far, *[_INT] * 7), generate

    return add_outer


def _pointers(context, builder, signature, arguments, n: int) -> list:
    """Where the data of the first n arguments, one-dimensional arrays, begin."""
    kinds = zip(signature.args[:n], arguments[:n])
    return [context.make_array(kind)(context, builder, value).data for kind, value in kinds]


def _number(value: int):
    return ir.Constant(ir.IntType(types.intp.bitwidth), value)


def _index(builder, array, place):
    return builder.sext(builder.load(builder.gep(array, [place])), _number(0).type)


def _zero(builder):
    """A local variable, which LLVM keeps in a register."""
    variable = cgutils.alloca_once(builder, _VECTOR)
    builder.store(ir.Constant(_VECTOR, [0.0] * LANES), variable)
    return variable


def _vector_at(builder, array, place):
    return builder.bitcast(builder.gep(array, [place]), _VECTOR.as_pointer())


def _load(builder, array, place):
    value = builder.load(_vector_at(builder, array, place))
    value.align = 4  # that of float32, not of the vector
    return value


def _add_sums(builder, out, places, sums) -> None:
    for total, place in zip(sums, places):
        value = builder.fadd(_load(builder, out, place), builder.load(total))
        builder.store(value, _vector_at(builder, out, place)).align = 4


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
