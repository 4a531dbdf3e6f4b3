"""The sparse UNets: size, names, rows, batches, precision."""

import sys

import pytest
import torch

from pri3d.config import NAMED_3D
from pri3d.errors import Pri3DError
from pri3d.models.heads import ProjectionHeads
from pri3d.models.minkunet import minkunet
from pri3d.sparse.coordinates import SparseTensor, collate


def small_network(**settings):
    torch.manual_seed(0)
    widths = settings.pop("widths", (32, 16, 16, 24, 24, 16, 16, 16))
    return minkunet(out_channels=8, widths=widths, blocks=[1] * 8, **settings)


def cloud(seed, rows=600, dtype=torch.float32):
    """Cells on a bumpy sheet, shuffled, partly negative; and colors."""
    generator = torch.Generator().manual_seed(seed)
    xy = torch.randint(-20, 20, (rows, 2), generator=generator)
    z = (4 * torch.sin(xy[:, :1] / 6) + 3 * torch.cos(xy[:, 1:] / 5)).floor().long()
    cells = torch.unique(torch.cat([xy, z], dim=1), dim=0)
    cells = cells[torch.randperm(len(cells), generator=generator)]
    return cells.int(), torch.rand(len(cells), 3, generator=generator, dtype=dtype)


def parameters_of(**settings):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in minkunet(**settings).parameters())


def test_published_parameter_counts():
    assert parameters_of() == 37_863_424
    assert parameters_of(out_channels=32, stem_kernel=3) == 37_847_808


def test_published_names_and_shapes():
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in minkunet().state_dict().items()}
    expected = {
        "conv0p1s1.kernel": (125, 3, 32),
        "bn0.bn.running_mean": (32,),
        "conv1p1s2.kernel": (8, 32, 32),
        "block1.1.conv2.kernel": (27, 32, 32),
        "block1.0.norm2.bn.weight": (32,),
        "block2.0.downsample.0.kernel": (32, 64),
        "block2.0.downsample.1.bn.bias": (64,),
        "block4.5.conv1.kernel": (27, 256, 256),
        "convtr4p16s2.kernel": (8, 256, 256),
        "bntr4.bn.num_batches_tracked": (),
        "block8.0.conv1.kernel": (27, 128, 96),
        "final.kernel": (96, 96),
        "final.bias": (1, 96),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert "block1.0.downsample.0.kernel" not in shapes


@pytest.mark.parametrize("wrong", [{"widths": (32,) * 7}, {"blocks": (1,) * 9}])
def test_eight_stages(wrong):
    with pytest.raises(ValueError, match="expected 8, 8"):
        minkunet(**wrong)


def test_an_engine_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "MinkowskiEngine", None)
    monkeypatch.delitem(sys.modules, "pri3d.sparse.engine_minkowski", raising=False)
    with pytest.raises(Pri3DError, match=r"cannot be imported .* run `make minkowski`"):
        small_network(engine="minkowski")


def test_rows_come_back_in_their_order():
    network = small_network().double().eval()
    cells, colors = cloud(0, dtype=torch.float64)
    out = network(collate([(cells, colors)]))
    assert out.stride == 1
    assert out.features.shape == (len(cells), 8)
    assert torch.equal(out.coordinates[:, 1:], cells)
    order = torch.randperm(len(cells))
    shuffled = network(collate([(cells[order], colors[order])]))
    assert torch.allclose(shuffled.features, out.features[order], atol=1e-12, rtol=0)


def test_clouds_of_a_batch_are_independent():
    network = small_network().double().eval()
    clouds = [cloud(seed, rows, torch.float64) for seed, rows in ((0, 600), (1, 200), (2, 400))]
    together = network(collate(clouds)).features
    alone = torch.cat([network(collate([one])).features for one in clouds])
    assert torch.allclose(together, alone, atol=1e-12, rtol=0)


def test_moving_by_the_coarsest_stride_changes_nothing():
    network = small_network(stem_kernel=3).double().eval()
    cells, colors = cloud(0, dtype=torch.float64)
    out = network(collate([(cells, colors)])).features
    moved = network(collate([(cells + torch.tensor([16, -160, 32]), colors)])).features
    assert torch.allclose(moved, out, atol=1e-12, rtol=0)
    elsewhere = network(collate([(cells + 1, colors)])).features
    assert not torch.allclose(elsewhere, out, atol=1e-3)


def test_every_parameter_learns():
    network = small_network(widths=NAMED_3D["minkunet14a"]["widths"])
    out = network(collate([cloud(0), cloud(1)]))
    (out.features * torch.randn_like(out.features)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_autocast_stays_close_to_float32():
    network = small_network()
    x = collate([cloud(0), cloud(1)])
    exact = network(x).features
    with torch.autocast("cpu", torch.bfloat16):
        out = network(SparseTensor(x.coordinates, x.features)).features
    assert (out.float() - exact).norm() < 0.05 * exact.norm()
    out.float().square().sum().backward()
    assert network.conv0p1s1.kernel.grad.dtype == torch.float32


def test_heads_meet_in_one_space():
    heads = ProjectionHeads(32)
    assert {name: tuple(value.shape) for name, value in heads.state_dict().items()} == {
        "w2d.weight": (64, 32),
        "w2d.bias": (64,),
        "w3d.weight": (64, 96),
        "w3d.bias": (64,),
    }
