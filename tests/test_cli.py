"""The command line: options of each verb, exit statuses, and one line on failure."""

import contextlib
import io
import json
import logging
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest.mock import patch

import h5py
import numpy as np
import pytest
import torch
import torchvision
from small_results import write_run

from pri3d import __version__, cli, config
from pri3d.artefacts import Clouds
from pri3d.matching.correspondences import nearest
from pri3d.run.folder import Provenance
from pri3d.weights import convert

SCAN = __file__  # a file that exists
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


def wrong(*words):
    """The message about wrong usage, on one line."""
    status, out, err = pri3d(*words)
    assert (status, out) == (2, ""), err
    assert err.startswith("Usage: pri3d")
    return " ".join(err.split())


def bad(*words):
    """The one line that is printed when the work cannot be done."""
    status, out, err = pri3d(*words)
    assert status == 1
    assert out == ""
    assert err.startswith("pri3d: ")
    assert err.count("\n") == 1
    return err


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny demo scan and the artefacts that the verbs make of it."""
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
    output = good("verify", *(made / name for name in [*names, "chunks/scene0001_00.h5"]))
    assert output.count(": good") == 4
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
    header = json.loads(good("sens", "info", scan, "--json"))
    assert header["frames"] == 40
    assert header["depth"]["height"] == 48
    assert {"version", "sensor", "frames_readable", "usable", "problems"} <= header.keys()
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
    with np.load(tmp_path / "matches") as matches:
        np.testing.assert_array_equal(matches["a"], a)
        np.testing.assert_array_equal(matches["b"], b)
        np.testing.assert_array_equal(matches["distance"], distance)
        assert matches["a"].shape == (len(distance), 2)
    message = bad("correspondences", path, 1, j, tmp_path / "more")
    assert "no frame 1 (not one of the frames that `every` selects)" in message
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_every_setting_with_unit_and_default(verb):
    text = " ".join(good(verb, "--help").split())
    section = VERBS[verb]()
    for name, field in type(section).model_fields.items():
        assert "--" + name.removesuffix("_m").replace("_", "-") in text
        assert field.description in text
        default = getattr(section, name)
        if default is not None and not isinstance(default, bool):
            assert f"[default: {default}]" in text, name


def all_verbs(group=cli.app, prefix=()):
    for command in group.registered_commands:
        name = command.name or command.callback.__name__
        yield (*prefix, name)
    for inner in group.registered_groups:
        yield from all_verbs(inner.typer_instance, (*prefix, inner.name))


def test_help_lists_the_verbs():
    text = good("--help")
    for verb in {words[0] for words in all_verbs()}:
        assert re.search(rf"^  {verb} +[A-Z].*\.$", text, re.MULTILINE), verb
    for page in (text, good("sens", "-h"), good("data", "-h")):
        assert "..." not in page.partition("Commands:")[2]


@pytest.mark.parametrize("verb", list(all_verbs()), ids=" ".join)
def test_every_verb_has_help(verb):
    for flag in ("-h", "--help"):
        assert good(*verb, flag).startswith(f"Usage: pri3d {' '.join(verb)}")


def test_help_describes_modes_and_tasks():
    text = good("pretrain", "-h")
    for name, mode in config.MODES.items():
        assert re.search(rf"^    {name} +{re.escape(mode.summary)}$", text, re.MULTILINE), name
    text = good("finetune", "-h")
    for name in config.TASKS:
        summary = re.escape(config.kind_of(name).summary)
        assert re.search(rf"^    {name} +{summary}$", text, re.MULTILINE), name


def test_version():
    assert good("--version") == f"pri3d {__version__}\n"
    project = Path(__file__).parents[1] / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["version"] == __version__


def test_help_loads_few_modules():
    """About 0.2 s of processor time; a count does not depend on the machine."""
    code = "import sys, pri3d.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert len(loaded) < 400
    assert not {name.split(".")[0] for name in loaded} & {"numpy", "h5py", "yaml", "torch"}


SETTINGS = {
    "demo": config.Demo(scans=2, seed=3, frames=5, height=32, color_height=40, noise=False),
    "clouds": config.Frames(every=3, max_depth_m=4.5, color_height=0),
    "overlap": config.Overlap(radius_m=0.03, rule="official"),
    "pairs": config.Pairs(min_overlap=0.4, max_pairs=7, seed=5),
    "chunks": config.Chunks(voxel_m=0.05),
}
ARGUMENTS = {
    "demo": ("pri3d.demo.make", ["out"]),
    "clouds": ("pri3d.stages.clouds.run", [SCAN, "out.h5"]),
    "overlap": ("pri3d.stages.overlap.run", [SCAN, "out.h5"]),
    "pairs": ("pri3d.stages.pairs.run", [SCAN, SCAN, "out.h5"]),
    "chunks": ("pri3d.stages.chunks.run", [SCAN, "out.h5"]),
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
    (tmp_path / "results" / "clouds").mkdir(parents=True)
    (tmp_path / "results" / "chunks").mkdir()
    (tmp_path / "results" / "pairs.h5").touch()
    changed = config.Pretrain(
        network3d={"widths": [8] * 8}, lr=0.03, augment_color=False, device="cpu", steps=7
    )
    some = cli.assignments(changed, only=["lr", "steps"])
    rest = cli.assignments(changed, leave_out=["lr", "steps"])
    assert trained_with(*shlex.split(some), *shlex.split(rest))[5] == changed
    (tmp_path / "my.yaml").write_text("pretrain:\n  lr: 0.5\n  steps: 9\n")
    pairs, clouds, chunks, out, mode, settings, engine, held_out, _, variant = trained_with(
        *("--mode", "view", "--config", "my.yaml", "--set", "steps=3"),
        *("--engine", "minkowski", "--held-out", "a", "--held-out", "b"),
    )
    assert (engine, held_out, variant) == ("minkowski", ["a", "b"], None)
    assert settings == config.Pretrain(lr=0.5, steps=3)
    text = "pretrain: {lr: 0.5}\nvariants: {crd: {lr: 0.2, batch: 4}}\n"
    (tmp_path / "more.yaml").write_text(text)
    settings = trained_with("--mode", "crd", "--config", "more.yaml", "--set", "batch=6")[5]
    assert settings == config.Pretrain(lr=0.2, batch=6)
    assert (mode, str(out)) == ("view", "results/runs/view")
    (tmp_path / "deep.yaml").write_text("variants: {deep: {mode: geo, lr: 0.3}}\n")
    given = ["--config", "deep.yaml", "--variant", "deep", "--set", "pretrain.batch=6"]
    *_, out, mode, settings, _, _, _, variant = trained_with(*given)
    assert (mode, variant, str(out)) == ("geo", "deep", "results/runs/deep")
    assert settings == config.Pretrain(lr=0.3, batch=6)
    given = ["--mode", "view", "--variant", "unnamed", "--set", "training.threads=3"]
    *_, out, mode, settings, _, _, _, variant = trained_with(*given)
    assert (mode, variant, settings.threads) == ("view", "unnamed", 3)
    assert [str(path) for path in (pairs, clouds, chunks)] == [
        "results/pairs.h5",
        "results/clouds",
        "results/chunks",
    ]


def test_settings_of_a_task_reach_its_finetuning(tmp_path):
    file, out = tmp_path / "more.yaml", tmp_path / "out"
    file.write_text("semseg3d: {batch: 3}\ntasks: {semseg3d_s3dis: {voxel_m: 0.1}}\n")

    def finish(task, data, out, *_):
        (out / "metrics.jsonl").write_text("{}\n")

    for task, voxel_m in (("semseg3d_s3dis", 0.1), ("semseg3d_scannet", 0.02)):
        with patch("pri3d.finetune.train.run", side_effect=finish) as run:
            given = ["--data", tmp_path, "--out", out, "--weights-name", "mine"]
            good("finetune", task, *given, "--config", file)
        assert run.call_args.args[3] == config.Semseg3d(batch=3, voxel_m=voxel_m)
        assert run.call_args.args[5] == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "No such command"),
        (["clouds"], "Missing argument"),
        (["clouds", SCAN, "b.h5", "--evry", "3"], "No such option: --evry"),
        (["clouds", SCAN, "b.h5", "--every", "0"], "frames.every"),
        (["clouds", SCAN, "b.h5", "--every", "x"], "should be a valid integer"),
        (["overlap", SCAN, "b.h5", "--rule", "mine"], "'mine' is not one of"),
        (["pairs", SCAN, "b.h5", "--min-overlap", "2"], "pairs.min_overlap"),
        (["pretrain", "--set", "lr"], "KEY=VALUE, not 'lr'"),
        (["pretrain", "--set", "lr=]"], "the value is no YAML"),
        (["pretrain", "--set", "lrr=3"], "did you mean pretrain.lr?"),
        (["pretrain", "--set", "pretrain.learning_rate=3"], "did you mean pretrain.lr?"),
        (["pretrain", "--set", "net2d=resnet50"], "net2d is now named network2d"),
        (["pretrain", "--set", "frames.every=3"], "frames.every does not apply here"),
        (["pretrain", "--mode", "jiont"], "no mode jiont; did you mean joint? known: view, geo,"),
        (["pretrain", "--variant", "viev"], "no variant viev; did you mean view?"),
        (["finetune", "semseg_scanet", "--data", "."], "no task semseg_scanet; did you mean sem"),
        (["finetune", "det3d_scannet", "--data", ".", "--set", "semseg.lr=1"], "not apply here"),
        (["probe", "insseg_scannet", "--data", "."], "no task to probe insseg_scannet"),
        (["sens", "export", SCAN, "b", "--every", "0"], "greater than or equal to 1"),
        (["run", "pretrain_jiont"], "no target pretrain_jiont; did you mean pretrain_joint?"),
    ],
)
def test_wrong_usage(words, message):
    assert message in wrong(*words)


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
        ["chunks", SCAN, "out.h5", "--surface", "no.ply"],
        ["correspondences", "no.h5", "0", "1", "out.npz"],
        ["pretrain", "--clouds", "no"],
        ["pretrain", "--clouds", ".", "--pairs", "no.h5"],
        ["pretrain", "--clouds", ".", "--pairs", SCAN, "--chunks", "no"],
        ["pretrain", "--clouds", ".", "--mode", "ppkt", "--set", "teacher_weights=no.pth"],
        ["pretrain", "--config", "no.yaml"],
        ["finetune", "semseg_scannet", "--data", "no"],
        ["finetune", "semseg_scannet", "--data", ".", "--set", "initial_weights=no.pth"],
        ["probe", "semseg_scannet", "--data", "no"],
        ["predict", "no", "a.jpg"],
        ["evaluate", "no"],
        ["export", "no", "out.pth", "--to", "timm"],
        ["import", "no.pth", "out.safetensors"],
        ["data", "check", "no"],
        ["data", "split", "no", "out"],
        ["data", "demo", "scannet", "out", "--scans", "no"],
        ["verify", "no.h5"],
        ["report", "no"],
        ["run", "--config", "no.yaml"],
    ],
)
def test_a_missing_input_is_one_line_before_torch_is_loaded(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    # None stands for a module that cannot be imported.
    with patch.dict(sys.modules, {"torch": None}):
        for name in [name for name in sys.modules if name.startswith(NEED_TORCH)]:
            del sys.modules[name]
        assert "no" in bad(*words)
    assert not (tmp_path / "out.h5").exists()


NEED_TORCH = tuple(
    f"pri3d.{name}"
    for name in ("pretrain", "finetune", "weights", "models", "sparse", "transforms", "run.loop")
)


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    for words in (["evaluate", tmp_path], ["predict", tmp_path, __file__]):
        assert f"{tmp_path / 'settings.json'}: no such file" in bad(*words)


@pytest.fixture
def runs(tmp_path):
    """Folders of a pretraining run and of one finetuning run of each kind."""
    provenance = Provenance({}, {}, None, {}, None)
    write_run(tmp_path / "joint", "pretrain", "joint", config.Pretrain(), provenance)
    for task in ("semseg_scannet", "semseg_nyuv2", "semseg3d_s3dis", "det3d_scannet"):
        settings = config.Settings().of_task(task)
        write_run(tmp_path / task, "finetune", task, settings, provenance)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("joint", ["--data", "."], "is a pretraining run (joint); --data does not apply to it"),
        ("joint", ["--split", "val", "--pictures", "3"], "--split, --pictures do not apply"),
        ("joint", ["--submission", "out"], "--submission does not apply to it"),
        ("semseg_nyuv2", [], "is a finetuning run (semseg_nyuv2"),
        ("semseg_nyuv2", [], "labeled data set with --data"),
        ("semseg_nyuv2", ["--held-out", "a"], "--held-out does not apply to it"),
        ("semseg_nyuv2", ["--max-pairs", "100"], "--max-pairs does not apply to it"),
        ("semseg_nyuv2", ["--submission", "out"], "there is no benchmark for semseg_nyuv2"),
        ("det3d_scannet", ["--split", "test"], "det3d_scannet has no test split"),
        ("det3d_scannet", ["--pictures", "3"], "--pictures: there are none for det3d_scannet"),
    ],
)
def test_options_of_evaluate_that_do_not_apply_are_wrong_usage(runs, name, words, message):
    text = wrong("evaluate", runs / name, *words)
    assert message in text
    assert str(runs / name) in text


def test_predict_wants_a_finetuning_on_images(runs):
    for name in ("joint", "det3d_scannet"):
        assert "is no finetuning on images" in bad("predict", runs / name, __file__)
    assert "no.jpg: no such file" in bad("predict", runs / "semseg_nyuv2", "no.jpg")


def test_messages_of_the_library_go_to_stderr(runs):
    def work(*_):
        logging.getLogger("pri3d.weights").info("the file is read")
        logging.getLogger("pri3d.weights").warning("an entry is missing")
        return ["done"]

    with patch("pri3d.weights.convert.import_file", side_effect=work):
        status, out, err = pri3d("import", __file__, "out.safetensors")
    assert (status, out) == (0, "done\n")
    assert err == "the file is read\npri3d: warning: an entry is missing\n"


def test_settings_are_printed(tmp_path):
    (tmp_path / "mine.yaml").write_text("pretrain.lr: 0.3\n")
    given = ["--config", tmp_path / "mine.yaml", "--preset", "paper"]
    settings = json.loads(good("settings", *given))
    assert settings["pretrain"]["lr"] == 0.3
    assert settings["pretrain"]["network2d"] == "resnet50"


def test_the_workflow_is_run_with_dotted_settings(tmp_path):
    (tmp_path / "mine.yaml").write_text("frames.every: 7\n")
    settings = ["pretrain.lr=0.05", "variants.deep.mode=joint", "variants.deep.seeds=2"]
    given = ["pretrain_deep", *settings, "scans=my scans", "--config", tmp_path / "mine.yaml"]
    with patch("os.execv", side_effect=SystemExit) as execute:
        good("run", "--cores", "3", "-n", *given)
    command = execute.call_args.args[1]
    assert command[1:3] == ["-m", "snakemake"]
    assert command[command.index("--cores") + 1] == "3"
    assert command[command.index("--configfile") + 1] == str(tmp_path / "mine.yaml")
    assert 'pretrain={"lr": 0.05}' in command
    assert 'variants={"deep": {"mode": "joint", "seeds": 2}}' in command
    assert "scans=my scans" in command
    assert command[-2:] == ["--", "pretrain_deep"]


def test_a_folder_that_cannot_be_written_is_one_line(made, tmp_path):
    (tmp_path / "file").touch()
    message = bad("overlap", made / "clouds" / "scene0001_00.h5", tmp_path / "file" / "out.h5")
    assert str(tmp_path / "file") in message


def test_damage_found_while_reading_is_one_line(made, tmp_path):
    path = tmp_path / "clouds.h5"
    data = bytearray((made / "clouds" / "scene0001_00.h5").read_bytes())
    with h5py.File(made / "clouds" / "scene0001_00.h5") as file:
        data[file["frames/depth"].id.get_chunk_info(0).byte_offset + 9] ^= 1
    path.write_bytes(data)
    assert "pri3d verify" in bad("overlap", path, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(made, tmp_path):
    """A limit on the size of files imitates the full disk."""
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
    """The exit status is 130; no unfinished scan is left."""
    command = [sys.executable, "-m", "pri3d", "demo", tmp_path / "out", "--frames", "5000"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # Background jobs of a shell ignore interrupts, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=4)
    process.send_signal(signal.SIGINT)
    _, output = process.communicate(timeout=30)
    assert process.returncode == 130
    assert output == ""
    assert not list(tmp_path.rglob("*.sens"))
    assert not list(tmp_path.rglob("*.tmp"))


def test_weights_out_and_in(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    output = good("export", tmp_path / "resnet18.pth", tmp_path / "a.pkl", "--to", "detectron2")
    assert output.startswith(f"{tmp_path / 'a.pkl'}: detectron2, 120 entries, resnet18\n")
    assert "left out: fc.* (2)" in output
    output = good("import", tmp_path / "a.pkl", tmp_path / "b.safetensors")
    assert "\n  backbone.encoder: 120 of 120 entries\n" in output
    assert (tmp_path / "b.safetensors").exists()
    words = tmp_path / "b.safetensors", tmp_path / "c.pth", "--to", "minkowski"
    assert "has no backbone3d" in bad("export", *words)
    assert "is not a file of weights" in bad("import", __file__, tmp_path / "c.safetensors")
    assert pri3d("export", *words[:2], "--to", "caffe")[0] == 2


def test_every_form_is_in_the_help(tmp_path):
    assert "PointContrast" in good("import", "--help")
    for form, (_, endings) in convert.FORMATS.items():
        assert form in good("export", "--help")
        assert "is no run" in bad("export", tmp_path, tmp_path / f"out{endings[0]}", "--to", form)


def test_a_closed_pipe_is_no_error(made):
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
