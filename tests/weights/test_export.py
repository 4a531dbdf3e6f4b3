"""What is exported works in the other libraries, and comes back bit by bit."""

import json
import pickle

import pytest
import timm
import torch
import torchvision
from make_artefacts import make_artefacts
from make_weights import networks, randomised
from safetensors.torch import load_file
from torch import nn

from pri3d.config import Pretrain
from pri3d.errors import Pri3DError
from pri3d.models.resunet import resunet
from pri3d.pretrain import train
from pri3d.pretrain.modes import module_of
from pri3d.run import checkpoint
from pri3d.weights import convert

ENDINGS = {"detectron2": ".pkl", "safetensors": ".safetensors"}
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
IMAGE = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=BLOCKS)
def run(request, tmp_path_factory):
    """(name of the encoder, networks of a run, its folder)."""
    folder = tmp_path_factory.mktemp(request.param)
    nets = networks(request.param, decoder=request.param == "resnet18")
    checkpoint.save_weights(folder / "model.safetensors", nets)
    (folder / "settings.json").write_text(json.dumps({"mode": "joint", "steps": 321}))
    return request.param, nets, folder


def exported(run, tmp_path, form):
    path = tmp_path / f"out{ENDINGS.get(form, '.pth')}"
    convert.export(run[2], path, form)
    return path


def features(encoder):
    with torch.no_grad():
        return nn.Sequential(*encoder.children())(IMAGE)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("form", convert.FORMATS)
def test_import_gives_back_what_was_exported(run, tmp_path, form):
    _, nets, _ = run
    convert.import_file(exported(run, tmp_path, form), tmp_path / "back.safetensors")
    part = "backbone3d." if form == "minkowski" else "backbone.encoder."
    whole = form in ("published", "safetensors")
    state = {n: v for n, v in nets.state_dict().items() if whole or n.startswith(part)}
    assert_same(load_file(tmp_path / "back.safetensors"), state)


def test_torchvision_computes_the_same(run, tmp_path):
    name, nets, _ = run
    model = getattr(torchvision.models, name)().eval()
    weights = torch.load(exported(run, tmp_path, "torchvision"), weights_only=True)
    keys = model.load_state_dict(weights, strict=False)
    assert keys.missing_keys == ["fc.weight", "fc.bias"]
    assert keys.unexpected_keys == []
    del model.fc, model.avgpool
    expected = features(nets.get_submodule("backbone.encoder"))
    torch.testing.assert_close(features(model), expected, rtol=1e-5, atol=1e-5)


def test_timm_computes_the_same(run, tmp_path):
    name, nets, _ = run
    path = exported(run, tmp_path, "timm")
    model = timm.create_model(name, pretrained=False, num_classes=0)
    model.load_state_dict(torch.load(path, weights_only=True))
    by_path = timm.create_model(name, num_classes=0, checkpoint_path=str(path))
    expected = features(nets.get_submodule("backbone.encoder"))
    for network in (model, by_path):
        with torch.no_grad():
            found = network.eval().forward_features(IMAGE)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


class NormedConv(nn.Conv2d):
    """detectron2's convolution, which its batch norm belongs to."""

    def __init__(self, inputs, outputs, size, stride=1):
        super().__init__(inputs, outputs, size, stride, size // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.norm(super().forward(x))


class Block(nn.Module):
    """detectron2's bottleneck with STRIDE_IN_1X1 False, or its basic block."""

    def __init__(self, inputs, middle, outputs, stride):
        super().__init__()
        if inputs != outputs:
            self.shortcut = NormedConv(inputs, outputs, 1, stride)
        if outputs == middle:
            self.conv1 = NormedConv(inputs, middle, 3, stride)
            self.conv2 = NormedConv(middle, middle, 3)
        else:
            self.conv1 = NormedConv(inputs, middle, 1)
            self.conv2 = NormedConv(middle, middle, 3, stride)
            self.conv3 = NormedConv(middle, outputs, 1)

    def forward(self, x):
        out = self.conv2(self.conv1(x).relu())
        out = self.conv3(out.relu()) if hasattr(self, "conv3") else out
        return (out + (self.shortcut(x) if hasattr(self, "shortcut") else x)).relu()


class BottomUp(nn.Module):
    """A ResNet under detectron2's names, written from its architecture."""

    def __init__(self, blocks, bottleneck):
        super().__init__()
        self.stem = nn.ModuleDict({"conv1": NormedConv(3, 64, 7, 2)})
        channels = 64
        for stage, number in enumerate(blocks, 2):
            middle = 64 << (stage - 2)
            layers, outputs = [], middle * (4 if bottleneck else 1)
            for i in range(number):
                layers.append(Block(channels, middle, outputs, 2 if stage > 2 and i == 0 else 1))
                channels = outputs
            self.add_module(f"res{stage}", nn.Sequential(*layers))

    def forward(self, x):
        x = nn.functional.max_pool2d(self.stem["conv1"](x).relu(), 3, 2, 1)
        return self.res5(self.res4(self.res3(self.res2(x))))


def test_detectron2_computes_the_same(run, tmp_path):
    name, nets, _ = run
    with open(exported(run, tmp_path, "detectron2"), "rb") as file:
        data = pickle.load(file, encoding="latin1")  # as detectron2 does
    assert data["__author__"] == "Pri3D"
    assert not data["matching_heuristics"]
    model = nn.ModuleDict({"backbone": nn.Module()})
    model["backbone"].bottom_up = BottomUp(BLOCKS[name], name == "resnet50")
    # torch.from_numpy takes arrays only, and those of no time have to be arrays too.
    model.load_state_dict({key: torch.from_numpy(value) for key, value in data["model"].items()})
    with torch.no_grad():
        found = model["backbone"].bottom_up.eval()(IMAGE)
    expected = features(nets.get_submodule("backbone.encoder"))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_detectron2s_names_of_r50_fpn(tmp_path):
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    shapes = {}

    def convolution(key, outputs, inputs, size):
        shapes[f"backbone.bottom_up.{key}.weight"] = (outputs, inputs, size, size)
        for leaf in norm:
            shape = () if leaf == "num_batches_tracked" else (outputs,)
            shapes[f"backbone.bottom_up.{key}.norm.{leaf}"] = shape

    convolution("stem.conv1", 64, 3, 7)
    inputs = 64
    for stage, blocks, middle in ((2, 3, 64), (3, 4, 128), (4, 6, 256), (5, 3, 512)):
        for block in range(blocks):
            key = f"res{stage}.{block}"
            if block == 0:
                convolution(f"{key}.shortcut", 4 * middle, inputs, 1)
            convolution(f"{key}.conv1", middle, inputs, 1)
            convolution(f"{key}.conv2", middle, middle, 3)
            convolution(f"{key}.conv3", 4 * middle, middle, 1)
            inputs = 4 * middle
    assert len(shapes) == 53 * 6
    torch.save(torchvision.models.resnet50().state_dict(), tmp_path / "resnet50.pth")
    convert.export(tmp_path / "resnet50.pth", tmp_path / "out.pkl", "detectron2")
    content = (tmp_path / "out.pkl").read_bytes()
    found = {name: array.shape for name, array in pickle.loads(content)["model"].items()}
    assert found == shapes
    assert b"numpy._core" not in content, "numpy 1 could not read it"


def test_published_files_are_as_released(run, tmp_path):
    content = torch.load(exported(run, tmp_path, "published"), weights_only=True)
    assert set(content) == {"step", "optimizer", "scheduler", "model"}
    assert content["step"] == 321
    assert content["optimizer"] is content["scheduler"] is None
    assert_same(content["model"], run[1].state_dict())


def test_minkowski_files_are_as_released(run, tmp_path):
    content = torch.load(exported(run, tmp_path, "minkowski"), weights_only=True)
    assert set(content) == {"state_dict"}
    assert_same(content["state_dict"], run[1]["backbone3d"].state_dict())


def test_nothing_is_left_out_silently(run, tmp_path):
    name, nets, folder = run
    first, second = convert.export(folder, tmp_path / "out.pth", "timm")
    number = {
        part: len(nets.get_submodule(part).state_dict()) for part in ("backbone", "backbone3d")
    }
    encoder = len(nets.get_submodule("backbone.encoder").state_dict())
    assert f"timm, {encoder} entries, {name} and a MinkUNet" in first
    assert f"backbone3d.* ({number['backbone3d']})" in second
    assert "w2d.* (2), w3d.* (2)" in second
    assert ("backbone.decoder" in second) == (number["backbone"] > encoder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one step in mode view."""
    folder = tmp_path_factory.mktemp("trained")
    settings = {"height": 64, "width": 64, "batch": 1, "steps": 1, "radius_m": 0.04, "matches": 64}
    settings |= {"workers": 0, "threads": 1, "device": "cpu"}
    room = make_artefacts(folder / "room")
    train.run(**room, out=folder / "run", mode="view", settings=Pretrain(**settings))
    return folder / "run"


def test_a_run_and_its_checkpoint_hold_the_same(trained, tmp_path):
    convert.export(trained, tmp_path / "final.pth", "published")
    (trained / "model.safetensors").rename(tmp_path / "model.safetensors")
    convert.export(trained, tmp_path / "newest.pth", "published")
    (tmp_path / "model.safetensors").rename(trained / "model.safetensors")
    (path,) = (trained / "checkpoints").iterdir()
    convert.export(path, tmp_path / "file.pth", "published")
    final, newest, file = (
        torch.load(tmp_path / f"{name}.pth", weights_only=True)
        for name in ("final", "newest", "file")
    )
    assert final["step"] == newest["step"] == file["step"] == 1
    assert_same(newest["model"], final["model"])
    assert_same(file["model"], final["model"])
    assert_same(final["model"], load_file(trained / "model.safetensors"))
    assert newest["optimizer"]["param_groups"] == file["optimizer"]["param_groups"] != []


@pytest.mark.parametrize("form", ["published", "safetensors"])
def test_what_moco_trains_beside_the_encoder_comes_back_too(tmp_path, form):
    nets = module_of("moco").networks(Pretrain(network2d="resnet18", moco_queue=8))
    checkpoint.save_weights(tmp_path / "model.safetensors", nets)
    path = exported(("resnet18", nets, tmp_path), tmp_path, form)
    said = convert.import_file(path, tmp_path / "back.safetensors")
    assert_same(load_file(tmp_path / "back.safetensors"), nets.state_dict())
    assert said[-1].startswith("copied unchecked: moco.* (")


@pytest.mark.parametrize(
    ("name", "form", "message"),
    [
        (
            "out.pth",
            "minkowski",
            r"has no backbone3d, only backbone\.decoder\.\* \(74\), back",
        ),
        ("out.pth", "detectron2", r"out\.pth: detectron2 is read from files that end in \.pkl"),
        ("out.pkl", "timm", r"out\.pkl: timm is read from files that end in \.pth or \.pt"),
    ],
)
def test_what_a_run_cannot_give(trained, tmp_path, name, form, message):
    with pytest.raises(Pri3DError, match=message):
        convert.export(trained, tmp_path / name, form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", convert.FORMATS)
def test_the_half_encoder_is_ours_alone(tmp_path, form):
    nets = nn.ModuleDict({"backbone": resunet("resnet18_half")})
    checkpoint.save_weights(tmp_path / "model.safetensors", nets)
    out = tmp_path / f"out{ENDINGS.get(form, '.pth')}"
    if form in ("published", "safetensors"):
        convert.export(tmp_path, out, form)
        convert.import_file(out, tmp_path / "back.safetensors")
        assert_same(load_file(tmp_path / "back.safetensors"), nets.state_dict())
    elif form != "minkowski":
        with pytest.raises(Pri3DError, match="holds a resnet18_half, which other libraries lack"):
            convert.export(tmp_path, out, form)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(Pri3DError, match="is no run"):
        convert.export(tmp_path, tmp_path / "out.pth", "timm")


def test_an_encoder_with_gaps_is_not_exported(tmp_path):
    weights = randomised(torchvision.models.resnet18()).state_dict()
    del weights["layer2.0.bn1.weight"], weights["layer3.0.bn1.num_batches_tracked"]
    torch.save(weights, tmp_path / "resnet18.pth")
    with pytest.raises(Pri3DError, match=r"lacks 1 entries .*\(.*layer2\.0\.bn1\.weight\)"):
        convert.export(tmp_path / "resnet18.pth", tmp_path / "out.pth", "timm")


def test_shared_and_strided_memory_is_written_once_and_whole(tmp_path):
    weights = torchvision.models.resnet18().to(memory_format=torch.channels_last).state_dict()
    whole = torch.zeros(1000, 64)
    weights["bn1.weight"] = whole[0]
    torch.save(weights, tmp_path / "resnet18.pth")
    convert.export(tmp_path / "resnet18.pth", tmp_path / "out.pth", "torchvision")
    found = torch.load(tmp_path / "out.pth", weights_only=True)
    assert found["bn1.weight"].untyped_storage().nbytes() == 64 * 4
    assert found["conv1.weight"].is_contiguous()
    assert torch.equal(found["conv1.weight"], weights["conv1.weight"])
