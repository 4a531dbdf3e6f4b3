"""Triton's kernels and plain torch in float64 compute the same, from the same weights.

`test_triton` runs these in a process of their own: without a GPU Triton has to be imported with its
interpreter, which runs the same kernels on the CPU, slowly.
"""

import pytest
import torch

from pri3d.models.minkunet import minkunet
from pri3d.sparse import engine_torch, engine_triton
from pri3d.sparse.convolution import use_engine
from pri3d.sparse.coordinates import SparseTensor
from pri3d.sparse.kernel_map import kernel_map

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The interpreter cannot multiply bfloat16.
TYPES = [torch.float32, torch.float16] + [torch.bfloat16] * (DEVICE == "cuda")
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 5e-3}


def cells(rows, seed=0):
    """Shuffled cells of two clouds, crowded in the middle, partly negative: int64 [N, 4]."""
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.randn(rows, 3, generator=generator).mul(4).round().long()
    batch = torch.randint(0, 2, (rows, 1), generator=generator)
    actual = torch.unique(torch.cat([batch, xyz], dim=1), dim=0)
    return actual[torch.randperm(len(actual), generator=generator)]


def input_at(cells_N4, stride, factor, channels, transposed):
    """A float64 tensor for a layer; for a transposed one at the level that it leads back from."""
    cells_N4 = cells_N4 * torch.tensor([1, stride, stride, stride])
    generator = torch.Generator().manual_seed(1)
    fine = SparseTensor(cells_N4, torch.zeros(len(cells_N4), channels), stride)
    if transposed:
        kernel_map(fine.cache, stride, 2, factor)
        rows = len(fine.cache.levels[stride * factor].keys)
        features = torch.randn(rows, channels, generator=generator, dtype=torch.float64)
        return fine.at_stride(stride * factor, features).cache, stride * factor, features
    features = torch.randn(len(cells_N4), channels, generator=generator, dtype=torch.float64)
    return fine.cache, stride, features


def results(convolve, given, kernel, dtype, device, layer):
    """Output, and gradients of features and kernel for a fixed random projection."""
    cache, stride, features = given
    x = features.to(device, dtype).requires_grad_()
    kernel = kernel.to(device, dtype).requires_grad_()
    fine = min(cache.levels)
    level = cache.levels[fine]
    tensor = SparseTensor(
        level.coordinates_N4.to(device), torch.zeros(len(level.keys), 1, device=device), fine
    )
    if stride != fine:
        kernel_map(tensor.cache, fine, 2, stride // fine)
    out = convolve(tensor.at_stride(stride, x), kernel, *layer)
    generator = torch.Generator().manual_seed(2)
    weights = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    out.backward(weights.to(device, dtype))
    return out.detach(), x.grad, kernel.grad


# (size, stride, dilation, transposed), the stride of the input, channels
LAYERS = [
    ((3, 1, 1, False), 1, 20, 40),
    ((3, 1, 1, False), 2, 130, 7),
    ((3, 1, 2, False), 1, 1, 16),
    ((5, 1, 1, False), 1, 3, 32),
    ((2, 1, 1, False), 1, 8, 8),
    ((2, 2, 1, False), 1, 16, 70),
    ((3, 2, 1, False), 1, 8, 8),
    ((2, 2, 1, True), 1, 24, 16),
    ((3, 2, 1, True), 1, 8, 9),
]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("layer", "stride", "n_in", "n_out"), LAYERS)
def test_convolution_and_its_gradients(layer, stride, n_in, n_out, dtype):
    size, factor, _, transposed = layer
    given = input_at(cells(100), stride, factor, n_in, transposed)
    # Rounded first: what is compared is the arithmetic.
    given = (*given[:2], given[2].to(dtype).double())
    generator = torch.Generator().manual_seed(3)
    kernel = torch.randn(size**3, n_in, n_out, generator=generator).to(dtype).double()
    actual = results(engine_triton.convolve, given, kernel, dtype, DEVICE, layer)
    expected = results(engine_torch.convolve, given, kernel, torch.float64, "cpu", layer)
    for got, wanted in zip(actual, expected):
        assert got.dtype == dtype
        error = (got.cpu().double() - wanted).norm() / wanted.norm()
        assert error < TOLERANCE[dtype], float(error)


def test_several_parts_add_up_and_repeat_to_the_bit(monkeypatch):
    monkeypatch.setattr(engine_triton, "PARTS", 10**6)
    given = input_at(cells(900), 1, 1, 5, False)
    assert len(given[2]) > 2 * 4 * 64  # more than two parts of four tiles
    kernel = torch.randn(27, 5, 6, generator=torch.Generator().manual_seed(3)).double()
    layer = (3, 1, 1, False)
    first, second = (
        results(engine_triton.convolve, given, kernel, torch.float32, DEVICE, layer)
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    expected = results(engine_torch.convolve, given, kernel, torch.float64, "cpu", layer)
    for got, wanted in zip(first, expected):
        assert (got.cpu().double() - wanted).norm() < TOLERANCE[torch.float32] * wanted.norm()


def test_autocast_multiplies_in_its_type_and_gradients_are_float32():
    given = input_at(cells(100), 1, 1, 8, False)
    kernel = torch.randn(27, 8, 8, generator=torch.Generator().manual_seed(3)).double()
    layer = (3, 1, 1, False)

    def convolve(*arguments):
        with torch.autocast(DEVICE, torch.float16):
            out = engine_triton.convolve(*arguments)
        assert out.dtype == torch.float16
        return out.float()

    actual = results(convolve, given, kernel, torch.float32, DEVICE, layer)
    expected = results(engine_torch.convolve, given, kernel, torch.float64, "cpu", layer)
    for got, wanted in zip(actual, expected):
        assert got.dtype == torch.float32
        assert (got.cpu().double() - wanted).norm() < 2e-3 * wanted.norm()


def test_float64_is_left_to_torch():
    given = input_at(cells(200), 1, 1, 4, False)
    kernel = torch.randn(27, 4, 5, dtype=torch.float64)
    layer = (3, 1, 1, False)
    actual = results(engine_triton.convolve, given, kernel, torch.float64, DEVICE, layer)
    expected = results(engine_torch.convolve, given, kernel, torch.float64, "cpu", layer)
    for got, wanted in zip(actual, expected):
        assert torch.allclose(got.cpu(), wanted, rtol=1e-10, atol=1e-10)


def test_a_whole_network_and_every_gradient():
    torch.manual_seed(0)
    widths, blocks = (16,) * 8, (1,) * 8
    network = minkunet(3, 8, widths, blocks, stem_kernel=3).eval()
    clouds = cells(40)
    features = torch.rand(len(clouds), 3)
    actual = {}
    for name, dtype, device in (("torch", torch.float64, "cpu"), ("triton", torch.float32, DEVICE)):
        network.to(device, dtype).zero_grad()
        use_engine(network, name)
        out = network(SparseTensor(clouds.to(device), features.to(device, dtype)))
        out.features.square().sum().backward()
        gradients = [parameter.grad for parameter in network.parameters()]
        actual[name] = [t.detach().cpu().double() for t in (out.features, *gradients)]
    for got, wanted in zip(actual["triton"], actual["torch"]):
        assert (got - wanted).norm() < 2e-4 * wanted.norm()


def test_no_cells_and_one():
    for rows in (0, 1):
        features = torch.ones(rows, 3, device=DEVICE, requires_grad=True)
        x = SparseTensor(torch.zeros(rows, 4, dtype=torch.int32, device=DEVICE), features)
        kernel = torch.ones(27, 3, 2, device=DEVICE, requires_grad=True)
        out = engine_triton.convolve(x, kernel, 3)
        out.sum().backward()
        assert out.tolist() == [[3.0, 3.0]] * rows
        assert features.grad.shape == features.shape
        assert kernel.grad.sum() == 6 * rows
