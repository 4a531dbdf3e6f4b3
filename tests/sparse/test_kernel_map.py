"""Kernel maps against a dictionary of cells."""

import itertools

import numpy as np
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
    pairs_by_offset = {}
    steps = range(low, low + size)
    for k, (z, y, x) in enumerate(itertools.product(steps, steps, steps)):
        pairs_by_offset[k] = set()
        for row, (b, cx, cy, cz) in enumerate(target):
            other = row_of.get((b, cx + x * reach, cy + y * reach, cz + z * reach))
            if other is not None:
                pairs_by_offset[k].add((other, row))
    return pairs_by_offset


def pairs_of(pairs):
    """{offset number: set of (far row, near row)}, after a look at the blocks and groups."""
    pairs_by_offset, ends = {}, []
    for k, start, end in pairs.blocks_B3.tolist():
        far, near = (rows[start:end].tolist() for rows in (pairs.far, pairs.near))
        assert len(far) == len(set(far)) == len(set(near)) == end - start > 0
        assert pairs_by_offset.setdefault(k, set()).isdisjoint(zip(far, near))
        pairs_by_offset[k].update(zip(far, near))
        assert start == (ends[-1] if ends else 0)
        ends.append(end)
    assert len(pairs.near) == len(pairs.far) == (ends[-1] if ends else 0)
    assert (pairs.groups[0], pairs.groups[-1]) == (0, len(pairs.blocks_B3))
    rows_of = [
        {row for _, start, end in blocks for row in pairs.near[start:end].tolist()}
        for blocks in np.split(pairs.blocks_B3, pairs.groups[1:-1])
    ]
    assert sum(map(len, rows_of)) == len(set().union(*rows_of))
    return pairs_by_offset


def expected_pairs(pairs_by_offset, rows):
    if rows.identity is not None:
        assert pairs_by_offset[rows.identity] == {(row, row) for row in range(rows.n_inputs)}
    return {k: pairs for k, pairs in pairs_by_offset.items() if pairs and k != rows.identity}


@settings(deadline=None, max_examples=150)
@given(
    cells=cells,
    order=st.randoms(use_true_random=False),
    in_stride=st.sampled_from([1, 2]),
    size=st.integers(1, 5),
    factor=st.sampled_from([1, 1, 2, 3]),
    dilation=st.sampled_from([1, 1, 2]),
    group_cells=st.sampled_from([1, 7, 2048]),
    other_way_first=st.booleans(),
)
def test_kernel_map_is_the_brute_force_one(
    cells, order, in_stride, size, factor, dilation, group_cells, other_way_first
):
    shuffled = list(cells)
    order.shuffle(shuffled)
    x = SparseTensor(torch.tensor(shuffled), torch.zeros(len(shuffled), 1))
    source = coarser_level(x.cache, 1, in_stride).coordinates_N4.tolist()
    rows = kernel_map(x.cache, in_stride, size, factor, dilation)
    target = x.cache.levels[in_stride * factor].coordinates_N4.tolist()

    expected = expected_pairs(brute_force(source, target, size, in_stride * dilation), rows)
    swapped_expected = {k: {(b, a) for a, b in pairs} for k, pairs in expected.items()}
    assert (rows.n_inputs, rows.n_outputs) == (len(source), len(target))
    assert (rows.identity is not None) == (factor == 1)
    swapped = rows.transposed()
    assert (swapped.n_inputs, swapped.n_outputs) == (len(target), len(source))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GROUP_CELLS", group_cells)
        if other_way_first:  # what comes second can be the first's mirror image
            assert pairs_of(swapped.pairs()) == swapped_expected
        assert pairs_of(rows.pairs()) == expected
        assert pairs_of(swapped.pairs()) == swapped_expected
    skipped = -1 if rows.identity is None else rows.identity
    anywhere = module._find_pairs(rows.outputs, rows.inputs, rows.differences_K, skipped)
    assert pairs_of(anywhere) == expected


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
