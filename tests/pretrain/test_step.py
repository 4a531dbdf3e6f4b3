"""One step adds up what all samples of a batch say, however they are put into micro-batches."""

import pytest
import torch
from make_artefacts import make_artefacts

from pri3d.config import Pretrain
from pri3d.pretrain.image_pairs import ImagePairs
from pri3d.pretrain.image_pairs import collate_image_pairs as collate
from pri3d.pretrain.modes import joint
from pri3d.pretrain.step import step

GIVEN = {"height": 64, "width": 64, "matches": 50, "radius_m": 0.04, "augment_color": False}
GIVEN |= {
    "network2d": "resnet18_half",
    "network3d": {"widths": [8] * 8, "blocks": [1] * 8},
    "batch": 4,
    "steps": 3,
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Four pairs: one has no view term, another one only one side of geo."""
    room = make_artefacts(tmp_path_factory.mktemp("room"))
    data = ImagePairs(**room, settings=Pretrain(**GIVEN))
    four = [data[i] for i in range(4)]
    four[0] = four[0]._replace(view=None, skipped=["view: none"])
    four[2] = four[2]._replace(chunks=(None, four[2].chunks[1]), skipped=["geo: none"])
    return four


def networks() -> torch.nn.ModuleDict:
    """Batch norm with fixed statistics: samples do not act on each other."""
    torch.manual_seed(3)
    return joint.networks(Pretrain(**GIVEN)).double().eval()


def batch_of(samples):
    batch = collate(samples)
    sides = [
        side._replace(color_V3=side.color_V3.double()) for side in (batch.voxels_a, batch.voxels_b)
    ]
    images = batch.image_a_BCHW.double(), batch.image_b_BCHW.double()
    return batch._replace(
        image_a_BCHW=images[0], image_b_BCHW=images[1], voxels_a=sides[0], voxels_b=sides[1]
    )


def mean_over_samples(nets, samples, settings) -> torch.Tensor:
    """Sample by sample: mean of the view losses plus mean of the geo losses that there are."""
    losses = {"view": [], "geo": []}
    for sample in samples:
        for name, term in joint.loss(nets, batch_of([sample]), settings).items():
            losses[name] += list(term.loss_S)
    assert [len(values) for values in losses.values()] == [3, 7]
    return sum(torch.stack(values).mean() for values in losses.values())


@pytest.mark.parametrize("parts", [[4], [3, 1], [1, 1, 2]])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_step_follows_the_gradient_of_the_mean_over_all_samples(samples, parts, clip):
    settings = Pretrain(**GIVEN, clip_norm=clip)
    expected = networks()
    loss = mean_over_samples(expected, samples, settings)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in expected.parameters()])
    length = torch.linalg.vector_norm(gradient).item()
    scale = 1 if clip is None else min(1, clip / length)

    nets = networks()
    optimizer = torch.optim.SGD(nets.parameters(), lr=0.1)
    ends = [sum(parts[: i + 1]) for i in range(len(parts))]
    batches = [batch_of(samples[end - size : end]) for end, size in zip(ends, parts)]
    done = step(nets, optimizer, batches, joint, settings)
    assert done.loss == pytest.approx(loss.item(), rel=1e-9)
    assert done.grad_norm == pytest.approx(length, rel=1e-6)
    for (name, value), start in zip(nets.named_parameters(), expected.parameters()):
        moved = start - 0.1 * scale * start.grad
        assert torch.allclose(value, moved, rtol=1e-6, atol=1e-9), name


def test_an_empty_batch_changes_nothing(samples):
    nets, settings = networks().train(), Pretrain(**GIVEN)
    before = {name: value.clone() for name, value in nets.state_dict().items()}
    nothing = [s._replace(view=None, chunks=(None, None), skipped=["gone"]) for s in samples]
    optimizer = torch.optim.SGD(nets.parameters(), lr=0.1)
    done = step(nets, optimizer, [collate(nothing)], joint, settings)
    assert done.loss is None
    assert done.sums["skipped: gone"] == 4
    for name, value in nets.state_dict().items():
        assert torch.equal(value, before[name]), name
