"""Recall of matches in held-out scans against loops in numpy, at chance, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from make_artefacts import make_artefacts
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from pri3d.cli import app
from pri3d.config import Evaluate, Pretrain
from pri3d.errors import Pri3DError
from pri3d.pretrain import evaluate, train
from pri3d.pretrain.image_pairs import ImagePairs
from pri3d.pretrain.modes import joint, module_of
from pri3d.run.folder import PROVENANCE

# Its fixtures are whole runs: one process makes them.
pytestmark = pytest.mark.xdist_group("evaluate")

TRAINING = Pretrain(
    height=64,
    width=84,
    radius_m=0.04,
    matches=60,
    batch=2,
    steps=2,
    network3d={"widths": [8] * 8, "blocks": [1] * 8},
    workers=0,
    device="cpu",
    moco_queue=8,
)
EVALUATION = Evaluate(max_pairs=3, matches=40, seed=5, radius_m=0.04)
CELLS = (32, 42)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return make_artefacts(tmp_path_factory.mktemp("rooms"), scenes=2)


@pytest.fixture(scope="module")
def runs(room, tmp_path_factory):
    """One run of each mode; room01 was held out."""
    folder = tmp_path_factory.mktemp("runs")
    for mode in ("view", "joint", "moco"):
        train.run(**room, out=folder / mode, mode=mode, settings=TRAINING, held_out=["room01"])
    return folder


def measure(run, room, out, settings=EVALUATION, held_out=("room01",)):
    return evaluate.run(run, **room, out=out, held_out=held_out, settings=settings)


def by_hand(nets, batch) -> dict[str, float]:
    """Recall of one pair, match by match."""
    with torch.no_grad():
        maps = [nets["backbone"](x)[0].numpy() for x in (batch.image_a_BCHW, batch.image_b_BCHW)]
    unit = [m / np.linalg.norm(m, axis=0) for m in maps]
    near = dict.fromkeys((1, 3, 5), 0)
    for anchor, true in zip(batch.view.anchor_N.tolist(), batch.view.positive_N.tolist()):
        feature = unit[0][:, anchor // CELLS[1], anchor % CELLS[1]]
        similarity = np.einsum("c,chw->hw", feature, unit[1])
        row, column = np.unravel_index(similarity.argmax(), CELLS)
        distance = np.hypot(row - true // CELLS[1], column - true % CELLS[1])
        for k in near:
            near[k] += distance <= k
    return {f"recall_{k}": n / len(batch.view.anchor_N) for k, n in near.items()}


def test_pixels_against_loops(room, runs, tmp_path):
    result = measure(runs / "joint", room, tmp_path / "joint.json")
    assert json.loads((tmp_path / "joint.json").read_text()) == result
    assert result["scenes"] == ["room01"]
    assert result["pairs"] == 3
    assert result["run"] == {"name": "joint", "mode": "joint", "variant": "joint", "seed": 0}
    plain = {"seed": 5, "matches": 40, "augment_color": False, "batch": 1, "steps": 3}
    # The same pairs and draws as long as only one room is left.
    data = ImagePairs(**room, settings=TRAINING.model_copy(update=plain), held_out=["room00"])
    nets = joint.networks(TRAINING).eval()
    nets.load_state_dict(load_file(runs / "joint/model.safetensors"))
    each = [by_hand(nets, data.collate([data[i]])) for i in range(3)]
    for name in each[0]:
        expected = np.mean([figures[name] for figures in each])
        assert result["after"]["pixels"][name] == pytest.approx(expected, abs=1e-6)


def test_chance_is_the_share_of_places_near_the_true_one(room, runs, tmp_path):
    chance = measure(runs / "joint", room, tmp_path / "joint.json")["chance"]
    inner = {1: 5, 3: 29, 5: 81}  # lattice points within a circle
    for k, n in inner.items():
        upper = n / (CELLS[0] * CELLS[1])
        assert 0.6 * upper < chance["pixels"][f"recall_{k}"] <= upper
    assert chance["pixels"]["top1"] == pytest.approx(1 / 40)
    assert 0 < chance["voxels"]["recall_1"] < chance["voxels"]["recall_5"] < 1


@pytest.mark.parametrize("mode", ["view", "joint"])
def test_a_network_that_maps_everything_to_one_point_gets_chance(room, runs, tmp_path, mode):
    run = shutil.copytree(runs / mode, tmp_path / mode)
    weights = load_file(run / "model.safetensors")
    for name in weights:
        if name.startswith(("backbone.decoder.conv0.weight", "w3d.weight", "w2d.weight")):
            weights[name].zero_()
        if name.startswith(("w2d.bias", "w3d.bias", "backbone.decoder.conv0.bias")):
            weights[name].fill_(1)
    save_file(weights, run / "model.safetensors")
    result = measure(run, room, tmp_path / "out.json")
    for kind, chance in result["chance"].items():
        for name, value in chance.items():
            assert result["after"][kind][name] == pytest.approx(value, rel=1e-5), (kind, name)


def test_it_is_repeatable_and_before_is_the_start(room, runs, tmp_path):
    first = measure(runs / "joint", room, tmp_path / "one.json")
    assert measure(runs / "joint", room, tmp_path / "two.json") == first
    assert set(first["before"]) == {"pixels", "voxels"}
    # A run that learned nothing: its weights are those it began with.
    run = shutil.copytree(runs / "view", tmp_path / "run")
    torch.manual_seed(TRAINING.seed)
    start = module_of("view").networks(TRAINING)
    save_file(start.state_dict(), run / "model.safetensors")
    result = measure(run, room, tmp_path / "start.json")
    view = measure(runs / "view", room, tmp_path / "view.json")
    assert result["before"] == view["before"]
    assert result["after"] != view["after"]


def test_moco_is_measured_by_its_encoder(room, runs, tmp_path):
    result = measure(runs / "moco", room, tmp_path / "moco.json")
    assert set(result["after"]) == {"pixels"}
    assert 0 <= result["after"]["pixels"]["recall_1"] <= result["after"]["pixels"]["recall_5"] <= 1


def test_the_example_is_one_of_the_pairs(room, runs, tmp_path):
    example = measure(runs / "view", room, tmp_path / "view.json")["example"]
    assert example["pair"].startswith("room01 frames ")
    for name in ("anchor", "true", "before", "after"):
        cells = np.array(example[name])
        assert cells.shape == (24, 2)
        assert (cells >= 0).all()
        assert (cells < CELLS).all()


def test_the_verb_prints_the_figures(room, runs, tmp_path):
    words = ["evaluate", str(runs / "joint"), "--held-out", "room01", "--max-pairs", "2"]
    words += [
        "--radius",
        "0.04",
        "--pairs",
        str(room["pairs"]),
        "--clouds",
        str(room["clouds_dir"]),
    ]
    words += ["--chunks", str(room["chunks_dir"]), "--out", str(tmp_path / "x.json")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    after = json.loads((tmp_path / "x.json").read_text())["after"]["voxels"]["recall_3"]
    assert any(
        line.startswith("voxels recall_3:") and f"-> {100 * after:.2f} %" in line
        for line in done.output.splitlines()
    )


def test_what_cannot_be_measured_is_refused(room, runs, tmp_path):
    with pytest.raises(Pri3DError, match=r"was trained on room00; evaluate on other scans"):
        measure(runs / "view", room, tmp_path / "x", held_out=["room00"])
    with pytest.raises(Pri3DError, match=r"holds no pair of the held-out scans \(room07\)"):
        measure(runs / "view", room, tmp_path / "x", held_out=["room07"])
    with pytest.raises(Pri3DError, match=r"nowhere/settings\.json: no such file"):
        measure(tmp_path / "nowhere", room, tmp_path / "x")
    run = shutil.copytree(runs / "view", tmp_path / "other")
    provenance = json.loads((run / PROVENANCE).read_text())
    provenance["initial_weights"]["backbone"] |= {"kind": "imagenet", "description": "ImageNet"}
    (run / PROVENANCE).write_text(json.dumps(provenance))
    with pytest.raises(Pri3DError, match=r"backbone started from: ImageNet; it would now start"):
        measure(run, room, tmp_path / "x")
    run = shutil.copytree(runs / "view", tmp_path / "run")
    (run / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(Pri3DError, match=r"does not hold this run's weights"):
        measure(run, room, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_without_held_out_scenes_those_that_were_not_trained_on_are_used(room, runs, tmp_path):
    chosen = measure(runs / "view", room, tmp_path / "a.json")
    assert measure(runs / "view", room, tmp_path / "b.json", held_out=()) == chosen
    train.run(**room, out=tmp_path / "all", mode="view", settings=TRAINING)
    with pytest.raises(Pri3DError, match=r"was trained on all scans of .*pairs\.h5"):
        measure(tmp_path / "all", room, tmp_path / "x", held_out=())


def test_pairs_that_cannot_be_used_are_counted(tmp_path):
    def blank(scene, frames, chunks):
        if scene == "room01":
            frames["depth"][0] = np.zeros_like(frames["depth"][0])

    room = make_artefacts(tmp_path, scenes=2, edit=blank)
    train.run(**room, out=tmp_path / "run", mode="view", settings=TRAINING, held_out=["room01"])
    result = measure(
        tmp_path / "run", room, tmp_path / "x.json", Evaluate(max_pairs=50, radius_m=0.04)
    )
    assert result["pairs"] == 3
    assert result["skipped"] == {"view: fewer than 2 matches": 3}
