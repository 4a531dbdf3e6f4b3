"""`pri3d data check`: counts, shares, and one line for each thing that is missing or damaged."""

import json

import numpy as np
import pytest
from make_labels import write_frames25k, write_nyuv2
from PIL import Image
from typer.testing import CliRunner

from pri3d.cli import app
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
    report = json.loads(text)
    assert (report["dataset"], report["layout"]) == ("scannet", "frames")
    assert all(file["exists"] for file in report["files"])
    found = report["splits"]["train"]
    assert (found["frames"], found["scenes"], found["problems"]) == (12, 3, [])
    assert found["sizes"] == {"128x96": 12}
    read = [np.array(Image.open(path)) for path in sorted(frames.glob("scene000[012]*/label/*"))]
    nyu40 = np.stack(read)
    assert found["readable"] == len(read) == 12
    assert found["annotated"] == pytest.approx((nyu40 > 0).mean())
    for number, name in {1: "wall", 2: "floor", 5: "chair", 7: "table", 4: "bed"}.items():
        share = (nyu40 == number).sum() / (nyu40 > 0).sum()
        assert found["classes"][name] == pytest.approx(share)
    instance = [np.array(Image.open(p)) for p in frames.glob("scene000[012]*/instance/*")]
    assert found["objects"]["chair"] == sum((image == 5001).any() for image in instance)
    assert found["objects"]["bed"] == 0


def test_what_is_wrong_is_listed_and_the_rest_counted(frames):
    (frames / "scene0000_00" / "label" / "000100.png").unlink()
    (frames / "scene0001_00" / "color" / "000000.jpg").write_bytes(b"damaged")
    text, error = check(frames)
    assert error is None
    assert "train: 11 frames of 3 scenes, 10 of them readable" in text
    assert "problem: scene0000_00/label/000100.png: missing; the frame is left out" in text
    assert text.count("problem:") == 2
    assert "scene0001_00/color/000000.jpg: not a JPEG image" in text


def test_a_split_that_cannot_be_used_is_a_failure(frames):
    (frames / "scannetv2_val.txt").unlink()
    text, error = check(frames)
    assert "MISSING scannetv2_val.txt: the scenes of the val split" in text
    assert "train: 12 frames" in text
    assert isinstance(error, Pri3DError)
    assert "cannot be used for val" in str(error)


def test_ids_and_numbers_of_another_kind_are_reported(frames):
    for path in frames.glob("scene000[012]*/label/000000.png"):
        image = np.array(Image.open(path))
        image[:3] = 77
        Image.fromarray(image).save(path)
    for path in frames.glob("scene000[012]*/instance/*.png"):
        Image.fromarray((np.array(Image.open(path)) > 1).astype(np.uint8)).save(path)
    text, error = check(frames)
    assert error is None
    assert "problem: id 77, in 3 images, belongs to no class; it is ignored" in text
    assert "problem: no object in any image: are their numbers NYU-40 id * 1000" in text


def test_nyuv2_is_recognized_by_its_files(tmp_path):
    zero = np.ones((2, 20, 30), int)
    write_nyuv2(tmp_path, zero, zero, np.zeros((2, 20, 30, 3), np.uint8), [1], [2], np.full(894, 5))
    text, error = check(tmp_path)
    assert error is None
    assert text.startswith("nyuv2")
    assert "chair" in text
    (tmp_path / "splits.mat").unlink()
    text, error = check(tmp_path)
    assert "MISSING splits.mat: the images of the training and of the test split" in text
    assert "cannot be used for train and val" in str(error)


def test_other_folders_are_refused(tmp_path):
    _, error = check(tmp_path)
    assert "contains neither ScanNet" in str(error)
    _, error = check(tmp_path / "nowhere")
    assert "no such folder" in str(error)
