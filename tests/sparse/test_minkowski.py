"""MinkowskiEngine and our engine compute the same, from the same weights, in the same rows."""

import copy

import pytest
import torch
from loss_terms import total
from make_artefacts import make_artefacts

import pri3d.models.minkunet as models
from pri3d.config import NAMED_3D, Pretrain
from pri3d.errors import Pri3DError
from pri3d.models.minkunet import minkunet
from pri3d.pretrain.modes import Inputs, module_of
from pri3d.sparse.convolution import SparseConv, SparseConvTranspose, use_engine
from pri3d.sparse.coordinates import SparseTensor, collate

try:
    from pri3d.sparse.engine_minkowski import ME
except Pri3DError as error:
    pytest.skip(str(error), allow_module_level=True)

pytestmark = pytest.mark.minkowski

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def cells(rows, seed=0):
    """Shuffled cells of two clouds on bumpy sheets, partly negative."""
    generator = torch.Generator().manual_seed(seed)
    clouds = []
    for _ in range(2):
        xy = torch.randint(-20, 20, (rows // 2, 2), generator=generator)
        z = (4 * torch.sin(xy[:, :1] / 6) + 3 * torch.cos(xy[:, 1:] / 5)).floor().long()
        cloud = torch.unique(torch.cat([xy, z], dim=1), dim=0)
        clouds.append(cloud[torch.randperm(len(cloud), generator=generator)].int())
    return clouds


def batch_of(clouds, channels, dtype):
    """A tensor whose features want gradients."""
    generator = torch.Generator().manual_seed(1)
    features = [torch.randn(len(c), channels, generator=generator, dtype=dtype) for c in clouds]
    x = collate(list(zip(clouds, features)))
    x.features.requires_grad_()
    return x


def results(network, x: SparseTensor) -> dict[str, torch.Tensor]:
    """Output and all gradients of a random projection of it."""
    network.zero_grad()
    out = network(x)
    weights = torch.randn(
        out.features.shape, dtype=out.features.dtype, generator=torch.Generator().manual_seed(2)
    )
    (out.features * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    return {"out": out.features, "x": x.features.grad, **gradients}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape
        assert found[name].dtype == value.dtype
        error = (found[name] - value).norm() / value.norm()
        assert error < TOLERANCE[value.dtype], f"{name}: {error}"


def assert_engines_agree(network, channels, dtype, rows=800):
    clouds = cells(rows)
    network = network.to(dtype)
    expected = results(network, batch_of(clouds, channels, dtype))
    use_engine(network, "minkowski")
    assert_equal(results(network, batch_of(clouds, channels, dtype)), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("size", "stride", "dilation", "bias"),
    [
        (1, 1, 1, True),
        (3, 1, 1, False),
        (3, 1, 2, True),
        (5, 1, 1, False),
        (1, 2, 1, False),
        (2, 2, 1, False),
        (3, 2, 1, False),
    ],
)
def test_convolution(size, stride, dilation, bias, dtype):
    torch.manual_seed(0)
    layer = SparseConv(5, 7, size, stride, dilation, bias)
    assert_engines_agree(layer, 5, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [2, 3])
def test_transposed_convolution(size, dtype):
    torch.manual_seed(0)
    down_and_up = torch.nn.Sequential(
        SparseConv(5, 6, 2, 2), SparseConv(6, 6, 3), SparseConvTranspose(6, 4, size, 2, bias=True)
    )
    assert_engines_agree(down_and_up, 5, dtype)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("minkunet14a", torch.float32),
        ("minkunet34c", torch.float32),
        ("minkunet14a", torch.float64),
    ],
)
def test_whole_network(name, dtype):
    torch.manual_seed(0)
    network = minkunet(3, 32, **NAMED_3D[name])
    # A running sum in float32 would be compared with itself otherwise.
    assert_engines_agree(network.eval(), 3, dtype)
    assert_engines_agree(minkunet(3, 32, **NAMED_3D[name]).train(), 3, torch.float64)


def test_rows_come_back_in_their_order():
    network = minkunet(3, 8, **NAMED_3D["minkunet14a"], engine="minkowski").double().eval()
    x = batch_of(cells(400), 3, torch.float64)
    out = network(x)
    assert torch.equal(out.coordinates, x.coordinates)
    order = torch.randperm(len(x.features), generator=torch.Generator().manual_seed(3))
    shuffled = network(SparseTensor(x.coordinates[order], x.features[order]))
    assert torch.allclose(shuffled.features, out.features[order], atol=1e-12, rtol=0)


def their_network(monkeypatch, **arguments):
    """The same network of MinkowskiEngine's own layers, tensors and coordinates."""

    def convolution(kind, n_in, n_out, size, stride=1, bias=False):
        return kind(n_in, n_out, kernel_size=size, stride=stride, bias=bias, dimension=3)

    with monkeypatch.context() as patch:
        patch.setattr(
            models, "SparseConv", lambda *a, **k: convolution(ME.MinkowskiConvolution, *a, **k)
        )
        patch.setattr(
            models,
            "SparseConvTranspose",
            lambda *a, **k: convolution(ME.MinkowskiConvolutionTranspose, *a, **k),
        )
        patch.setattr(models, "SparseBatchNorm", ME.MinkowskiBatchNorm)
        return minkunet(**arguments)


def test_weights_of_a_network_of_their_layers_load_unchanged(monkeypatch):
    torch.manual_seed(0)
    arguments = {"out_channels": 16, **NAMED_3D["minkunet14a"]}
    theirs = their_network(monkeypatch, **arguments).double()
    for name, buffer in theirs.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand_like(buffer) + (0.5 if "var" in name else 0))
    theirs.eval()
    for name, function in {
        "relu": ME.MinkowskiFunctional.relu,
        "add": lambda x, y: x + y,
        "concatenate": ME.cat,
    }.items():
        monkeypatch.setattr(models, name, function)
    x = batch_of(cells(800), 3, torch.float64)
    given = ME.SparseTensor(features=x.features, coordinates=x.coordinates)
    out = theirs(given)
    rows = {tuple(cell): row for row, cell in enumerate(out.C.tolist())}
    expected = out.F[[rows[tuple(cell)] for cell in x.coordinates.tolist()]]
    monkeypatch.undo()

    for engine in ("torch", "minkowski"):
        ours = minkunet(**arguments, engine=engine).double().eval()
        ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
        found = ours(SparseTensor(x.coordinates, x.features)).features
        assert_equal({"out": found}, {"out": expected})


@pytest.mark.parametrize("mode", ["geo", "joint"])
def test_a_step_of_pretraining(mode, tmp_path):
    settings = Pretrain(
        height=64, width=84, radius_m=0.04, matches=60, batch=2, steps=9,
        network3d={"widths": [8] * 8, "blocks": [1] * 8},
    )  # fmt: skip
    module = module_of(mode)
    data = module.samples(Inputs(**make_artefacts(tmp_path)), settings)
    batch = data.collate([data[0], data[1]])
    actual = {}
    for engine in ("torch", "minkowski"):
        torch.manual_seed(0)
        nets = module.networks(settings)
        use_engine(nets, engine)
        loss = total(module.loss(nets, batch, settings))
        loss.backward()
        before = loss.item()
        torch.optim.SGD(nets.parameters(), lr=0.01).step()
        loss = total(module.loss(nets, batch, settings))
        actual[engine] = (before, loss.item())
    assert actual["minkowski"] == pytest.approx(actual["torch"], rel=1e-4)
    assert actual["torch"][0] != actual["torch"][1]
