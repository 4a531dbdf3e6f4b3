"""A step of finetuning follows the mean over all labels, however its batch is divided."""

import numpy as np
import pytest
import torch

from pri3d.config import Semseg
from pri3d.finetune.samples import Damaged
from pri3d.finetune.step import seed_of, step
from pri3d.finetune.tasks import semseg
from pri3d.finetune.tasks.semseg import Batch
from pri3d.run.processes import Processes

SETTINGS = Semseg(network2d="resnet18_half", precision="float32")
HERE = Processes(0, 1, torch.device("cpu"))


def images(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and classes; the first image has few labels, the second has none."""
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.rand(number, 3, 64, 64, generator=generator, dtype=torch.float64)
    targets_BHW = torch.randint(0, 5, (number, 64, 64), generator=generator).to(torch.uint8)
    targets_BHW[0, 3:] = 255
    targets_BHW[1] = 255
    return images_BCHW, targets_BHW


def networks() -> torch.nn.ModuleDict:
    """Batch norm with fixed statistics: images do not affect each other."""
    torch.manual_seed(3)
    return semseg.build(5, SETTINGS).double().eval()


def taken(nets, batches, settings=SETTINGS, lr=0.1):
    optimizer = torch.optim.SGD(nets.parameters(), lr=lr)
    return step(nets, optimizer, batches, 1, semseg, settings, "images", HERE)


@pytest.mark.parametrize("parts", [[4], [1, 3], [1, 1, 2]])
@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_a_step_follows_the_gradient_of_the_mean_over_all_labels(parts, clip_norm):
    images_BCHW, targets_BHW = images(4)
    expected = networks()
    scores = semseg.logits(expected, images_BCHW, SETTINGS)
    loss = torch.nn.functional.cross_entropy(scores, targets_BHW.long(), ignore_index=255)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in expected.parameters()])
    length = torch.linalg.vector_norm(gradient).item()
    scale = 1 if clip_norm is None else min(1, clip_norm / length)

    ends = np.cumsum(parts)
    batches = [
        Batch([f"{i}" for i in range(size)], images_BCHW[end - size : end], target, [], [])
        for end, size, target in zip(ends, parts, targets_BHW.split(parts))
    ]
    nets = networks()
    done = taken(nets, batches, SETTINGS.model_copy(update={"clip_norm": clip_norm}))
    assert done.loss == pytest.approx(loss.item(), rel=1e-5)
    assert done.grad_norm == pytest.approx(length, rel=1e-4)
    assert done.sums["pixels_loss"] == pytest.approx(loss.item(), rel=1e-5)
    for (name, value), before in zip(nets.named_parameters(), expected.parameters()):
        moved = before - 0.1 * scale * before.grad
        assert torch.allclose(value, moved, rtol=1e-5, atol=1e-7), name


def test_a_batch_without_labels_changes_nothing():
    nets = networks().train()
    before = {name: value.clone() for name, value in nets.state_dict().items()}
    images_BCHW, targets_BHW = images(2)
    unlabeled = Batch(["a"], images_BCHW[1:], targets_BHW[1:], [], [])
    unreadable = Batch([], None, None, [Damaged("b", "b.jpg: is cut")], [])
    done = taken(nets, [unlabeled, unreadable])
    assert done.loss is None
    assert done.sums == {"skipped: batch without labels": 2, "skipped: image cannot be read": 1}
    for name, value in nets.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_loss_that_is_not_finite_changes_nothing_and_is_named():
    nets = networks().train()
    before = {name: value.clone() for name, value in nets.state_dict().items()}
    images_BCHW, targets_BHW = images(2)
    images_BCHW[0, 0, 0, 0] = torch.nan
    done = taken(nets, [Batch(["a", "b"], images_BCHW, targets_BHW, [], [])])
    assert done.not_finite == ["a", "b"]
    for name, value in nets.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_steps_and_micro_batches_draw_differently():
    seeds = {seed_of(1, step, micro) for step in range(1, 200) for micro in range(50)}
    assert len(seeds) == 199 * 50
