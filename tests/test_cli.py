"""The command line: what each verb offers, exit statuses, and one line for people on failure."""

import contextlib
import io
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
from unittest.mock import patch

import h5py
import numpy as np
import pytest
import torch
import torchvision

from pri3d import cli, config
from pri3d.artefacts import Clouds
from pri3d.matching.correspondences import nearest
from pri3d.weights import convert

VERBS = {
    "demo": config.Demo,
    "clouds": config.Frames,
    "overlap": config.Overlap,
    "pairs": config.Pairs,
    "chunks": config.Chunks,
}


def pri3d(*words):
    """(exit status, stdout, stderr) of `pri3d words...`, in this process."""
    out, err, argv = io.StringIO(), io.StringIO(), ["pri3d", *map(str, words)]
    redirected = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with redirected[0], redirected[1], patch.object(sys, "argv", argv):
        try:
            cli.main()
        except SystemExit as end:
            return end.code or 0, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def good(*words):
    status, out, err = pri3d(*words)
    assert status == 0, err
    return out


def bad(*words):
    """The one line that is said when the work cannot be done."""
    status, out, err = pri3d(*words)
    assert status == 1
    assert out == ""
    assert err.startswith("pri3d: ")
    assert err.count("\n") == 1
    return err


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny demo scan brought through all verbs of the offline side."""
    folder = tmp_path_factory.mktemp("made")
    sizes = ["--frames", "40", "--height", "48", "--color-height", "64", "--seed", "1"]
    good("demo", folder / "scans", "--scene", "scene0001_00", *sizes)
    scan = folder / "scans" / "scene0001_00" / "scene0001_00.sens"
    mesh = scan.with_name("scene0001_00_vh_clean_2.ply")
    good("clouds", scan, folder / "clouds" / "scene0001_00.h5", "--every", "5")
    good("overlap", folder / "clouds/scene0001_00.h5", folder / "overlap/scene0001_00.h5")
    good("pairs", folder / "overlap/scene0001_00.h5", folder / "pairs.h5", "--missing", "attic")
    chunks = [folder / "clouds/scene0001_00.h5", folder / "chunks/scene0001_00.h5"]
    good("chunks", *chunks, "--surface", mesh)
    return folder


def test_the_verbs_make_artefacts_that_verify(made):
    names = ["clouds/scene0001_00.h5", "overlap/scene0001_00.h5", "pairs.h5"]
    said = good("verify", *(made / name for name in [*names, "chunks/scene0001_00.h5"]))
    assert said.count(": good") == 4
    assert ": good" in good("verify", "--deep", made / "pairs.h5")


def test_verify_names_all_that_is_wrong(made, tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes((made / "pairs.h5").read_bytes()[:-100])
    status, out, err = pri3d("verify", path, made / "pairs.h5", tmp_path / "b.h5")
    assert status == 1
    assert f"{made / 'pairs.h5'}: good" in out
    assert err.count("\n") == 1
    assert f"{path}: " in err
    assert f"{tmp_path / 'b.h5'}: no such file" in err


def test_sens_info(made):
    scan = made / "scans" / "scene0001_00" / "scene0001_00.sens"
    found = json.loads(good("sens", "info", scan, "--json"))
    assert found["frames"] == 40
    assert found["depth"]["height"] == 48
    assert {"version", "sensor", "frames_readable", "usable", "problems"} <= found.keys()
    assert "40" in good("sens", "info", scan)


def test_sens_export(made, tmp_path):
    scan = made / "scans" / "scene0001_00" / "scene0001_00.sens"
    good("sens", "export", scan, tmp_path, "--every", "20")
    assert sorted(path.name for path in (tmp_path / "depth").iterdir()) == ["0.png", "20.png"]


def test_correspondences(made, tmp_path):
    path = made / "clouds" / "scene0001_00.h5"
    with Clouds(path) as scan:
        (i, j), views = scan.index[:2], [scan.view(row) for row in range(2)]
        a, b, distance = nearest(*views, 0.05)
    assert len(a) > 0
    good("correspondences", path, i, j, tmp_path / "matches", "--radius", "0.05")
    with np.load(tmp_path / "matches") as found:
        np.testing.assert_array_equal(found["a"], a)
        np.testing.assert_array_equal(found["b"], b)
        np.testing.assert_array_equal(found["distance"], distance)
        assert found["a"].shape == (len(distance), 2)
    assert "no frame 1 (not among those" in bad("correspondences", path, 1, j, tmp_path / "more")
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_every_setting_with_unit_and_default(verb):
    said = " ".join(good(verb, "--help").split())
    section = VERBS[verb]()
    for name, field in type(section).model_fields.items():
        assert "--" + name.removesuffix("_m").replace("_", "-") in said
        assert field.description in said
        default = getattr(section, name)
        if default is not None and not isinstance(default, bool):
            assert f"[default: {default}]" in said, name


def test_help_lists_the_verbs():
    said = good("--help")
    for verb in [*VERBS, "sens", "correspondences", "pretrain", "report", "verify"]:
        assert f"\n  {verb} " in said


SETTINGS = {
    "demo": config.Demo(scans=2, seed=3, frames=5, height=32, color_height=40, noise=False),
    "clouds": config.Frames(every=3, max_depth_m=4.5, color_height=0),
    "overlap": config.Overlap(radius_m=0.03, rule="official"),
    "pairs": config.Pairs(min_overlap=0.4, max_pairs=7, seed=5),
    "chunks": config.Chunks(voxel_m=0.05),
}
ARGUMENTS = {
    "demo": ("pri3d.demo.make", ["out"]),
    "clouds": ("pri3d.stages.clouds.run", ["scan.sens", "out.h5"]),
    "overlap": ("pri3d.stages.overlap.run", ["clouds.h5", "out.h5"]),
    "pairs": ("pri3d.stages.pairs.run", ["a.h5", "b.h5", "out.h5"]),
    "chunks": ("pri3d.stages.chunks.run", ["clouds.h5", "out.h5"]),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("given", ["all", "none"])
def test_settings_reach_the_stage(verb, given):
    """`options` writes what the workflow puts into a rule's command; the verb reads it again."""
    settings = SETTINGS[verb] if given == "all" else VERBS[verb]()
    function, arguments = ARGUMENTS[verb]
    with patch(function) as stage:
        good(verb, *arguments, *shlex.split(cli.options(settings)))
    values = [*stage.call_args.args, *stage.call_args.kwargs.values()]
    assert [value for value in values if isinstance(value, config.Section)] == [settings]


def test_options_can_leave_some_out():
    assert cli.options(config.Demo(), leave_out=["scans"]).startswith("--seed 0 --frames")
    assert "--noise" in cli.options(config.Demo(noise=True)).split()
    assert "--no-noise" in cli.options(config.Demo(noise=False)).split()


def trained_with(*words):
    """What `pri3d pretrain words...` trains with."""

    def finish(*arguments):
        (arguments[3] / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')

    with patch("pri3d.pretrain.train.run", side_effect=finish) as run:
        assert good("pretrain", *words) == '{"step": 2}\n'
    return run.call_args.args


def test_settings_reach_the_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changed = config.Pretrain(
        network3d={"widths": [8] * 8}, lr=0.03, augment_color=False, device="cpu", steps=7
    )
    some = cli.assignments(changed, only=["lr", "steps"])
    rest = cli.assignments(changed, leave_out=["lr", "steps"])
    assert trained_with(*shlex.split(some), *shlex.split(rest))[5] == changed
    (tmp_path / "my.yaml").write_text("pretrain:\n  lr: 0.5\n  steps: 9\n")
    pairs, clouds, chunks, out, mode, settings, engine, held_out, _ = trained_with(
        *("--mode", "view", "--config", "my.yaml", "--set", "steps=3"),
        *("--engine", "minkowski", "--held-out", "a", "--held-out", "b"),
    )
    assert (engine, held_out) == ("minkowski", ["a", "b"])
    assert settings == config.Pretrain(lr=0.5, steps=3)
    (tmp_path / "more.yaml").write_text("pretrain: {lr: 0.5}\nmodes: {crd: {lr: 0.2, batch: 4}}\n")
    settings = trained_with("--mode", "crd", "--config", "more.yaml", "--set", "batch=6")[5]
    assert settings == config.Pretrain(lr=0.2, batch=6)
    assert (mode, str(out)) == ("view", "results/runs/view")
    assert [str(path) for path in (pairs, clouds, chunks)] == [
        "results/pairs.h5",
        "results/clouds",
        "results/chunks",
    ]


def test_settings_of_a_task_reach_its_finetuning(tmp_path):
    file, out = tmp_path / "more.yaml", tmp_path / "out"
    file.write_text("semseg3d: {batch: 3}\ntasks: {semseg3d_s3dis: {voxel_m: 0.1}}\n")

    def finish(task, data, out, settings, *engine):
        (out / "metrics.jsonl").write_text("{}\n")

    for task, voxel_m in (("semseg3d_s3dis", 0.1), ("semseg3d_scannet", 0.02)):
        with patch("pri3d.finetune.train.run", side_effect=finish) as run:
            good("finetune", task, "--data", "d", "--out", str(out), "--config", str(file))
        assert run.call_args.args[3] == config.Semseg3d(batch=3, voxel_m=voxel_m)


@pytest.mark.parametrize(
    "words",
    [
        ["nothing"],
        ["clouds"],
        ["clouds", "a.sens", "b.h5", "--evry", "3"],
        ["clouds", "a.sens", "b.h5", "--every", "0"],
        ["clouds", "a.sens", "b.h5", "--every", "x"],
        ["overlap", "a.h5", "b.h5", "--rule", "mine"],
        ["pairs", "a.h5", "b.h5", "--min-overlap", "2"],
        ["pretrain", "--set", "lr"],
        ["pretrain", "--set", "lrr=3"],
        ["pretrain", "--mode", "all"],
        ["sens", "export", "a.sens", "b", "--every", "0"],
    ],
)
def test_wrong_usage(words):
    status, out, err = pri3d(*words)
    assert status == 2
    assert out == ""
    assert "Usage: pri3d" in err


@pytest.mark.parametrize(
    "words",
    [
        ["sens", "info", "no.sens"],
        ["sens", "info", "no.sens", "--json"],
        ["sens", "export", "no.sens", "out"],
        ["clouds", "no.sens", "out.h5"],
        ["overlap", "no.h5", "out.h5"],
        ["pairs", "no.h5", "out.h5"],
        ["chunks", "no.h5", "out.h5"],
        ["correspondences", "no.h5", "0", "1", "out.npz"],
        ["pretrain", "--pairs", "no.h5"],
        ["pretrain", "--config", "no.yaml"],
        ["verify", "no.h5"],
        ["report", "no"],
    ],
)
def test_a_missing_input_is_one_line(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    assert "no" in bad(*words)
    assert not (tmp_path / "out.h5").exists()


def test_a_place_that_cannot_be_written_is_one_line(made, tmp_path):
    (tmp_path / "file").touch()
    said = bad("overlap", made / "clouds" / "scene0001_00.h5", tmp_path / "file" / "out.h5")
    assert str(tmp_path / "file") in said


def test_damage_that_is_met_while_reading_is_one_line(made, tmp_path):
    path = tmp_path / "clouds.h5"
    data = bytearray((made / "clouds" / "scene0001_00.h5").read_bytes())
    with h5py.File(made / "clouds" / "scene0001_00.h5") as file:
        data[file["frames/depth"].id.get_chunk_info(0).byte_offset + 9] ^= 1
    path.write_bytes(data)
    assert "pri3d verify" in bad("overlap", path, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(made, tmp_path):
    """A limit on the size of files stands in for the disk's end."""
    command = [sys.executable, "-m", "pri3d", "chunks", made / "clouds" / "scene0001_00.h5"]
    done = subprocess.run(
        [*command, tmp_path / "out.h5"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert done.returncode == 1
    assert done.stderr == f"pri3d: {tmp_path}: File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_is_silent(tmp_path):
    """The status says it; a half-made scan is not there."""
    command = [sys.executable, "-m", "pri3d", "demo", tmp_path / "out", "--frames", "5000"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores interrupts, and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=4)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == ""
    assert not list(tmp_path.rglob("*.sens"))
    assert not list(tmp_path.rglob("*.tmp"))


def test_weights_out_and_in(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    said = good("export", tmp_path / "resnet18.pth", tmp_path / "a.pkl", "--to", "detectron2")
    assert said.startswith(f"{tmp_path / 'a.pkl'}: detectron2, 120 entries, resnet18\n")
    assert "left out: fc.* (2)" in said
    said = good("import", tmp_path / "a.pkl", tmp_path / "b.safetensors")
    assert "\n  backbone.encoder: 120 of 120 entries\n" in said
    assert (tmp_path / "b.safetensors").exists()
    words = tmp_path / "b.safetensors", tmp_path / "c.pth", "--to", "minkowski"
    assert "has no backbone3d" in bad("export", *words)
    assert "is no file of weights" in bad("import", __file__, tmp_path / "c.safetensors")
    assert pri3d("export", *words[:2], "--to", "caffe")[0] == 2


def test_every_form_can_be_asked_for(tmp_path):
    assert "PointContrast" in good("import", "--help")
    for form, (_, endings) in convert.FORMATS.items():
        assert form in good("export", "--help")
        assert "is no run" in bad("export", tmp_path, tmp_path / f"out{endings[0]}", "--to", form)


def test_a_reader_that_goes_away_is_no_error(made):
    scan = made / "scans" / "scene0001_00" / "scene0001_00.sens"
    command = f"{shlex.quote(sys.executable)} -m pri3d sens info {shlex.quote(str(scan))} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_the_command_is_installed():
    """`pri3d` and `python -m pri3d` are the same."""
    command = os.path.join(os.path.dirname(sys.executable), "pri3d")
    for words in ([command], [sys.executable, "-m", "pri3d"]):
        done = subprocess.run([*words, "--help"], capture_output=True, text=True)
        assert done.stdout.startswith("Usage: pri3d [OPTIONS]")
