"""Checkpoints: written atomically, the newest one that can be read; weights by name."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pri3d.run import checkpoint


def state(step: int) -> dict:
    return {"step": step, "model": {"w": torch.arange(1000.0) + step}, "text": "x" * 100}


def test_the_two_newest_stay_and_the_newest_is_read(tmp_path):
    for step in (5, 10, 200, 1000):
        checkpoint.save(tmp_path, state(step), keep=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step_00000200.pt", "step_00001000.pt"]
    path, newest = checkpoint.newest(tmp_path)
    assert path.name == "step_00001000.pt"
    assert newest["step"] == 1000
    assert torch.equal(newest["model"]["w"], state(1000)["model"]["w"])


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_one_costs_only_itself(tmp_path, caplog, damage):
    for step in (1, 2):
        path = checkpoint.save(tmp_path, state(step), keep=2)
    content = path.read_bytes()
    middle = content.index(torch.arange(500.0, 510).add(2).numpy().tobytes())
    flipped = bytearray(content)
    flipped[middle] ^= 0x10
    path.write_bytes({"cut": content[:1000], "flipped": flipped, "empty": b""}[damage])
    assert checkpoint.newest(tmp_path)[1]["step"] == 1
    assert "step_00000002.pt: cannot be read" in caplog.text


def test_without_any_there_is_none(tmp_path, caplog):
    assert checkpoint.newest(tmp_path / "nowhere") is None
    (tmp_path / "step_00000001.pt").write_bytes(b"nothing")
    assert checkpoint.newest(tmp_path) is None
    assert "cannot be read" in caplog.text


def test_a_failed_save_leaves_the_old_ones(tmp_path):
    checkpoint.save(tmp_path, state(1), keep=2)
    with pytest.raises(Exception, match="pickle"):
        checkpoint.save(tmp_path, {"step": 2, "model": lambda: None}, keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001.pt"]


def test_weights_keep_their_names_and_values_in_any_memory_format(tmp_path):
    nets = nn.ModuleDict({"backbone": nn.Conv2d(3, 4, 3)}).to(memory_format=torch.channels_last)
    checkpoint.save_weights(tmp_path / "model.safetensors", nets)
    weights = load_file(tmp_path / "model.safetensors")
    assert set(weights) == {"backbone.weight", "backbone.bias"}
    assert torch.equal(weights["backbone.weight"], nets["backbone"].weight)
