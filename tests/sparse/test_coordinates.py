"""Cells and their keys, batches, duplicates, coarser levels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pri3d.sparse.coordinates import (
    MAX_BATCH,
    MAX_COORDINATE,
    MAX_OFFSET,
    SparseTensor,
    coarser_level,
    collate,
    coordinates_of,
    key_of,
    merge_duplicates,
)

coordinate = st.integers(-MAX_COORDINATE, MAX_COORDINATE)
batch = st.integers(0, MAX_BATCH - 1)
cell = st.tuples(batch, coordinate, coordinate, coordinate)
small_cell = st.tuples(st.integers(0, 2), *[st.integers(-5, 4)] * 3)


def tensor_of(cells, channels=2) -> SparseTensor:
    coordinates = torch.tensor(list(cells), dtype=torch.int32).reshape(-1, 4)
    generator = torch.Generator().manual_seed(0)
    return SparseTensor(coordinates, torch.randn(len(coordinates), channels, generator=generator))


@given(st.sets(cell, min_size=1))
def test_keys_have_the_order_of_cells_and_can_be_undone(cells):
    coordinates = torch.tensor(list(cells))
    keys = key_of(coordinates)
    assert torch.equal(coordinates_of(keys), coordinates)
    assert coordinates[keys.argsort()].tolist() == [list(one) for one in sorted(cells)]


@given(cell, st.tuples(*[st.integers(-MAX_OFFSET, MAX_OFFSET)] * 3), cell)
def test_a_neighbour_beyond_the_grid_is_never_another_cell(origin, offset, other):
    moved = (origin[0], *(c + o for c, o in zip(origin[1:], offset)))
    key = key_of(torch.tensor([origin])) + key_of(torch.tensor([(0, *offset)]))
    assert bool(key == key_of(torch.tensor([other]))) == (moved == other)


def test_corners_of_the_grid_do_not_meet():
    edge = MAX_COORDINATE
    cells = [
        (b, x, y, z)
        for b in (0, 1)
        for x in (-edge, edge)
        for y in (-edge, edge)
        for z in (-edge, edge)
    ]
    keys = key_of(torch.tensor(cells)).tolist()
    for offset in [(0, 0, 0, MAX_OFFSET), (0, 0, MAX_OFFSET, 0), (0, MAX_OFFSET, 0, 0)]:
        difference = int(key_of(torch.tensor([offset])))
        assert not {key + difference for key in keys} & set(keys)


def test_collate_keeps_rows_and_numbers_clouds():
    a = (np.array([[5, -1, 2], [0, 0, 0]], np.int32), np.ones((2, 3), np.float32))
    b = (np.array([[0, 0, 0]], np.int32), np.zeros((1, 3), np.float32))
    x = collate([a, b])
    assert x.coordinates.tolist() == [[0, 5, -1, 2], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert x.features.tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0]]
    assert x.stride == 1


def test_duplicates_are_refused_by_name():
    with pytest.raises(ValueError, match=r"rows 1 and 3 are the same cell \[0, 4, 5, 6\]"):
        tensor_of([(0, 1, 2, 3), (0, 4, 5, 6), (1, 4, 5, 6), (0, 4, 5, 6)])


@pytest.mark.parametrize(
    ("coordinates", "features", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2, 1), "expected"),
        (torch.zeros(2, 4, dtype=torch.int32), torch.zeros(3, 1), "expected"),
        (torch.zeros(1, 4, dtype=torch.int32), torch.zeros(1), "expected"),
        (torch.zeros(1, 4), torch.zeros(1, 1), "expected integers"),
        (torch.tensor([[0, 0, MAX_COORDINATE + 1, 0]]), torch.zeros(1, 1), "limit"),
        (torch.tensor([[0, -MAX_COORDINATE - 1, 0, 0]]), torch.zeros(1, 1), "limit"),
        (torch.tensor([[-1, 0, 0, 0]]), torch.zeros(1, 1), "batch"),
        (torch.tensor([[MAX_BATCH, 0, 0, 0]]), torch.zeros(1, 1), "batch"),
    ],
)
def test_what_does_not_fit_is_refused(coordinates, features, message):
    with pytest.raises(ValueError, match=message):
        SparseTensor(coordinates, features)


def test_stride_must_divide_coordinates():
    with pytest.raises(ValueError, match="multiples"):
        SparseTensor(torch.tensor([[0, 2, 4, -3]]), torch.zeros(1, 1), stride=2)
    assert SparseTensor(torch.tensor([[1, 2, 4, -6]]), torch.zeros(1, 1), stride=2).stride == 2


def test_collate_refuses_nothing_and_wrong_shapes():
    with pytest.raises(ValueError, match="no clouds"):
        collate([])
    with pytest.raises(ValueError, match="cloud 1"):
        collate(
            [
                (torch.zeros(1, 3, dtype=torch.int32), torch.zeros(1, 1)),
                (torch.zeros(1, 4), torch.zeros(1, 1)),
            ]
        )


@given(st.lists(small_cell, min_size=1))
def test_merge_duplicates(cells):
    features = torch.arange(len(cells) * 2, dtype=torch.float64).reshape(-1, 2) ** 2
    merged, mean, first, of_row = merge_duplicates(torch.tensor(cells), features)
    rows = {}
    for row, one in enumerate(cells):
        rows.setdefault(one, []).append(row)
    assert [tuple(one) for one in merged.tolist()] == list(rows)
    assert first.tolist() == [members[0] for members in rows.values()]
    assert [tuple(merged[i].tolist()) for i in of_row] == cells
    for result, members in zip(mean, rows.values()):
        assert torch.allclose(result, features[members].mean(0))
    SparseTensor(merged, mean)


@settings(deadline=None)
@given(st.sets(small_cell, min_size=1), st.integers(2, 3))
def test_coarser_levels_round_down(cells, factor):
    x = tensor_of(cells)
    level = coarser_level(x.cache, 1, factor)
    expected = sorted({(b, *(c // factor * factor for c in xyz)) for b, *xyz in cells})
    assert level.coordinates_N4.tolist() == [list(one) for one in expected]
    assert level.coordinates_N4.dtype == torch.int32
    level = coarser_level(x.cache, factor, 2)
    expected = sorted({(b, *(c // (2 * factor) * 2 * factor for c in xyz)) for b, *xyz in cells})
    assert level.coordinates_N4.tolist() == [list(one) for one in expected]


def test_to_a_device_keeps_cells_and_rows():
    x = tensor_of([(0, 3, 2, 1), (0, -3, 2, 1), (1, 0, 0, 0)])
    moved = x.to("cpu")
    assert torch.equal(moved.coordinates, x.coordinates)
    assert torch.equal(moved.features, x.features)
    assert moved.cache is not x.cache
