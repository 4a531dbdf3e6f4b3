"""Finetuning in several processes and in micro-batches gives what one process gives."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from make_artefacts import read_metrics
from make_labels import write_frames25k
from make_rooms import write_scannet3d
from ranks import assert_close, start, weights_of

from pri3d.finetune.samples import resolve_item

RUNTIME = {"workers": 0, "threads": 1, "device": "cpu", "log_every": 1, "steps": 2}
SEMSEG = {"network2d": "resnet18_half", "height": 64, "width": 96, "batch": 4}
SEMSEG3D = {
    "network3d": {"widths": [8] * 8, "blocks": [1] * 8, "stem_kernel": 3},
    "voxel_m": 0.1,
    "batch": 4,
}
INSSEG = {"network2d": "resnet18_half", "short_sides": [64], "long_side": 96, "min_pixels": 50}
INSSEG |= {"roi_samples": 16, "batch": 2}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    return write_frames25k(tmp_path_factory.mktemp("data") / "frames")


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return write_scannet3d(tmp_path_factory.mktemp("data") / "scans", train=5)


def finetune(task: str, data: Path, out: Path, size: int = 1, **settings) -> dict:
    given = RUNTIME | settings
    assigned = [f"--set={name}={json.dumps(value)}" for name, value in given.items()]
    words = ["finetune", task, "--data", str(data), "--out", str(out), *assigned]
    return weights_of(start(words, size), out)


@pytest.mark.parametrize(
    ("task", "settings"), [("semseg_scannet", SEMSEG), ("semseg3d_scannet", SEMSEG3D)]
)
def test_two_processes_give_the_weights_of_one(frames, scans, tmp_path, task, settings):
    data = frames if task == "semseg_scannet" else scans
    one = finetune(task, data, tmp_path / "one", **settings, micro_batch=2)
    two = finetune(task, data, tmp_path / "two", size=2, **settings)
    assert_close(one, two)
    unit = "images" if task == "semseg_scannet" else "clouds"
    for alone, together in zip(read_metrics(tmp_path / "one"), read_metrics(tmp_path / "two")):
        for key in ("loss", "pixels_loss" if unit == "images" else "voxels_loss"):
            assert together[key] == pytest.approx(alone[key], rel=1e-5)
        assert together[unit] == alone[unit] == 4 * alone["step"]


def test_batch_norm_over_all_processes_is_that_of_one_with_all_images(frames, tmp_path):
    given = SEMSEG | {"steps": 1, "precision": "float32"}
    one = finetune("semseg_scannet", frames, tmp_path / "one", **given)
    two = finetune("semseg_scannet", frames, tmp_path / "two", size=2, sync_bn=True, **given)
    apart = finetune("semseg_scannet", frames, tmp_path / "apart", size=2, **given)
    (alone,), (together,), (otherwise,) = (
        read_metrics(tmp_path / name) for name in ("one", "two", "apart")
    )
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert otherwise["loss"] != pytest.approx(alone["loss"], rel=1e-4)
    for name, value in one.items():
        if "running" in name:
            assert torch.allclose(value, two[name], rtol=1e-4, atol=1e-6), name
    name = "backbone.encoder.layer1.0.bn1.running_var"
    assert not torch.allclose(one[name], apart[name], rtol=1e-4)


def test_objects_are_learned_in_processes_started_by_the_setting(frames, tmp_path):
    out = tmp_path / "objects"
    finetune("insseg_scannet", frames, out, **INSSEG, processes=2, sync_bn=True)
    last = read_metrics(out)[-1]
    assert last["images"] == 4
    for term in ("classes", "boxes", "masks", "proposed", "proposed_boxes"):
        assert np.isfinite(last[f"{term}_loss"])


def test_a_process_whose_samples_cannot_be_read_trains_with_the_others(frames, tmp_path):
    root, images = tmp_path / "frames", 12
    shutil.copytree(frames, root)
    paths = sorted(root.glob("*/color/*.jpg"))[:images]
    for item in range(1, 10, 2):  # the only samples of the second process in the first five steps
        position, _ = resolve_item(item, list(range(images)), seed=0)
        paths[position].write_bytes(b"")
    settings = SEMSEG | {"batch": 2, "steps": 5}
    finetune("semseg_scannet", root, tmp_path / "run", size=2, **settings)
    last = read_metrics(tmp_path / "run")[-1]
    assert last["images"] == last["skipped"]["image cannot be read"] == 5
