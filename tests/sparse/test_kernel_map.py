"""Kernel maps against a dictionary of cells."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pri3d.sparse import kernel_map as module
from pri3d.sparse.coordinates import MAX_OFFSET, SparseTensor, coarser_level
from pri3d.sparse.kernel_map import kernel_map, kernel_offsets

cells = st.sets(st.tuples(st.integers(0, 2), *[st.integers(-4, 3)] * 3), min_size=1, max_size=60)


def brute_force(source, target, size, reach):
    """{offset number: set of (source row, target row)} with source = target + offset * reach."""
    row_of = {tuple(one): row for row, one in enumerate(source)}
    low = -(size // 2) if size % 2 else 0
    found = {}
    steps = range(low, low + size)
    for k, (z, y, x) in enumerate(itertools.product(steps, steps, steps)):
        found[k] = set()
        for row, (b, cx, cy, cz) in enumerate(target):
            other = row_of.get((b, cx + x * reach, cy + y * reach, cz + z * reach))
            if other is not None:
                found[k].add((other, row))
    return found


def pairs_of(rows, k):
    if k == rows.identity:
        assert len(rows.inputs[k]) == len(rows.outputs[k]) == 0
        return {(row, row) for row in range(rows.n_inputs)}
    pairs = list(zip(rows.inputs[k].tolist(), rows.outputs[k].tolist()))
    assert len(set(rows.inputs[k].tolist())) == len(pairs)
    assert len(set(rows.outputs[k].tolist())) == len(pairs)
    return set(pairs)


@settings(deadline=None, max_examples=150)
@given(
    cells=cells,
    order=st.randoms(use_true_random=False),
    in_stride=st.sampled_from([1, 2]),
    size=st.integers(1, 5),
    factor=st.sampled_from([1, 1, 2, 3]),
    dilation=st.sampled_from([1, 1, 2]),
)
def test_kernel_map_is_the_brute_force_one(cells, order, in_stride, size, factor, dilation):
    shuffled = list(cells)
    order.shuffle(shuffled)
    x = SparseTensor(torch.tensor(shuffled), torch.zeros(len(shuffled), 1))
    source = coarser_level(x.cache, 1, in_stride).coordinates_N4.tolist()
    rows = kernel_map(x.cache, in_stride, size, factor, dilation)
    target = x.cache.levels[in_stride * factor].coordinates_N4.tolist()

    expected = brute_force(source, target, size, in_stride * dilation)
    assert (rows.n_inputs, rows.n_outputs) == (len(source), len(target))
    assert (rows.identity is not None) == (factor == 1)
    assert {k: pairs_of(rows, k) for k in range(len(rows.inputs))} == expected

    swapped = rows.transposed()
    assert (swapped.n_inputs, swapped.n_outputs) == (len(target), len(source))
    for k, pairs in expected.items():
        assert pairs_of(swapped, k) == {(b, a) for a, b in pairs}


@pytest.mark.parametrize(("cells", "pairs"), [(1, 1), (7, 20), (64, 50), (10**6, 10**6)])
@pytest.mark.parametrize(("size", "factor"), [(3, 1), (2, 1), (5, 1), (2, 2), (3, 2)])
def test_blocks_have_every_pair_once(monkeypatch, size, factor, cells, pairs):
    monkeypatch.setattr(module, "BLOCK_CELLS", cells)
    monkeypatch.setattr(module, "BLOCK_PAIRS", pairs)
    xyz = torch.cartesian_prod(*[torch.arange(-3, 3)] * 3)
    xyz = xyz[torch.randperm(len(xyz), generator=torch.Generator().manual_seed(0))[:150]]
    x = SparseTensor(torch.nn.functional.pad(xyz, (1, 0)), torch.zeros(len(xyz), 1))
    rows = kernel_map(x.cache, 1, size, factor)
    for one in (rows, rows.transposed()):
        expected = [
            (k, *pair)
            for k, both in enumerate(zip(one.inputs, one.outputs))
            for pair in zip(*(rows.tolist() for rows in both))
        ]
        found = []
        for block in one.blocks():
            offsets = torch.tensor(block.offsets).repeat_interleave(torch.tensor(block.counts))
            found += zip(offsets.tolist(), block.far.tolist(), block.near.tolist(), strict=True)
            assert len(block.near) <= max(pairs, max(block.counts))
        assert sorted(found) == sorted(expected)


def test_maps_are_built_once_per_cache():
    x = SparseTensor(torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]]), torch.zeros(2, 1))
    assert kernel_map(x.cache, 1, 3) is kernel_map(x.with_features(torch.ones(2, 5)).cache, 1, 3)
    assert kernel_map(x.cache, 1, 3) is not kernel_map(x.cache, 1, 3, dilation=2)


def test_offsets_count_x_fastest():
    assert kernel_offsets(2)[:3].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert kernel_offsets(3, dilation=2)[[0, 13, 26]].tolist() == [[-2] * 3, [0] * 3, [2] * 3]


def test_a_kernel_that_reaches_too_far_is_refused():
    x = SparseTensor(torch.tensor([[0, 0, 0, 0]]), torch.zeros(1, 1))
    kernel_map(x.cache, 1, 3, dilation=MAX_OFFSET)
    with pytest.raises(ValueError, match="reach"):
        kernel_map(x.cache, 1, 3, dilation=MAX_OFFSET + 1)
