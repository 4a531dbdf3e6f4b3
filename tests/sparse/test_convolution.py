"""Sparse layers against dense convolutions of the same, mostly empty, grid."""

import pytest
import torch
from torch.nn.functional import conv3d, conv_transpose3d, pad

from pri3d.sparse import engine_cpu
from pri3d.sparse.convolution import (
    SparseBatchNorm,
    SparseConv,
    SparseConvTranspose,
    concatenate,
    relu,
)
from pri3d.sparse.coordinates import SparseTensor, collate

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
# Cells lie in [-12, 11]: half the side is a multiple of every stride here (1, 2, 3, 4).
HALF = 12


def clouds(channels, dtype=torch.float64, rows=400, batches=3) -> SparseTensor:
    """Shuffled cells, also negative ones; each cloud has a crowded corner and a sparse rest."""
    generator = torch.Generator().manual_seed(1)
    cells = []
    for batch in range(batches):
        near = torch.randint(-4, 3, (rows // 2, 3), generator=generator)
        far = torch.randint(-HALF, HALF, (rows // 2, 3), generator=generator)
        xyz = torch.unique(torch.cat([near, far]), dim=0)
        cells.append(pad(xyz, (1, 0), value=batch))
    cells = torch.cat(cells)
    cells = cells[torch.randperm(len(cells), generator=generator)]
    features = torch.randn(len(cells), channels, dtype=dtype, generator=generator)
    return SparseTensor(cells, features.requires_grad_())


def dense(x: SparseTensor) -> torch.Tensor:
    """The features on the whole grid [B, C, X, Y, Z] of the tensor's stride, zero where empty."""
    side = 2 * HALF // x.stride
    b, *xyz = x.coordinates.unbind(1)
    grid = x.features.new_zeros(int(b.max()) + 1, x.features.shape[1], side, side, side)
    cell = [(c + HALF) // x.stride for c in xyz]
    return grid.permute(0, 2, 3, 4, 1).index_put((b, *cell), x.features).permute(0, 4, 1, 2, 3)


def at_cells(grid_BCXYZ: torch.Tensor, out: SparseTensor) -> torch.Tensor:
    b, *xyz = out.coordinates.unbind(1)
    cell = [(c + HALF) // out.stride for c in xyz]
    return grid_BCXYZ.permute(0, 2, 3, 4, 1)[(b, *cell)]


def dense_weight(layer) -> torch.Tensor:
    """[out, in, x, y, z] of a kernel whose first dimension counts x fastest."""
    size, (n_in, n_out) = layer.kernel_size, layer.kernel.shape[-2:]
    return layer.kernel.reshape(size, size, size, n_in, n_out).permute(4, 3, 2, 1, 0)


def assert_close(result, expected):
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    error = (result - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCE[result.dtype], float(error)


def assert_same_values_and_gradients(result, expected, inputs):
    assert_close(result, expected)
    weights = torch.randn(
        result.shape, dtype=result.dtype, generator=torch.Generator().manual_seed(2)
    )
    gradients = torch.autograd.grad(result, inputs, weights)
    for got, wanted in zip(gradients, torch.autograd.grad(expected, inputs, weights)):
        assert_close(got, wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("size", "stride", "dilation", "bias"),
    [
        (1, 1, 1, True),
        (2, 1, 1, False),
        (3, 1, 1, False),
        (3, 1, 1, True),
        (3, 1, 2, False),
        (3, 1, 3, False),
        (5, 1, 1, False),
        (1, 2, 1, False),
        (2, 2, 1, False),
        (2, 2, 1, True),
        (2, 3, 1, False),
        (3, 2, 1, False),
        (3, 2, 2, False),
        (4, 3, 1, False),
    ],
)
def test_convolution_is_the_dense_one(size, stride, dilation, bias, dtype):
    x = clouds(5, dtype)
    layer = SparseConv(5, 7, size, stride, dilation, bias).to(dtype)
    if bias:
        torch.nn.init.normal_(layer.bias)
    out = layer(x)
    assert out.stride == stride

    before = size // 2 if size % 2 else 0
    padding = (before * dilation, (size - 1 - before) * dilation) * 3
    padded = pad(dense(x), padding)
    bias_of = layer.bias[0] if bias else None
    grid = conv3d(padded, dense_weight(layer), bias_of, stride=stride, dilation=dilation)
    parameters = list(layer.parameters())
    expected = at_cells(grid, out)
    assert_same_values_and_gradients(out.features, expected, [x.features, *parameters])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("size", "stride", "bias"), [(2, 2, False), (2, 2, True), (3, 2, False), (3, 3, False)]
)
def test_transposed_convolution_is_the_dense_one(size, stride, bias, dtype):
    x = clouds(5, dtype)
    down = SparseConv(5, 6, stride, stride).to(dtype)
    up = SparseConvTranspose(6, 4, size, stride, bias).to(dtype)
    if bias:
        torch.nn.init.normal_(up.bias)
    coarse = down(x)
    coarse = coarse.with_features(coarse.features.detach().requires_grad_())
    out = up(coarse)
    assert out.stride == 1
    assert torch.equal(out.coordinates, x.coordinates)

    weight = dense_weight(up).transpose(0, 1)
    before = size // 2 if size % 2 else 0
    grid = conv_transpose3d(dense(coarse), weight, up.bias[0] if bias else None, stride=stride)
    side = 2 * HALF
    grid = grid[:, :, before:, before:, before:]
    grid = pad(grid, (0, max(0, side - grid.shape[-1])) * 3)
    expected = at_cells(grid, out)
    parameters = list(up.parameters())
    assert_same_values_and_gradients(out.features, expected, [coarse.features, *parameters])


def test_convolution_on_a_coarser_level_and_back():
    x = clouds(3)
    layers = [
        SparseConv(3, 4, 2, 2),
        SparseConv(4, 4, 3),
        SparseConv(4, 5, 2, 2),
        SparseConv(5, 5, 3, dilation=2),
    ]
    y = x
    for layer in layers:
        layer.double()
        weight, before = dense_weight(layer), layer.kernel_size // 2
        if layer.stride == 2:
            grid = conv3d(dense(y), weight, stride=2)
        else:
            reach = before * layer.dilation
            grid = conv3d(dense(y), weight, padding=reach, dilation=layer.dilation)
        y = layer(y)
        assert_close(y.features, at_cells(grid, y))
    assert y.stride == 4
    back = SparseConvTranspose(5, 3, 2, 2).double()
    assert back(back(y).with_features(torch.zeros(len(back(y).features), 5).double())).stride == 1


def test_transposed_convolution_needs_the_finer_cells():
    coarse = SparseTensor(torch.tensor([[0, 2, 2, 2]]), torch.zeros(1, 3), stride=2)
    with pytest.raises(ValueError, match="did not come from"):
        SparseConvTranspose(3, 3, 2, 2)(coarse)
    with pytest.raises(ValueError, match="did not come from"):
        SparseConvTranspose(3, 3, 3, 3)(coarse)


def test_order_of_rows_does_not_matter():
    x = clouds(4)
    layer = SparseConv(4, 6, 3).double()
    order = torch.randperm(len(x.features), generator=torch.Generator().manual_seed(3))
    shuffled = SparseTensor(x.coordinates[order], x.features[order])
    assert_close(layer(shuffled).features, layer(x).features[order])


def test_clouds_of_a_batch_do_not_see_each_other():
    x = clouds(4)
    layer = SparseConv(4, 6, 5).double()
    together = layer(x).features
    for batch in range(3):
        mine = x.coordinates[:, 0] == batch
        alone = collate([(x.coordinates[mine, 1:], x.features[mine])])
        assert_close(layer(alone).features, together[mine])


def test_results_repeat_bit_for_bit():
    x = clouds(16, torch.float32)
    layer = SparseConv(16, 16, 3)
    first, second = layer(x).features, layer(SparseTensor(x.coordinates, x.features)).features
    assert torch.equal(first, second)
    (grad,) = torch.autograd.grad(first.sum(), x.features)
    assert torch.equal(grad, torch.autograd.grad(second.sum(), x.features)[0])


def test_sums_are_the_same_with_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(engine_cpu, "SMALL", 0)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            x, features = full_cube(20, torch.float32)
            torch.manual_seed(0)
            # Strided: the middle of a kernel is not left to the library's matrix product.
            layer = SparseConv(20, 40, 3, stride=2)
            out = layer(x).features
            gradients = torch.autograd.grad(out.square().sum(), [features, layer.kernel])
            results.append([out, *gradients])
    finally:
        torch.set_num_threads(before)
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others))


def test_autograd_keeps_features_and_weights_only():
    x = clouds(16, torch.float32, rows=6000, batches=1)
    layer = SparseConv(16, 16, 3)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x)
    assert {t.data_ptr() for t in kept} == {x.features.data_ptr(), layer.kernel.data_ptr()}


def full_cube(channels, dtype):
    """Cells enough for several groups of pairs, and their features [28 ** 3, channels]."""
    side = torch.arange(-14, 14)
    cells = torch.cartesian_prod(side, side, side)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(len(cells), channels, dtype=dtype, generator=generator)
    return collate([(cells, features.requires_grad_())]), features


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("n_in", "n_out"), [(2, 3), (16, 16), (3, 32), (20, 40), (1, 1)])
def test_more_rows_than_a_group(n_in, n_out, dtype):
    x, features = full_cube(n_in, dtype)
    layer = SparseConv(n_in, n_out, 3).to(dtype)
    grid = features.reshape(1, 28, 28, 28, n_in).permute(0, 4, 1, 2, 3)
    grid = conv3d(grid, dense_weight(layer), padding=1)
    expected = grid.permute(0, 2, 3, 4, 1).reshape(-1, n_out)
    assert_same_values_and_gradients(layer(x).features, expected, [features, layer.kernel])


def test_gradients_by_finite_differences():
    x = clouds(2, rows=24, batches=2)
    layer = SparseConv(2, 3, 3).double()

    def run(features, kernel):
        rows = x.with_features(features)
        return torch.func.functional_call(layer, {"kernel": kernel}, (rows,)).features

    assert torch.autograd.gradcheck(run, (x.features, layer.kernel))


def test_only_wanted_gradients_are_formed():
    x = clouds(3)
    frozen = SparseConv(3, 4, 3).double().requires_grad_(False)
    frozen(x).features.sum().backward()
    assert x.features.grad is not None
    assert frozen.kernel.grad is None
    layer = SparseConv(3, 4, 3).double()
    layer(x.with_features(x.features.detach())).features.sum().backward()
    assert layer.kernel.grad is not None


def test_autocast_multiplies_in_bfloat16_and_sums_in_float32():
    x = clouds(8, torch.float32)
    layer = SparseConv(8, 8, 3)
    exact = layer(x).features
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x).features
    assert out.dtype == torch.bfloat16
    assert (out.float() - exact).abs().max() < 0.02 * exact.abs().max()
    grads = torch.autograd.grad(out.float().square().sum(), [x.features, layer.kernel])
    wanted = torch.autograd.grad(exact.square().sum(), [x.features, layer.kernel])
    for got, expected in zip(grads, wanted):
        assert got.dtype == torch.float32
        assert (got - expected).abs().max() < 0.03 * expected.abs().max()
    double = clouds(8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.double()(double).features.dtype == torch.float64


def test_no_cells_give_no_rows():
    x = SparseTensor(torch.zeros(0, 4, dtype=torch.int32), torch.zeros(0, 3, requires_grad=True))
    out = SparseConvTranspose(5, 2, 2, 2)(SparseConv(4, 5, 2, 2)(SparseConv(3, 4, 3)(x)))
    assert out.features.shape == (0, 2)
    out.features.sum().backward()


def test_batch_norm_relu_and_concatenation():
    x = clouds(4)
    norm = SparseBatchNorm(4).double()
    assert set(norm.state_dict()) == {f"bn.{name}" for name in torch.nn.BatchNorm1d(4).state_dict()}
    y = norm(x)
    assert_close(
        y.features, (x.features - x.features.mean(0)) / (x.features.var(0, False) + 1e-5).sqrt()
    )
    z = concatenate(relu(norm(x)), y)
    assert z.features.shape[1] == 8
    assert_close(z.features[:, :4], y.features.clamp(min=0))
    assert_close(z.features[:, 4:], y.features)


def test_initial_weights_have_the_variance_of_kaiming_fan_out():
    torch.manual_seed(0)
    for layer, fan_out in [
        (SparseConv(64, 32, 3), 27 * 32),
        (SparseConv(64, 32, 1, bias=True), 32),
        (SparseConvTranspose(64, 32, 2, 2), 8 * 32),
    ]:
        assert abs(layer.kernel.var() * fan_out / 2 - 1) < 0.1
    assert SparseConv(3, 5, 1, bias=True).bias.shape == (1, 5)
