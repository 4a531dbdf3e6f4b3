"""`pri3d data check`: counts, shares, and one line for each thing that is missing or damaged."""

import json

import numpy as np
import pytest
from make_labels import write_frames25k, write_nyuv2
from typer.testing import CliRunner

from pri3d.cli import app
from pri3d.datasets import open_split
from pri3d.errors import Pri3DError


def check(folder, *words):
    result = CliRunner().invoke(app, ["data", "check", str(folder), *words])
    return result.stdout, result.exception


@pytest.fixture
def frames(tmp_path):
    return write_frames25k(tmp_path / "frames")


def test_counts_and_shares_are_those_of_the_files(frames):
    text, error = check(frames, "--json")
    assert error is None
    told = json.loads(text)
    assert (told["dataset"], told["layout"]) == ("scannet", "frames")
    assert all(file["there"] for file in told["files"])
    found = told["splits"]["train"]
    assert (found["frames"], found["scenes"], found["problems"]) == (12, 3, [])
    assert found["sizes"] == {"128x96": 12}
    data = open_split("scannet", frames, "train")
    labels = np.stack([data.labels(i) for i in range(12)])
    assert found["annotated"] == pytest.approx((labels > 0).mean())
    for place, name in enumerate(data.classes.names, 1):
        share = (labels == place).sum() / (labels > 0).sum()
        assert found["classes"][name] == pytest.approx(share)
    assert sum(found["classes"].values()) == pytest.approx(1)
    number = sum(len(data.objects(i).class_of) for i in range(12))
    assert sum(found["objects"].values()) == number


def test_what_is_wrong_is_listed_and_the_rest_counted(frames):
    (frames / "scene0000_00" / "label" / "000100.png").unlink()
    (frames / "scene0001_00" / "color" / "000000.jpg").write_bytes(b"damaged")
    text, error = check(frames)
    assert error is None
    assert "train: 11 frames of 3 scenes" in text
    assert "problem: scene0000_00/label/000100.png: missing; the frame is left out" in text
    assert text.count("problem:") == 2
    assert "scene0001_00/color/000000.jpg: is no JPEG image" in text


def test_a_split_that_cannot_be_used_is_a_failure(frames):
    (frames / "scannetv2_val.txt").unlink()
    text, error = check(frames)
    assert "MISSING scannetv2_val.txt: which scenes are of the val split" in text
    assert "train: 12 frames" in text
    assert isinstance(error, Pri3DError)
    assert "cannot be used for val" in str(error)


def test_nyuv2_is_told_from_its_files(tmp_path):
    zero = np.ones((2, 20, 30), int)
    write_nyuv2(tmp_path, zero, zero, np.zeros((2, 20, 30, 3), np.uint8), [1], [2], np.full(894, 5))
    text, error = check(tmp_path)
    assert error is None
    assert text.startswith("nyuv2")
    assert "chair" in text
    (tmp_path / "splits.mat").unlink()
    text, error = check(tmp_path)
    assert "MISSING splits.mat: which images are for training and which for testing" in text
    assert "cannot be used for train and val" in str(error)


def test_other_folders_are_refused(tmp_path):
    _, error = check(tmp_path)
    assert "holds neither ScanNet" in str(error)
    _, error = check(tmp_path / "nowhere")
    assert "no such folder" in str(error)
