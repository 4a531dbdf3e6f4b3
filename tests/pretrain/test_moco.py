"""The 2D baseline: its parts move and queue as momentum contrast says, and it learns."""

import numpy as np
import pytest
import torch
from make_artefacts import make_artefacts

from pri3d.config import Pretrain
from pri3d.errors import Pri3DError
from pri3d.pretrain.frame_crops import FrameCropSamples, collate_frame_crops, crop_box
from pri3d.pretrain.modes import moco as mode

SMALL = {"height": 64, "width": 84, "batch": 4, "steps": 20, "moco_queue": 10}


def settings(**changes) -> Pretrain:
    return Pretrain(**SMALL | changes)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    room = make_artefacts(tmp_path_factory.mktemp("room"), scenes=2)
    return {"pairs": room["pairs"], "clouds_dir": room["clouds_dir"]}


def batch_of(samples, first=0) -> object:
    return collate_frame_crops([samples[first + i] for i in range(4)])


def test_frames_are_those_of_the_pairs_and_views_differ(room):
    samples = FrameCropSamples(**room, settings=settings())
    epoch = [samples[i][0] for i in range(8)]
    assert sorted(epoch) == [f"room0{s} frame {f}" for s in (0, 1) for f in (0, 10, 20, 30)]
    name, (query, key), skipped = samples[3]
    assert query.shape == key.shape == (3, 64, 84)
    assert not torch.equal(query, key)
    assert skipped == []
    again = FrameCropSamples(**room, settings=settings())[3]
    assert torch.equal(again[1][0], query)
    assert name == again[0]
    held_out = FrameCropSamples(**room, settings=settings(), held_out=["room00"])
    assert held_out.used_scenes() == ["room01"]
    assert {held_out[i][0][:6] for i in range(8)} == {"room01"}
    with pytest.raises(Pri3DError, match="in held-out scenes"):
        FrameCropSamples(**room, settings=settings(), held_out=["room00", "room01"])


def test_crops_lie_in_the_image_and_cover_20_to_100_percent_of_it():
    rng = np.random.default_rng(0)
    boxes = np.array([crop_box((60, 80), rng) for _ in range(2000)])
    top, left, height, width = boxes.T
    assert (boxes >= 0).all()
    assert (top + height <= 60).all()
    assert (left + width <= 80).all()
    share = height * width / 4800
    assert share.min() > 0.15
    assert share.max() <= 1
    assert np.quantile(share, 0.5) == pytest.approx(0.59, abs=0.05)


def test_the_loss_is_that_of_own_key_against_queue(room):
    torch.manual_seed(0)
    nets = mode.networks(settings()).eval()
    batch = batch_of(FrameCropSamples(**room, settings=settings()))
    with torch.no_grad():
        terms = mode.loss(nets, batch, settings(moco_temperature=0.3))["moco"]
        encoder, moco = nets["backbone"]["encoder"], nets["moco"]
        q = moco.head(torchvision_features(encoder, batch.query_BCHW))
        k = moco.head_k(torchvision_features(moco.encoder_k, batch.key_BCHW))
    for i in range(4):
        own = torch.cosine_similarity(q[i], k[i], dim=0)
        others = torch.cosine_similarity(q[i][None], moco.queue_KC)
        scores = torch.cat([own[None], others]) / 0.3
        expected = torch.logsumexp(scores, 0) - scores[0]
        assert terms.loss_S[i] == pytest.approx(float(expected), abs=1e-5)
        assert terms.recall[i] == float((others < own).all())
    assert terms.candidates == [11] * 4


def torchvision_features(encoder, images):
    import torchvision

    network = torchvision.models.resnet18()
    network.load_state_dict(encoder.state_dict(), strict=False)
    network.fc = torch.nn.Identity()
    return network.eval()(images)


def train_on(nets, optimizer, batch, settings) -> float:
    """A step without what follows it; the loss."""
    optimizer.zero_grad()
    loss = mode.loss(nets, batch, settings)["moco"].loss_S.mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def test_after_a_step_slow_parts_have_moved_and_the_queue_has_the_keys(room):
    torch.manual_seed(0)
    given = settings(moco_momentum=0.75)
    nets = mode.networks(given).train()
    encoder, moco = nets["backbone"]["encoder"], nets["moco"]
    mode.after_initial_weights(nets)
    old = {name: value.clone() for name, value in encoder.named_parameters()}
    optimizer = torch.optim.SGD([p for p in nets.parameters() if p.requires_grad], 0.1)
    samples = FrameCropSamples(**room, settings=given)
    queue = moco.queue_KC.clone()
    train_on(nets, optimizer, batch_of(samples), given)
    keys = torch.cat(moco.new_keys)
    mode.after_step(nets, given)
    for name, value in moco.encoder_k.named_parameters():
        new = encoder.get_parameter(name)
        assert torch.allclose(value, 0.75 * old[name] + 0.25 * new, atol=1e-6), name
        assert value.grad is None
    assert not torch.equal(encoder.conv1.weight, old["conv1.weight"])
    assert torch.equal(moco.queue_KC[:4], keys)
    assert torch.equal(moco.queue_KC[4:], queue[4:])
    for first in (4, 8):
        train_on(nets, optimizer, batch_of(samples, first), given)
        keys = torch.cat(moco.new_keys)
        mode.after_step(nets, given)
    # The third batch went round the end: rows 8, 9, then 0, 1.
    assert torch.equal(moco.queue_KC[[8, 9, 0, 1]], keys)
    assert moco.place == 2


def test_training_on_the_same_keys_lowers_the_loss(room):
    """Whatever image is called an image's own, it is recalled with growing certainty.

    Of 4 seeds, the worst last loss was 0.50 of the first.
    """
    torch.manual_seed(0)
    given = settings(moco_temperature=0.2)
    nets = mode.networks(given).train()
    mode.after_initial_weights(nets)
    optimizer = torch.optim.SGD([p for p in nets.parameters() if p.requires_grad], 0.05)
    batch = batch_of(FrameCropSamples(**room, settings=given))
    key = batch.key_BCHW.roll(1, dims=0)  # whatever is called its own
    losses = [train_on(nets, optimizer, batch._replace(key_BCHW=key), given) for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]
