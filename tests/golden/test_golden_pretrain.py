"""One pretraining step and the schedule reproduce those of the published Pri3D."""

import re

import numpy as np
import pytest
import torch
from golden_vectors import Golden, cases

from pri3d.config import Pretrain
from pri3d.pretrain import modes
from pri3d.pretrain.augment import normalise
from pri3d.pretrain.samples import Batch, Matches, Side
from pri3d.training import learning_rate

pytestmark = pytest.mark.golden

# The published step also has a depth term, which these parameters do not feel.
WITHOUT_DEPTH = ("backbone3d.", "w2d.", "w3d.")


def published_step(golden: Golden) -> Batch:
    height, width = golden.about["cases"]["size"]
    pairs = len(golden.arrays["in.rgb1"])
    sampled = [golden.tensor(f"term{i}.sampled") for i in range(3 * pairs)]

    def cells(rows_N, columns_N, pair):
        return rows_N // 2 * (width // 2) + columns_N // 2 + pair * (height // 2) * (width // 2)

    view = [sampled[3 * pair] for pair in range(pairs)]
    counts = [len(matches) for matches in view]
    anchors = [cells(m[:, 0], m[:, 1], pair) for pair, m in enumerate(view)]
    positives = [cells(m[:, 2], m[:, 3], pair) for pair, m in enumerate(view)]
    sides, images = [], []
    for image in (1, 2):
        rgb = golden.tensor(f"in.rgb{image}") / 255
        images.append(torch.stack([normalise(one.permute(2, 0, 1)) for one in rgb]))
        voxel_V4 = golden.tensor(f"in.voxels{image}")
        order = torch.argsort(voxel_V4[:, 0], stable=True)  # chunk by chunk
        voxel_V4 = voxel_V4[order]
        geo = [sampled[3 * pair + image] for pair in range(pairs)]
        rows = [
            (voxel_V4 == torch.tensor([pair, *voxel.tolist()])).all(dim=1).nonzero().item()
            for pair, matches in enumerate(geo)
            for voxel in matches[:, 2:]
        ]
        matches = Matches(
            torch.cat([cells(m[:, 1], m[:, 0], pair) for pair, m in enumerate(geo)]),
            torch.tensor(rows),
            [len(m) for m in geo],
        )
        color_V3 = golden.tensor(f"in.voxel_rgb{image}")[order] / 255
        chunk_sizes = torch.bincount(voxel_V4[:, 0]).tolist()
        sides.append(Side(voxel_V4[:, 1:].int(), color_V3, chunk_sizes, matches))
    view = Matches(torch.cat(anchors), torch.cat(positives), counts)
    return Batch([], *images, view, *sides, [])


@pytest.mark.parametrize("file", sorted({case.values[0] for case in cases("09_pri3d_step")}))
def test_one_step(file):
    golden = Golden(file)
    config = golden.about["cases"]["config"]
    settings = Pretrain(
        temperature=config["nceT"], normalise=True, symmetric=True, net2d="resnet18"
    )
    nets = modes.networks("joint", settings).double()
    for name, value in nets.state_dict().items():
        value.copy_(golden.weight(name, value.shape))
    nets.train()
    batch = published_step(golden)
    terms = modes.joint(nets, batch, settings)
    pairs = len(batch.view.counts)
    published = golden.tensor("terms").view(pairs, 3)  # view, geo of image 1, geo of image 2
    assert torch.allclose(terms["view"].loss_S, published[:, 0], rtol=1e-9)
    assert torch.allclose(terms["geo"].loss_S, published[:, 1:].T.flatten(), rtol=1e-9)
    loss = modes.total(terms)
    golden.check("loss.contrastive_loss", loss)
    loss.backward()
    parameters = dict(nets.named_parameters())
    checked = [n for n in golden.about["gradient_parameters"] if n.startswith(WITHOUT_DEPTH)]
    assert checked
    for name in checked:
        golden.check(f"grad.{name}", parameters[name].grad)
    golden.check_buffers("after.", nets.state_dict())


@pytest.mark.parametrize(
    ("file", "case"),
    [case for case in cases("07_optimizer_schedule") if case.values[1] == "pri3d_poly"],
)
def test_schedule_and_optimiser(file, case):
    golden = Golden(file)
    A, b, x = golden.tensor("A"), golden.tensor("b"), golden.tensor("x0").requires_grad_()
    rates = golden.arrays[f"{case}.lr"]
    steps = int(re.search(r"max_iter (\d+),", golden.about["cases"][case]["schedule"])[1])
    settings = Pretrain(steps=steps)
    found = [learning_rate(settings, step) for step in range(1, len(rates) + 1)]
    assert np.allclose(found, rates, rtol=1e-12)
    optimizer = torch.optim.SGD([x], settings.lr, settings.momentum, settings.dampening)
    for step, lr in enumerate(found):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        (0.5 * x @ A @ x - b @ x).backward()
        optimizer.step()
        expected = golden.tensor(f"{case}.x")[step + 1]
        assert torch.allclose(x.detach(), expected, rtol=1e-9)
