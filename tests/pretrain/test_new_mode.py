"""A new mode is one file and one row: it is trained, evaluated and verified like the others."""

import json

import pytest
from changed_package import command, copy_package, insert
from make_artefacts import make_artefacts, read_metrics
from safetensors.torch import load_file

ROW = """
MODES["toy"] = Mode(
    "2D: images that should have unit variance",
    reads=("pairs",),
    trains=("network2d",),
    uses=_IMAGES | _NETWORK_2D,
    matching=True,
)
"""

FILE = '''
"""toy: features of unit variance, for a test."""

from pri3d.pretrain.frame_crops import FrameCropSamples
from pri3d.pretrain.image_pair_terms import feature_maps, networks_of
from pri3d.pretrain.objective import LossTerm

__all__ = ["feature_maps"]


def samples(inputs, settings):
    return FrameCropSamples(inputs.pairs, inputs.clouds_dir, settings, inputs.held_out)


def networks(settings):
    return networks_of(settings)


def after_initial_weights(nets):
    pass


def loss(nets, batch, settings):
    map_BCHW = feature_maps(nets, batch.query_BCHW, settings)
    loss_B = (map_BCHW.var(dim=(1, 2, 3)) - 1).square()
    return {"toy": LossTerm(loss_B, [], [], [])}


def samples_per_term(batch, settings):
    return {"toy": len(batch.query_BCHW)}


def is_complete(batch):
    return len(batch.query_BCHW) > 0


def after_step(nets, settings):
    pass
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package with one file and one row more."""
    root = tmp_path_factory.mktemp("package")
    copy_package(root)
    (root / "pri3d/pretrain/modes/toy.py").write_text(FILE)
    insert(root / "pri3d/config/modes.py", "\n\ndef used_settings", ROW)
    return root


def test_a_new_mode_is_one_file_and_one_row(package, tmp_path):
    room = make_artefacts(tmp_path / "room", scenes=2)
    inputs = ["--pairs", room["pairs"], "--clouds", room["clouds_dir"]]
    inputs += ["--chunks", room["chunks_dir"], "--held-out", "room01"]
    settings = {"network2d": "resnet18_half", "height": 64, "width": 84, "batch": 2, "steps": 6}
    settings |= {"workers": 0, "threads": 1, "device": "cpu", "log_every": 2, "lr": 0.01}
    sets = [f"--set={name}={json.dumps(value)}" for name, value in settings.items()]
    run = tmp_path / "runs" / "toy"
    command(package, "pretrain", "--mode", "toy", "--out", run, *inputs, *sets)
    lines = read_metrics(run)
    assert lines[-1]["toy_loss"] < lines[0]["toy_loss"]
    assert {name.split(".")[0] for name in load_file(run / "model.safetensors")} == {"backbone"}

    out = tmp_path / "toy.json"
    evaluation = ["--radius", "0.04", "--max-pairs", "2", "--matches", "40", "--out", out]
    command(package, "evaluate", run, *inputs, *evaluation, "--device", "cpu", "--threads", "1")
    result = json.loads(out.read_text())
    assert result["run"] == {"name": "toy", "mode": "toy", "variant": "toy", "seed": 0}
    assert set(result["after"]) == {"pixels"}
