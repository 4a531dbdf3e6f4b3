"""Files of others, as their programs write them, whole, damaged and hostile."""

import collections
import os
import pickle
from pathlib import Path

import numpy as np
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
from safetensors.torch import load_file, save_file

from pri3d.errors import Pri3DError
from pri3d.models.minkunet import minkunet
from pri3d.weights import convert, files


@pytest.fixture(scope="module")
def resnet():
    return randomised(torchvision.models.resnet18())


@pytest.fixture(scope="module")
def encoder(resnet):
    """What has to come out of every file made from `resnet`."""
    return {
        f"backbone.encoder.{name}": value
        for name, value in resnet.state_dict().items()
        if not name.startswith("fc.")
    }


def imported(path):
    """(the weights that come out, the lines said)."""
    out = path.with_name("imported.safetensors")
    said = convert.import_file(path, out)
    return load_file(out), said


def saved(path, content, **how):
    torch.save(content, path, **how)
    return path


def refused(path):
    """The one sentence that is said of a file, which makes no other."""
    before = set(path.parent.iterdir())
    with pytest.raises(Pri3DError) as raised:
        convert.import_file(path, path.with_name("imported.safetensors"))
    assert set(path.parent.iterdir()) == before
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_pointcontrast(tmp_path, zipped, prefix):
    """Its files also hold objects of classes that are not installed here."""
    torch.manual_seed(0)
    network = randomised(minkunet(3, 32, WIDTHS, BLOCKS, stem_kernel=3))
    with ForeignLibrary():
        content = pointcontrast_content(network)
        content["state_dict"] = {prefix + n: v for n, v in content["state_dict"].items()}
        path = saved(tmp_path / "pointcontrast.pth", content, _use_new_zipfile_serialization=zipped)
    state, said = imported(path)
    expected = {f"backbone3d.{n}": value for n, value in network.state_dict().items()}
    assert_same(state, expected)
    assert f"a MinkUNet of {BLOCKS} blocks" in said[0]
    assert said[1:] == [f"backbone3d: {len(expected)} of {len(expected)} entries"]


def test_pri3d(tmp_path):
    """As released: all networks, and the head of the depth loss."""
    nets = networks("resnet18")
    model = dict(nets.state_dict()) | {"headnet.weight": torch.zeros(1, 32, 1, 1)}
    model["headnet.bias"] = torch.zeros(1)
    optimizer = torch.optim.SGD(nets.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    content = {"step": 5, "optimizer": optimizer.state_dict(), "model": model}
    content["scheduler"] = scheduler.state_dict()
    state, said = imported(saved(tmp_path / "pri3d.pth", content))
    assert_same(state, model)
    assert "backbone.decoder: 74 of 74 entries" in said
    assert "w2d: 2 of 2 entries" in said
    assert "copied unchecked: headnet.* (2)" in said


def test_moco(encoder, tmp_path):
    names = {n.removeprefix("backbone.encoder."): value for n, value in encoder.items()}
    state, said = imported(saved(tmp_path / "moco.pth.tar", moco_content(names)))
    # Nothing of the slow encoder, which is the same plus one; the heads are counted.
    assert_same(state, encoder)
    assert said[0].endswith(": MoCo, resnet18")
    assert said[-1] == "left out: encoder_q.* (3), encoder_k.* (123), queue, queue_ptr"


@pytest.mark.parametrize("prefix", ["", "backbone.", "backbone.body."])
def test_resnets(resnet, encoder, tmp_path, prefix):
    state = {prefix + name: value for name, value in resnet.state_dict().items()}
    found, said = imported(saved(tmp_path / "resnet18.pth", state))
    assert_same(found, encoder)
    assert said[1] == "backbone.encoder: 120 of 120 entries"
    assert said[2].startswith("left out: ")
    assert "(2)" in said[2]


def test_safetensors_of_a_library(resnet, encoder, tmp_path):
    save_file(dict(resnet.state_dict()), tmp_path / "timm.safetensors")
    assert_same(imported(tmp_path / "timm.safetensors")[0], encoder)


def test_safetensors_may_begin_like_any_other_file(tmp_path):
    """Their first bytes are a size, which padding makes that of a zip file's."""
    path, size = tmp_path / "file", int.from_bytes(b"PK", "little")
    for padding in range(size - 200, size):
        save_file({"a": torch.arange(3)}, path, metadata={"": " " * padding})
        if path.read_bytes().startswith(b"PK"):
            break
    else:
        pytest.fail("no padding does it")
    assert files.read(path)["a"].tolist() == [0, 1, 2]


def detectron2_names(encoder, prefix):
    """A detector as detectron2's model files have it: no counters, and heads beside the ResNet."""
    model = {}
    for name, value in encoder.items():
        words = name.split(".")[2:]
        if words[-1] == "num_batches_tracked":
            continue
        if words[0].startswith("layer"):
            words[0] = f"res{int(words[0][5:]) + 1}"
        else:
            words.insert(0, "stem")
        words = ["shortcut" if word == "downsample" else word for word in words]
        if words[2:4] == ["shortcut", "0"]:
            del words[3]
        elif words[2:4] == ["shortcut", "1"]:
            words[3] = "norm"
        text = ".".join(words)
        for number in "123":
            text = text.replace(f"bn{number}", f"conv{number}.norm")
        model[prefix + text] = value.numpy()
    return model | {"roi_heads.box_head.fc1.weight": np.zeros((4, 4), np.float32)}


@pytest.mark.parametrize(
    ("prefix", "protocol"), [("", 2), ("backbone.", 4), ("backbone.bottom_up.", 5)]
)
def test_detectron2(encoder, tmp_path, prefix, protocol):
    content = {"model": detectron2_names(encoder, prefix), "__author__": "someone"}
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found, said = imported(path)
    assert_same(found, {n: v for n, v in encoder.items() if "num_batches" not in n})
    assert "detectron2, by someone, resnet18" in said[0]
    assert "not in the file: *.num_batches_tracked (20)" in said
    assert "left out: roi_heads.box_head.fc1.weight" in said


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


class EvilByEval(Evil):
    def __reduce__(self):
        return eval, (f"__import__('os').mkdir({str(self.marker)!r})",)


@pytest.mark.parametrize("kind", [Evil, EvilByEval])
@pytest.mark.parametrize("form", ["torch", "old torch", "pickle"])
def test_nothing_that_a_file_contains_is_run(tmp_path, form, kind):
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    state = minkunet(3, 32, WIDTHS, BLOCKS).state_dict()
    content = {"model": dict(state), "config": kind(marker)}
    if form == "pickle":
        content["model"] = {n: v.numpy() for n, v in content["model"].items()}
        path.write_bytes(pickle.dumps(content))
        assert "which is no array" in refused(path)
    else:
        saved(path, content, _use_new_zipfile_serialization=form == "torch")
        if kind is Evil:
            assert f"it imports {os.mkdir.__module__}.mkdir" in refused(path)
        else:  # an empty stand-in takes its place
            assert_same(imported(path)[0], {f"backbone3d.{n}": v for n, v in state.items()})
    assert not marker.exists()


@pytest.mark.parametrize("form", ["torch", "old torch", "safetensors", "detectron2"])
def test_damaged_files(tmp_path, form):
    path, state = tmp_path / "weights", minkunet(3, 32, WIDTHS, BLOCKS).state_dict()
    if form == "safetensors":
        save_file(dict(state), path)
    elif form == "detectron2":
        arrays = {name: value.numpy() for name, value in state.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": ""}))
    else:
        saved(path, state, _use_new_zipfile_serialization=form == "torch")
    imported(path)
    content = path.read_bytes()
    for length in (len(content) - 1000, len(content) // 2, 30):
        path.write_bytes(content[:length])
        assert "download it again" in refused(path)
    if form == "torch":
        middle = bytearray(content)
        middle[len(content) // 2] ^= 1
        path.write_bytes(middle)
        assert "fails its checksum" in refused(path)


def test_what_are_no_weights(tmp_path):
    path = tmp_path / "file"
    assert "No such file" in refused(path)
    for content in (b"", b"weights", b"\x00" * 100, b"ply\nformat ascii 1.0\n"):
        path.write_bytes(content)
        assert "is not a file of weights" in refused(path)
    for content in ([1, 2], {}, {"step": 3}, {"model": {}}, {"model": [1]}, "text", 5):
        assert "no weights whose names are known" in refused(saved(path, content))
    assert "no weights" in refused(saved(path, {"backbone.decoder.conv0.bias": torch.zeros(3)}))
    vgg = {"features.0.weight": torch.zeros(3), "classifier.0.bias": torch.zeros(3)}
    assert "(features.0.weight, classifier.0.bias); give" in refused(saved(path, vgg))
    assert "no weights" in refused(saved(path, torch.zeros(3)))
    path.write_bytes(pickle.dumps({"conv1_w": np.zeros(3), "res2_0_branch1_w": np.zeros(3)}))
    assert "(conv1_w, res2_0_branch1_w)" in refused(path)
    path.write_bytes(pickle.dumps({"model": {"res2.0.conv1.weight": np.array([None])}}))
    assert "no weights" in refused(path)


def test_other_networks_are_named(resnet, tmp_path):
    path = tmp_path / "weights.pth"
    with torch.device("meta"):
        shapes = torchvision.models.resnet101().state_dict()
    deep = {n: torch.zeros(()).expand(value.shape) for n, value in shapes.items()}
    assert "(3, 4, 23, 3) bottleneck blocks" in refused(saved(path, deep))
    wide = dict(resnet.state_dict()) | {"layer3.0.conv1.weight": torch.zeros(512, 128, 3, 3)}
    said = refused(saved(path, wide))
    assert "1 entries have other shapes than in resnet18" in said
    assert "layer3.0.conv1.weight (512, 128, 3, 3), not (256, 128, 3, 3)" in said
    sparse = dict(minkunet(3, 32, WIDTHS, BLOCKS).state_dict())
    del sparse["block8.0.conv1.kernel"]
    assert "lacks convolutions of a MinkUNet" in refused(saved(path, {"state_dict": sparse}))


def test_entries_that_no_network_has_are_told(resnet, tmp_path):
    state = {f"backbone.encoder.{n}": v for n, v in resnet.state_dict().items()}
    found, said = imported(saved(tmp_path / "more.pth", state))
    assert "backbone.encoder.fc.weight" not in found
    assert said[-1] == "left out: backbone.encoder.* (2)"


def test_gaps_are_told(resnet, tmp_path):
    state = collections.OrderedDict(resnet.state_dict())
    del state["layer4.1.bn2.bias"]
    assert (
        "not in the file: backbone.encoder.layer4.1.bn2.bias"
        in imported(saved(tmp_path / "gap.pth", state))[1]
    )


def test_only_safetensors_are_written(resnet, tmp_path):
    path = saved(tmp_path / "resnet18.pth", resnet.state_dict())
    with pytest.raises(Pri3DError, match=r"out\.pth: safetensors is read from files that end"):
        convert.import_file(path, tmp_path / "out.pth")
