"""The jobs that the workflow plans for its settings and scans."""

import os
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from flow import ROOT, dry_run, planned, snakemake

from pri3d import config

pytestmark = pytest.mark.xdist_group("workflow")


@pytest.fixture
def scans(tmp_path):
    """Two scans in ScanNet's layout and one flat, whose names need care in a shell."""
    for name in ("attic/attic", "the cellar/the cellar", "it's flat"):
        path = tmp_path / "my scans" / f"{name}.sens"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "my scans"


def commands(folder, *words):
    """The shell commands of a dry run, and all its output."""
    status, output = dry_run(ROOT, folder, "--printshellcmds", *words)
    assert status == 0, output
    return re.findall(r"^Shell command: python -m pri3d (.*)$", output, re.MULTILINE), output


VERBS = "pretrain", "evaluate"


def refused(folder, *words):
    status, output = dry_run(ROOT, folder, *words)
    assert status == 1, output
    assert "WorkflowError" in output
    return output


def test_the_demo_is_the_default(tmp_path):
    count = yaml.safe_load((ROOT / "config.yaml").read_text())["demo"]["scans"]
    plan = planned(ROOT, tmp_path)
    for rule in ("demo", "clouds", "overlap", "chunks"):
        assert sum(job.startswith(f"{rule} ") for job in plan) == count
    assert {"pairs", "pretrain joint", "evaluate joint", "report"} <= plan


@pytest.mark.parametrize("mode", ["view", "geo", "joint", "moco"])
def test_what_each_pretraining_needs(scans, tmp_path, mode):
    plan = planned(ROOT, tmp_path, "--config", f"scans={scans}", "--", f"pretrain_{mode}")
    assert sum(job.startswith("chunks") for job in plan) == (3 if mode in ("geo", "joint") else 0)
    assert {"pairs", f"pretrain {mode}"} <= plan
    assert "report" not in plan


@pytest.mark.parametrize("mode", ["ppkt", "pointcontrast", "global_kd", "crd", "gupta"])
def test_modes_of_single_frames_need_no_chunks_and_with_a_teacher_no_pairs(scans, tmp_path, mode):
    config = ["--config", f"scans={scans}", "held_out=[attic]", "--", f"pretrain_{mode}"]
    plan = planned(ROOT, tmp_path, *config)
    with_pairs = mode == "pointcontrast"
    assert sum(job.startswith("chunks") for job in plan) == 0
    assert ("pairs" in plan) == with_pairs
    assert sum(job.startswith("clouds") for job in plan) == (3 if with_pairs else 2)
    lines, _ = commands(tmp_path, *config)
    command = next(line for line in lines if line.startswith("pretrain "))
    assert ("--held-out attic " in command) == with_pairs
    assert ("attic" in command) == with_pairs
    assert command.count("--scene ") == (0 if with_pairs else 2)
    assert "--set lr=0.1 " in command
    other = f'variants={{"{mode}": {{"lr": 0.03}}}}'
    lines, _ = commands(tmp_path, *config[:3], other, *config[3:])
    assert "--set lr=0.03 " in next(line for line in lines if line.startswith("pretrain "))


def test_held_out_scans_are_evaluated_and_not_trained_on(scans, tmp_path):
    (tmp_path / "unseen.txt").write_text("attic\nelsewhere\n")
    config = [f"scans={scans}", "held_out=unseen.txt"]
    lines, output = commands(tmp_path, "--config", *config, "--", "evaluate")
    pretrain, evaluate = (
        next(line for line in lines if line.startswith(f"{verb} ")) for verb in VERBS
    )
    assert "--held-out attic " in pretrain
    assert "--held-out attic " in evaluate
    assert "--max-pairs 8 " in evaluate
    assert "held_out: 1 scenes are not among the scans: elsewhere" in output
    plan = planned(ROOT, tmp_path, "--config", *config, "--", "pretrain_joint")
    assert sum(job.startswith("chunks") for job in plan) == 2
    assert "chunks attic" not in plan
    plan = planned(ROOT, tmp_path, "--config", f"scans={scans}", "--", "evaluate")
    assert plan == set()


def test_a_run_depends_on_its_initial_weights(scans, tmp_path):
    config = [
        f"scans={scans}",
        'pretrain={"initial_weights_2d": "my.pth", "initial_weights_3d": "mine.safetensors"}',
    ]
    assert "my.pth" in refused_inputs(tmp_path, config, "pretrain_view")
    for name in ("my.pth", "mine.safetensors"):
        assert name in refused_inputs(tmp_path, config, "pretrain_joint")
    (tmp_path / "my.pth").write_text("weights")
    plan = planned(ROOT, tmp_path, "--config", *config, "--", "pretrain_view")
    assert "pretrain view" in plan


def refused_inputs(folder, config, target):
    status, output = dry_run(ROOT, folder, "--config", *config, "--", target)
    assert status == 1
    return output[output.index("MissingInputException") :]


def test_finetuning_on_a_users_data(scans, tmp_path):
    """Only the runs that it needs are pretrained; runs of one number share seed and labels."""
    config = [
        f"scans={scans}", 'datasets={"scannet": "my labels"}', 'semseg={"seed": 3, "percent": 40}',
        'finetune={"initial_weights": ["scratch", "imagenet", "view"]}',
    ]  # fmt: skip
    lines, _ = commands(tmp_path, "--config", *config, "--", "finetune_semseg_scannet")
    given = {
        re.search(r"--out results/runs/(\S+)", line)[1]: line
        for line in lines
        if line.startswith("finetune ")
    }
    weights = {"scratch": "random", "imagenet": "imagenet", "view": "results/runs/view"}
    assert set(given) == {f"semseg_scannet-{name}-40-0" for name in weights}
    for name, initial in weights.items():
        line = given[f"semseg_scannet-{name}-40-0"]
        assert line.startswith("finetune semseg_scannet --data 'my labels' ")
        assert f"""--set 'initial_weights="{initial}"' """ in line
        assert "--set percent=40.0 " in line
        assert "--set seed=3 " in line
    verbs = [line.split()[0] for line in lines]
    assert verbs.count("pretrain") == 1
    assert verbs.count("evaluate") == 3
    assert "data" not in verbs  # no look-alike
    curve = 'low_data={"initial_weights": ["scratch"], "percents": [5], "seeds": 2}'
    more = [
        *config[:-1],
        'finetune={"initial_weights": ["mine"], "weight_files": {"mine": "my.pth"}}',
        curve,
    ]
    (tmp_path / "my.pth").write_text("weights")
    lines, _ = commands(tmp_path, "--config", *more, "--", "finetune_semseg_scannet")
    assert [line.split()[0] for line in lines] == ["finetune", "evaluate"]
    assert """--set 'initial_weights="my.pth"' """ in lines[0]
    assert "--weights-name mine " in lines[0]
    shown = [*more, 'report={"tasks": [], "low_data": true, "runs": []}']
    plan = planned(ROOT, tmp_path, "--config", *shown, "--", "report")
    assert {f"evaluate semseg_scannet-scratch-5-{n}" for n in (0, 1)} <= plan
    config.append('low_data={"initial_weights": ["scratch"], "percents": [5], "seeds": 2}')
    lines, _ = commands(tmp_path, "--config", *config, "--", "low_data")
    seeds = [re.search(r"--set seed=(\d+)", line)[1] for line in lines if "finetune " in line]
    assert sorted(seeds) == ["3", "4"]


VARIANTS = [
    "variants={plain: {mode: joint, seeds: 2}, deep: {mode: joint, seeds: 2, depth_loss: true}}",
    "finetune={initial_weights: [scratch, plain, deep]}",
    "report={runs: [plain, deep], tasks: [semseg_scannet]}",
]


def test_variants_and_seeds_are_pretrained_evaluated_finetuned_and_compared(scans, tmp_path):
    config = ["--config", f"scans={scans}", "held_out=[attic]", "datasets={scannet: mine}"]
    plan = planned(ROOT, tmp_path, *config, *VARIANTS, "--", "report")
    runs = {f"{name}-{seed}" for name in ("plain", "deep") for seed in (0, 1)}
    finetuned = {f"semseg_scannet-{name}-100-0" for name in {"scratch", *runs}}
    assert {job for job in plan if job.startswith("pretrain ")} == {f"pretrain {n}" for n in runs}
    assert {job for job in plan if job.startswith("finetune")} == {
        f"finetune {name}" for name in finetuned
    }
    measured = {f"evaluate {name}" for name in runs | finetuned}
    assert {job for job in plan if job.startswith("evaluate")} == measured
    assert "report" in plan
    lines, _ = commands(tmp_path, *config, *VARIANTS, "--", "pretrain_deep")
    pretrain = [line for line in lines if line.startswith("pretrain ")]
    assert len(pretrain) == 2
    for seed, line in enumerate(sorted(pretrain, key=lambda line: "deep-1 " in line)):
        assert line.startswith("pretrain --mode joint --variant deep --pairs")
        assert f"--out results/runs/deep-{seed} " in line
        assert f"--set seed={seed} " in line
        assert "--set depth_loss=true " in line
    curve = "low_data={initial_weights: [deep], percents: [20], seeds: 2}"
    plan = planned(ROOT, tmp_path, *config, *VARIANTS, curve, "--", "low_data")
    assert {job for job in plan if job.startswith("finetune")} == {
        f"finetune semseg_scannet-deep-{run}-20-{seed}" for run in (0, 1) for seed in (0, 1)
    }


def test_a_finetuning_has_the_network_of_its_pretraining(scans, tmp_path):
    variant = "variants={small: {mode: joint, network2d: resnet18_half}}"
    config = [f"scans={scans}", "datasets={scannet: mine}", variant]
    more = "finetune={initial_weights: [scratch, small]}"
    given = ["--config", *config, more, "--", "finetune_semseg_scannet"]
    lines, _ = commands(tmp_path, *given)
    networks = {
        re.search(r"initial_weights=\"([\w/]+)", line)[1]: re.search(r"network2d=\"(\w+)", line)[1]
        for line in lines
        if line.startswith("finetune ")
    }
    assert networks == {"random": "resnet18", "results/runs/small": "resnet18_half"}


@pytest.mark.parametrize("given", ["file", "name", "both"])
def test_a_preset_is_chosen_by_name_or_as_a_file(scans, tmp_path, given):
    (tmp_path / "mine.yaml").write_text("preset: lite\npretrain.steps: 7\nframes: {every: 3}\n")
    words = {
        "file": ["--configfile", ROOT / "workflow/presets/lite.yaml", "--config"],
        "name": ["--config", "preset=lite"],
        "both": ["--configfile", tmp_path / "mine.yaml", "--config"],
    }[given]
    lines, _ = commands(tmp_path, *words, f"scans={scans}", "--", "pretrain_view")
    assert any("--max-pairs 20000" in line for line in lines)
    pretrain = next(line for line in lines if line.startswith("pretrain "))
    assert ("--set steps=7 " if given == "both" else "--set steps=66000 ") in pretrain
    assert any(f"--every {3 if given == 'both' else 25} " in line for line in lines)


def test_run_takes_dotted_keys(scans, tmp_path):
    """Snakemake itself refuses a dot in a key of --config."""
    words = ["run", "--dry-run", "pretrain_joint_depth", f"scans={scans}", "pretrain.lr=0.05"]
    words += ["variants.joint_depth.mode=joint", "pairs.max_pairs=null"]
    done = subprocess.run(
        [sys.executable, "-m", "pri3d", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert "training results/runs/joint_depth" in done.stdout + done.stderr


def test_target_names_are_those_of_the_snakefile(tmp_path):
    done = snakemake(ROOT, tmp_path, "--list-target-rules")
    names = {line for line in done.stdout.splitlines() if re.fullmatch(r"\w+", line)}
    assert names - {"dataset_scannet"} == set(config.target_names(config.Settings()))


def test_names_are_quoted(scans, tmp_path):
    lines, _ = commands(tmp_path, "--config", f"scans={scans}", "--", "clouds", "results/pairs.h5")
    clouds = [line for line in lines if line.startswith("clouds ")]
    assert len(clouds) == 3
    assert any(f"'{scans}/the cellar/the cellar.sens' 'results/clouds/the" in c for c in clouds)
    pairs = next(line for line in lines if line.startswith("pairs "))
    assert "'results/overlap/the cellar.h5'" in pairs


def test_settings_on_the_command_line_are_merged_into_their_section(scans, tmp_path):
    config = [f"scans={scans}", 'frames={"every": 3}']
    (first, *_), _ = commands(tmp_path, "--config", *config, "--", "clouds")
    assert "--every 3 --color-height 480 --keep-going" in first


def test_presets_lie_over_the_settings_and_the_command_line_over_them(scans, tmp_path):
    preset = ["--configfile", ROOT / "workflow/presets/lite.yaml"]
    target = ["--", "pretrain_view"]
    lines, _ = commands(tmp_path, *preset, "--config", f"scans={scans}", *target)
    pretrain = next(line for line in lines if line.startswith("pretrain "))
    assert "--set steps=66000" in pretrain
    assert any("--max-pairs 20000" in line for line in lines)
    config = [f"scans={scans}", 'pretrain={"steps": 7}']
    lines, _ = commands(tmp_path, *preset, "--config", *config, *target)
    pretrain = next(line for line in lines if line.startswith("pretrain "))
    assert "--set steps=7 " in pretrain
    assert "--set batch=64" in pretrain


@pytest.mark.parametrize("given_as", ["list", "file"])
def test_scenes_without_a_scan_are_reported_and_do_not_stop_the_run(scans, tmp_path, given_as):
    (tmp_path / "scenes.txt").write_text("attic\nnowhere\n\nattic\nlost scene\n".replace(" ", "_"))
    scenes = "[attic, nowhere, attic, lost_scene]" if given_as == "list" else "scenes.txt"
    config = [f"scans={scans}", f"scenes={scenes}"]
    lines, output = commands(tmp_path, "--config", *config, "--", "results/pairs.h5")
    assert [line.split()[0] for line in lines] == ["clouds", "overlap", "pairs"]
    assert lines[-1].endswith(
        "--missing nowhere --missing lost_scene > results/logs/pairs.log 2>&1"
    )
    assert "No scan for 2 scenes, listed in the ledger: nowhere lost_scene" in output


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ('frames={"evry": 3}', "setting frames.evry is unknown; did you mean frames.every?"),
        ('frames={"every": 0}', "setting frames.every: input should be greater than or equal to 1"),
        ("scans=nowhere", "nowhere: no such folder; set `scans`"),
        ("scenes=nowhere.txt", "nowhere.txt: is no list of scenes"),
        ("scenes=[nowhere]", "scenes: none of them has a scan in "),
        (
            'semseg={"initial_weights": "my.pth"}',
            "semseg.initial_weights: is for `pri3d finetune`; name the file in",
        ),
        (
            'finetune={"initial_weights": ["nobody"]}',
            "there is no run or weight file nobody; known: scratch, imag",
        ),
        ("scenes=[attic]", "datasets.scannet: is demo, but scans is"),
        ("scenes=[attic] held_out=[attic]", "held_out: leaves no scan to train on"),
    ],
)
def test_wrong_settings_are_one_sentence(scans, tmp_path, config, expected):
    given = [config] if config.startswith("scans") else [f"scans={scans}", config]
    if "held_out" in config:
        given = [f"scans={scans}", *config.split()]
    assert expected in refused(tmp_path, "--config", *given)


@pytest.mark.parametrize("name", ["gpu", "slurm"])
def test_only_profiles_request_a_gpu(name):
    for path in [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]:
        assert "gpu" not in path.read_text()
    profile = yaml.safe_load((ROOT / "workflow/profiles" / name / "config.yaml").read_text())
    trained = {"pretrain", "evaluate_run", "finetune", "evaluate_finetuned"}
    assert profile["set-resources"] == {rule: {"gpu": 1} for rule in trained}


def test_the_gpu_profile_is_understood(scans, tmp_path):
    profile = ["--profile", ROOT / "workflow/profiles/gpu"]
    commands(tmp_path, *profile, "--config", f"scans={scans}", "--", "pretrain_joint")


def test_a_missing_gpu_is_one_line(tmp_path):
    """The trainer checks it before its inputs."""
    words = ["pretrain", "--mode", "view", "--set", "device=cuda", "--out", tmp_path]
    words += ["--clouds", tmp_path, "--pairs", __file__]
    done = subprocess.run(
        [sys.executable, "-m", "pri3d", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("pri3d: device: cuda is requested, and torch finds no GPU")


def test_the_slurm_profile_groups_the_short_jobs(scans, tmp_path):
    """Without its executor, which is an extra that need not be installed."""
    text = (ROOT / "workflow" / "profiles" / "slurm" / "config.yaml").read_text()
    profile = yaml.safe_load(text)
    assert profile.pop("executor") == "slurm"
    profile = {key: value for key, value in profile.items() if not key.startswith("slurm-")}
    (tmp_path / "slurm").mkdir()
    header = "__use_yte__: true\n"
    (tmp_path / "slurm" / "config.yaml").write_text(header + yaml.safe_dump(profile))
    given = ["--config", f"scans={scans}", 'report={"tasks": []}']
    commands(tmp_path, "--profile", tmp_path / "slurm", *given, "--", "all")
    rules = {path.name: path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk")}
    for rule in profile["groups"]:
        assert any(f"rule {rule}:" in text for text in rules.values()), rule


def test_the_workflow_is_in_good_condition(tmp_path):
    done = snakemake(ROOT, tmp_path, "--lint")
    assert done.returncode == 0, done.stdout
    assert "in a good condition" in done.stdout


RULES = re.findall(
    r"^rule (\w+):\n(.*?)(?=\n\n\n|\Z)",
    "\n\n\n".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk"))),
    re.MULTILINE | re.DOTALL,
)
KEYS = [
    "input",
    "output",
    "params",
    "log",
    "benchmark",
    "conda",
    "threads",
    "resources",
    "message",
    "shell",
]


@pytest.mark.parametrize(("name", "body"), RULES, ids=[name for name, _ in RULES])
def test_every_rule_has_the_same_keys_in_the_same_order(name, body):
    keys = re.findall(r"^    (\w+):", body, re.MULTILINE)
    from_nothing = name in ("demo", "dataset_rendered")
    assert keys == [key for key in KEYS if key != "input" or not from_nothing]
    assert re.search(r"code_(digest|of_mode|of_task)\(", body)


def test_all_stages_have_a_rule():
    stages = {path.stem for path in (ROOT / "pri3d/stages").glob("[!_]*.py")}
    digested = set(re.findall(r'code_digest\("pri3d\.stages\.(\w+)"\)', str(RULES)))
    assert digested == stages


def test_every_dependency_is_pinned_for_conda_too():
    pins = dict(line.lower().split("==") for line in (ROOT / "constraints.txt").read_text().split())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    dev = project["optional-dependencies"]["dev"]
    needed = {re.match(r"[\w.-]+", line)[0].lower() for line in project["dependencies"]}
    developed = {re.match(r"[\w.-]+", line)[0].lower().replace("-", "_") for line in dev}
    assert developed <= {name.replace("-", "_") for name in pins}
    environment = yaml.safe_load((ROOT / "envs" / "pri3d.yaml").read_text())
    listed = dict(line.split("==") for line in environment["dependencies"][-1]["pip"])
    assert listed == {name: pins[name] for name in needed}
