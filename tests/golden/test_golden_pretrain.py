"""One pretraining step and the schedule reproduce those of the published Pri3D."""

import re

import numpy as np
import pytest
import torch
from golden_vectors import Golden, cases
from loss_terms import total

from pri3d.config import Pretrain
from pri3d.pretrain.batches import Matches, VoxelBatch
from pri3d.pretrain.image_pairs import ImagePairBatch
from pri3d.pretrain.modes import module_of
from pri3d.pretrain.schedules import bn_momentum, learning_rate
from pri3d.transforms.color import normalize

pytestmark = pytest.mark.golden


def published_step(golden: Golden) -> ImagePairBatch:
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
        images.append(torch.stack([normalize(one.permute(2, 0, 1)) for one in rgb]))
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
        sides.append(VoxelBatch(voxel_V4[:, 1:].int(), color_V3, chunk_sizes, matches))
    view = Matches(torch.cat(anchors), torch.cat(positives), counts)
    depths = [torch.from_numpy(golden.arrays[f"in.depth{i}"] / 1000) for i in (1, 2)]  # meters
    return ImagePairBatch([], *images, view, *sides, [], *depths)


@pytest.mark.parametrize("file", sorted({case.values[0] for case in cases("09_pri3d_step")}))
def test_one_step(file):
    golden = Golden(file)
    config = golden.about["cases"]["config"]
    settings = Pretrain(
        network2d=config["backbone"].lower().replace("res", "resnet").removesuffix("unet"),
        temperature=config["nceT"],
        normalize=True,
        symmetric=True,
        match_rule="official",  # matches that share a cell are each other's negatives
        depth_loss=config["depth"],
    )
    mode = module_of("joint" if config["geometric_prior"] else "view")
    nets = mode.networks(settings).double()
    expected = {p["name"] for p in golden.about["parameters"] if p["kind"] != "fixed"}
    assert set(nets.state_dict()) == expected
    for name, value in nets.state_dict().items():
        value.copy_(golden.weight(name, value.shape))
    nets.train()
    batch = published_step(golden)
    terms = mode.loss(nets, batch, settings)
    pairs = len(batch.view.counts)
    published = golden.tensor("terms").view(pairs, 3)  # view, geo of image 1, geo of image 2
    assert torch.allclose(terms["view"].loss_S, published[:, 0], rtol=1e-9)
    assert torch.allclose(terms["geo"].loss_S, published[:, 1:].T.flatten(), rtol=1e-9)
    golden.check("loss.depth_loss", terms["depth"].loss_S.mean())
    contrastive = {name: term for name, term in terms.items() if name != "depth"}
    golden.check("loss.contrastive_loss", total(contrastive))
    loss = total(terms)
    golden.check("loss.total_loss", loss)
    loss.backward()
    parameters = dict(nets.named_parameters())
    for name in golden.about["gradient_parameters"]:
        golden.check(f"grad.{name}", parameters[name].grad)
    golden.check_buffers("after.", nets.state_dict())


OPTIMIZER = re.compile(
    r"SGD lr (?P<lr>[.\d]+) momentum (?P<momentum>[.\d]+)( dampening (?P<dampening>[.\d]+))? "
    r"weight_decay (?P<decay>[-.e\d]+)"
)


@pytest.mark.parametrize(
    ("file", "case"),
    [c for c in cases("07_optimizer_schedule") if c.values[1] not in ("objective", "bn_momentum")],
)
def test_schedule_and_optimiser(file, case):
    """The optimizer of every case; our own schedule where the case has it (PolyLR)."""
    golden = Golden(file)
    A, b, x = golden.tensor("A"), golden.tensor("b"), golden.tensor("x0").requires_grad_()
    rates = golden.arrays[f"{case}.lr"]
    given = OPTIMIZER.match(golden.about["cases"][case]["optimizer"])
    poly = re.search(r"PolyLR power ([.\d]+), max_iter ([.\d]+)", about_schedule(golden, case))
    if poly:
        # Not a whole number where an epoch is not: the setting is in steps, the schedule is not.
        settings = Pretrain.model_construct(
            lr=float(given["lr"]), power=float(poly[1]), steps=float(poly[2])
        )
        computed = [learning_rate(settings, step) for step in range(1, len(rates) + 1)]
        assert np.allclose(computed, rates, rtol=1e-12, atol=0)
    optimizer = torch.optim.SGD(
        [x],
        float(given["lr"]),
        float(given["momentum"]),
        float(given["dampening"] or 0),
        float(given["decay"]),
    )
    for step, lr in enumerate(rates):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        loss = 0.5 * x @ A @ x - b @ x
        assert np.isclose(loss.item(), golden.arrays[f"{case}.loss"][step], rtol=1e-9)
        loss.backward()
        optimizer.step()
        expected = golden.tensor(f"{case}.x")[step + 1]
        assert torch.allclose(x.detach(), expected, rtol=1e-9, atol=0)
    buffer = optimizer.state[x]["momentum_buffer"]
    golden.check(f"{case}.last_momentum_buffer", buffer)


def about_schedule(golden: Golden, case: str) -> str:
    return golden.about["cases"][case]["schedule"]


@pytest.mark.parametrize("file", sorted({c.values[0] for c in cases("07_optimizer_schedule")}))
def test_momentum_of_batch_norm(file):
    published = Golden(file).arrays["bn_momentum"]
    settings = Pretrain(bn_momentum="decaying")
    computed = [bn_momentum(settings, step) for step in range(1, len(published) + 1)]
    assert np.allclose(computed, published, rtol=1e-12, atol=0)
