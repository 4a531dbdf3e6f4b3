"""Initial weights of pretraining from files, and the record of what was loaded."""

import hashlib
import logging

import pytest
import torch
import torchvision
from make_weights import (
    BLOCKS,
    WIDTHS,
    ForeignLibrary,
    moco_content,
    networks,
    pointcontrast_content,
    randomised,
)

from pri3d.config import MODES, Pretrain
from pri3d.errors import Pri3DError
from pri3d.models.minkunet import minkunet
from pri3d.pretrain.initial_weights import load_initial_weights
from pri3d.pretrain.modes import module_of
from pri3d.run import checkpoint
from pri3d.run.folder import RANDOM
from pri3d.weights import convert

# Where torch stores what torchvision downloads.
IMAGENET = "hub/checkpoints/" + torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.split("/")[-1]


def started(mode="joint", **settings):
    """(networks of a new run, where their weights come from)."""
    settings = {"network3d": {"widths": WIDTHS, "blocks": BLOCKS}, "moco_queue": 8} | settings
    settings = Pretrain(network2d="resnet18", **settings)
    torch.manual_seed(1)
    nets = module_of(mode).networks(settings)
    loaded = load_initial_weights(nets, settings)
    module_of(mode).after_initial_weights(nets)
    return nets, loaded


@pytest.fixture
def log(caplog):
    """The messages logged, one per line."""
    with caplog.at_level(logging.INFO):
        yield lambda: "".join(f"{message}\n" for message in caplog.messages)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One network's encoder in every form, and all of a run."""
    folder = tmp_path_factory.mktemp("files")
    nets = networks("resnet18")
    checkpoint.save_weights(folder / "run.safetensors", nets)
    convert.export(folder / "run.safetensors", folder / "published.pth", "published")
    convert.export(folder / "run.safetensors", folder / "timm.pth", "timm")
    convert.export(folder / "run.safetensors", folder / "detectron2.pkl", "detectron2")
    torch.save(moco_content(nets["backbone"].encoder.state_dict()), folder / "moco.pth.tar")
    classifier = torchvision.models.resnet18()
    classifier.load_state_dict(nets["backbone"].encoder.state_dict(), strict=False)
    (folder / "hub/checkpoints").mkdir(parents=True)
    torch.save(classifier.state_dict(), folder / IMAGENET)
    return folder, nets


def assert_same(found, expected):
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


@pytest.mark.parametrize("name", ["timm.pth", "detectron2.pkl", "moco.pth.tar"])
def test_an_encoder(files, name, log):
    folder, nets = files
    untouched, _ = started("view")
    found, loaded = started("view", initial_weights_2d=str(folder / name))
    assert_same(found["backbone"].encoder, nets["backbone"].encoder)
    assert_same(found["backbone"].decoder, untouched["backbone"].decoder)
    messages = log()
    assert messages.count("\n") == 1
    begin = f"{name}: 120 of 120 encoder entries loaded; not in the file: decoder (74 entries)"
    assert messages.startswith(begin)
    assert ("left out: encoder_q.* (3), encoder_k.* (123)" in messages) == (name == "moco.pth.tar")
    weights = loaded["backbone"]
    assert weights.sha256 == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert weights.kind == "file"
    assert weights.loaded == ("backbone.encoder",)
    assert weights.description.endswith("120 of 120 encoder entries loaded")


@pytest.mark.parametrize("name", ["run.safetensors", "published.pth"])
def test_all_of_a_run(files, name, log):
    folder, nets = files
    file = str(folder / name)
    found, loaded = started(initial_weights_2d=file, initial_weights_3d=file)
    assert_same(found["backbone"], nets["backbone"])
    assert_same(found["backbone3d"], nets["backbone3d"])
    assert not torch.equal(found["w2d"].weight, nets["w2d"].weight)
    messages = log().splitlines()
    assert (
        "120 of 120 encoder entries loaded, 74 of 74 decoder entries loaded; left out"
        in messages[0]
    )
    number = len(nets["backbone3d"].state_dict())
    description = loaded["backbone3d"].description
    assert description.endswith(f"{number} of {number} backbone3d entries loaded")
    assert loaded["backbone"].loaded == ("backbone.encoder", "backbone.decoder")


def test_moco_has_an_encoder_alone(files, log):
    folder, nets = files
    found, _ = started("moco", initial_weights_2d=str(folder / "published.pth"))
    assert_same(found["backbone"]["encoder"], nets["backbone"].encoder)
    assert_same(found["moco"].encoder_k, nets["backbone"].encoder)
    assert "left out: backbone.decoder.* (74), backbone3d.*" in log()


def test_pointcontrasts_stem_and_last_layer_are_others(tmp_path, log):
    network = randomised(minkunet(3, 32, WIDTHS, BLOCKS, stem_kernel=3))
    with ForeignLibrary():
        torch.save(pointcontrast_content(network), tmp_path / "pointcontrast.pth")
    untouched, _ = started()
    found, _ = started(initial_weights_3d=str(tmp_path / "pointcontrast.pth"))
    found, untouched = found["backbone3d"].state_dict(), untouched["backbone3d"].state_dict()
    other = ["conv0p1s1.kernel", "final.kernel", "final.bias"]
    for name, value in network.state_dict().items():
        assert torch.equal(found[name], untouched[name] if name in other else value), name
    messages = log()
    assert f"{len(found) - 3} of {len(found)} backbone3d entries loaded" in messages
    assert "of another shape: conv0p1s1.kernel (27, 3, 32), here (125, 3, 32)" in messages
    assert "final.kernel (8, 32), here (8, 96), final.bias (1, 32), here (1, 96)" in messages


@pytest.fixture(scope="module")
def pointcontrast(tmp_path_factory):
    """(a file of PointContrast's trainer, its network)."""
    torch.manual_seed(0)
    network = randomised(minkunet(3, 32, WIDTHS, BLOCKS, stem_kernel=3))
    path = tmp_path_factory.mktemp("files") / "pointcontrast.pth"
    with ForeignLibrary():
        torch.save(pointcontrast_content(network), path)
    return path, network


@pytest.mark.parametrize("mode", [m for m in MODES if MODES[m].trains == ("network3d",)])
def test_pointcontrasts_network_begins_every_mode_of_clouds(mode, pointcontrast, log):
    path, network = pointcontrast
    given = {
        "network3d": {"widths": WIDTHS, "blocks": BLOCKS, "stem_kernel": 3},
        "teacher": "resnet18_half",
    }
    untouched, _ = started(mode, **given)
    expected = untouched.state_dict()
    for name, value in network.state_dict().items():
        if not name.startswith("final."):
            expected[f"backbone3d.{name}"] = value
    found, loaded = started(mode, **given, initial_weights_3d=str(path))
    for name, value in found.state_dict().items():
        assert torch.equal(value, expected[name]), name
    number = len(network.state_dict())
    description = loaded["backbone3d"].description
    assert description.endswith(f"{number - 2} of {number} backbone3d entries loaded")
    messages = log()
    assert "final.kernel (8, 32), here (8, 96), final.bias (1, 32), here (1, 96)" in messages


def test_pointcontrasts_last_layer_is_taken_too_where_it_has_as_many_channels(pointcontrast):
    path, network = pointcontrast
    found, _ = started(
        "pointcontrast",
        network3d={"widths": WIDTHS, "blocks": BLOCKS, "stem_kernel": 3, "channels": 32},
        initial_weights_3d=str(path),
    )
    assert_same(found["backbone3d"], network)


@pytest.mark.parametrize("name", ["run.safetensors", "published.pth", "moco.pth.tar", IMAGENET])
def test_a_teacher_takes_the_encoder_alone(files, name, log, caplog):
    folder, nets = files
    untouched, _ = started("ppkt")
    caplog.clear()
    found, loaded = started("ppkt", teacher_weights=str(folder / name))
    assert_same(found["teacher"].network, nets["backbone"].encoder)
    assert not any(p.requires_grad for p in found["teacher"].parameters())
    for part in ("backbone3d", "w2d", "w3d"):
        assert_same(found[part], untouched[part])
    messages = log()
    assert messages.count("\n") == 1
    assert "120 of 120 encoder entries loaded" in messages
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert loaded["teacher"].sha256 == digest
    assert loaded["backbone3d"] == RANDOM


@pytest.mark.parametrize("init", ["imagenet", "try_imagenet"])
def test_a_teacher_takes_imagenets_weights_from_torchs_cache(files, init, monkeypatch, log):
    folder, nets = files
    monkeypatch.setenv("TORCH_HOME", str(folder))
    found, loaded = started("ppkt", teacher_weights=init)
    assert_same(found["teacher"].network, nets["backbone"].encoder)
    assert loaded["teacher"].kind == "imagenet"
    assert "RANDOM" not in log()


def test_what_is_no_encoder_of_the_teacher_stops_the_run(files, pointcontrast, tmp_path):
    folder, nets = files
    with pytest.raises(Pri3DError, match=r"holds a resnet18, .* pretrain\.teacher to resnet18"):
        started("ppkt", teacher="resnet34", teacher_weights=str(folder / "moco.pth.tar"))
    with pytest.raises(Pri3DError, match=r"has nothing for backbone, only backbone3d\.\*"):
        started("ppkt", teacher_weights=str(pointcontrast[0]))
    state = nets["backbone"].encoder.state_dict()
    del state["layer4.1.conv2.weight"]
    torch.save(moco_content(state), tmp_path / "moco.pth.tar")
    with pytest.raises(Pri3DError, match=r"lacks 1 entries .*layer4\.1\.conv2\.weight"):
        started("ppkt", teacher_weights=str(tmp_path / "moco.pth.tar"))


def test_a_file_without_counters(tmp_path, log):
    state = {
        name: value
        for name, value in randomised(torchvision.models.resnet18()).state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(state, tmp_path / "old.pth")
    found, _ = started("view", initial_weights_2d=str(tmp_path / "old.pth"))
    assert torch.equal(found["backbone"].encoder.layer4[1].bn2.weight, state["layer4.1.bn2.weight"])
    messages = log()
    assert "100 of 120 encoder entries loaded" in messages
    assert "not in the file: decoder (74 entries), *.num_batches_tracked (20)" in messages


def test_what_does_not_fit_stops_the_run(files, tmp_path):
    folder, _ = files
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "resnet34.pth")
    with pytest.raises(Pri3DError, match=r"resnet34\.pth: holds a resnet34, and the .* resnet18"):
        started("view", initial_weights_2d=str(tmp_path / "resnet34.pth"))
    with pytest.raises(Pri3DError, match=r"timm\.pth: has nothing for backbone3d, only backbone"):
        started(initial_weights_3d=str(folder / "timm.pth"))
    with pytest.raises(Pri3DError, match=r"run\.safetensors: its 3D network has the widths \[8, 8"):
        started(
            initial_weights_3d=str(folder / "run.safetensors"),
            network3d={"widths": [8] * 8, "blocks": BLOCKS},
        )
    with pytest.raises(Pri3DError, match=r"network3d\.blocks"):
        started(
            initial_weights_3d=str(folder / "run.safetensors"),
            network3d={"widths": WIDTHS, "blocks": [1] * 8},
        )
    with pytest.raises(Pri3DError, match=r"nowhere\.pth: cannot be read"):
        started("view", initial_weights_2d=str(tmp_path / "nowhere.pth"))
