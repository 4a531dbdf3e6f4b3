"""The table of changes and what reruns; each line is checked in a dry run of Snakemake.

The results are stand-ins that were marked as made, so that no stage runs here.
"""

import os
import shutil
import time

import pytest
from flow import ROOT, planned, snakemake

pytestmark = pytest.mark.xdist_group("workflow")

SCENES = ("attic", "cellar")
LABELS = [
    "datasets={scannet: labels}",
    "report={runs: [joint], tasks: [semseg_scannet]}",
    "finetune={initial_weights: [joint]}",
]
TASK = "semseg_scannet-joint-100-0"
FINETUNED = {f"finetune {TASK}", f"evaluate {TASK}", "report"}
LAST = {"pretrain joint"} | FINETUNED
PAIRS = {"pairs"} | LAST


def each(*rules, scenes=SCENES):
    return {f"{rule} {scene}" for rule in rules for scene in scenes}


EVERYTHING = each("clouds", "overlap", "chunks") | PAIRS


def copy_tree(target):
    target.mkdir()
    for name in ("Snakefile", "config.yaml", "envs", "profiles", "workflow", "pri3d"):
        source = ROOT / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(source, target / name)
    return target


def stand_in(path, text="made"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{path.name} {text}\n")


def mark_as_made(tree, folder, scenes, *words):
    for kind in ("clouds", "overlap", "chunks"):
        for scene in scenes:
            stand_in(folder / "results" / kind / f"{scene}.h5")
    for name in ("pairs.h5", "report/index.html", "evaluation/joint.json"):
        stand_in(folder / "results" / name)
    for name in ("joint", TASK):
        stand_in(folder / "results" / "runs" / name / "model.safetensors")
    stand_in(folder / "results" / "evaluation" / f"{TASK}.json")
    done = snakemake(tree, folder, "--touch", "--forceall", "--quiet", "all", *words, "--", "all")
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A copy of the project, scans (one with a surface), and results that are up to date."""
    base = tmp_path_factory.mktemp("prepared")
    copy_tree(base / "tree")
    for scene in SCENES:
        stand_in(base / "scans" / scene / f"{scene}.sens")
    stand_in(base / "scans" / "attic" / "attic_vh_clean_2.ply")
    mark_as_made(base / "tree", base, SCENES, "--config", "scans=scans", *LABELS)
    return base


@pytest.fixture
def base(prepared, tmp_path):
    """A fresh copy, file dates and all."""
    return shutil.copytree(prepared, tmp_path / "base", symlinks=True)


def plan(base, *words, targets=("all",), config=()):
    """Words for Snakemake; `config` as it stands after --config."""
    given = ["--config", "scans=scans", *LABELS, *config]
    return planned(base / "tree", base, *given, *words, "--", *targets)


def test_nothing_changed(base):
    assert plan(base) == set()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ('pairs={"min_overlap": 0.5}', PAIRS),
        ('pairs={"max_pairs": 20000}', PAIRS),
        ('overlap={"radius_m": 0.03}', each("overlap") | PAIRS),
        ('overlap={"rule": "official"}', each("overlap") | PAIRS),
        ('chunks={"voxel_m": 0.04}', each("chunks") | LAST),
        ('frames={"every": 3}', EVERYTHING),
        ('pretrain={"lr": 0.05}', LAST),
        ('pretrain={"workers": 3, "device": "cpu", "threads": 1, "log_every": 7}', set()),
        ('pretrain={"moco_queue": 7}', set()),
        ("held_out=[attic]", LAST | {"evaluate joint"}),
        ('semseg={"lr": 0.02}', FINETUNED),
        ('semseg={"percent": 20}', {name.replace("100", "20") for name in FINETUNED}),
        ('semseg={"workers": 3, "threads": 1}', set()),
        ('insseg={"lr": 0.05}', set()),
        ('low_data={"percents": [7]}', set()),
        ('demo={"seed": 3}', set()),
        ("scenes=[attic]", PAIRS),
        ("scenes=[attic, cellar, nowhere]", PAIRS),
    ],
)
def test_a_changed_setting(base, setting, expected):
    assert plan(base, config=[setting]) == expected


def test_a_changed_variant_reruns_that_variant_only(prepared, tmp_path):
    """Two variants of one mode with two seeds each, pretrained, finetuned from and compared."""
    tree, runs = (
        prepared / "tree",
        [f"{name}-{seed}" for name in ("plain", "deep") for seed in (0, 1)],
    )
    finetuned = [f"semseg_scannet-{run}-100-0" for run in runs]
    shutil.copytree(prepared / "scans", tmp_path / "scans")

    def words(deep):
        variants = f"variants={{plain: {{mode: view, seeds: 2}}, deep: {{mode: view, {deep}}}}}"
        given = [variants, "finetune={initial_weights: [plain, deep]}"]
        report = "report={runs: [plain, deep], tasks: [semseg_scannet]}"
        return ["--config", "scans=scans", "held_out=[attic]", LABELS[0], *given, report]

    for run in [*runs, *finetuned]:
        stand_in(tmp_path / "results" / "runs" / run / "model.safetensors")
        stand_in(tmp_path / "results" / "evaluation" / f"{run}.json")
    mark_as_made(tree, tmp_path, SCENES, *words("seeds: 2, lr: 0.1"))
    assert planned(tree, tmp_path, *words("seeds: 2, lr: 0.1"), "--", "all") == set()
    changed = [*runs[2:], *finetuned[2:]]
    assert planned(tree, tmp_path, *words("seeds: 2, lr: 0.2"), "--", "all") == {
        *(f"pretrain {run}" for run in runs[2:]),
        *(f"finetune {run}" for run in finetuned[2:]),
        *(f"evaluate {run}" for run in changed),
        "report",
    }
    # One seed more has a run of its own, and the others stay.
    new = ["deep-2", "semseg_scannet-deep-2-100-0"]
    assert planned(tree, tmp_path, *words("seeds: 3, lr: 0.1"), "--", "all") == {
        f"pretrain {new[0]}",
        f"finetune {new[1]}",
        *(f"evaluate {run}" for run in new),
        "report",
    }


def test_a_changed_setting_reruns_only_what_the_target_needs(base):
    changed = ['pretrain={"lr": 0.05}', 'chunks={"voxel_m": 0.04}', 'pairs={"min_overlap": 0.5}']
    assert plan(base, config=changed, targets=["results/pairs.h5"]) == {"pairs"}
    assert plan(base, config=changed, targets=["clouds", "overlap"]) == set()


def test_a_new_scan(base):
    stand_in(base / "scans" / "flat.sens")
    assert plan(base) == each("clouds", "overlap", "chunks", scenes=["flat"]) | PAIRS


def touch(path):
    later = time.time() + 5
    os.utime(path, (later, later))


def test_a_touched_scan(base):
    """A new date alone reruns nothing, if the file is small enough to compare its content."""
    touch(base / "scans" / "attic" / "attic.sens")
    assert plan(base) == set()
    of_attic = each("clouds", "overlap", "chunks", scenes=["attic"])
    assert plan(base, "--max-checksum-file-size", "1") == of_attic | PAIRS


def test_a_scan_with_new_content(base):
    stand_in(base / "scans" / "attic" / "attic.sens", "again")
    touch(base / "scans" / "attic" / "attic.sens")
    assert plan(base) == each("clouds", "overlap", "chunks", scenes=["attic"]) | PAIRS


def test_surfaces(base):
    stand_in(base / "scans" / "cellar" / "cellar_vh_clean_2.ply")
    assert plan(base) == each("chunks", scenes=["cellar"]) | LAST
    (base / "scans" / "attic" / "attic_vh_clean_2.ply").unlink()
    assert plan(base) == each("chunks") | LAST


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_code_that_does_not_act(base):
    """Comments, docstrings, layout; and code that no result depends on."""
    package = base / "tree" / "pri3d"
    for path in package.rglob("*.py"):
        path.write_text(path.read_text() + "\n# A comment.\n")
    edit(package / "stages" / "overlap.py", '"""', '"""In other words. ')
    edit(package / "geometry.py", "return np.asarray(points, np.float64) @", "return np.asarray(\n"
         "        points, np.float64\n    ) @")  # fmt: skip
    edit(package / "__init__.py", '__version__ = "', '__version__ = "9.')
    edit(package / "config" / "data.py", 'description="', 'description="in other words: ')
    edit(
        package / "cli" / "__init__.py", "def main() -> None:", "more = 1\n\n\ndef main() -> None:"
    )
    assert plan(base) == set()


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("geometry", EVERYTHING),
        ("sources/sens", EVERYTHING),
        ("stages/clouds", EVERYTHING),
        ("matching/overlap", each("overlap") | PAIRS),
        ("stages/overlap", each("overlap") | PAIRS),
        ("stages/pairs", PAIRS),
        ("stages/chunks", each("chunks") | LAST),
        ("pretrain/losses", LAST),
        ("finetune/tasks/semseg", FINETUNED),
        ("metrics/semantic", {f"evaluate {TASK}", "report"}),
        ("pretrain/train", LAST),
    ],
)
def test_code_that_acts(base, module, expected):
    path = base / "tree" / "pri3d" / f"{module}.py"
    path.write_text(path.read_text() + "\nchanged = 1\n")
    assert plan(base) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("clouds/attic.h5", each("clouds", "overlap", "chunks", scenes=["attic"]) | PAIRS),
        ("overlap/attic.h5", each("overlap", scenes=["attic"]) | PAIRS),
        ("chunks/attic.h5", each("chunks", scenes=["attic"]) | LAST),
        ("pairs.h5", PAIRS),
        ("runs/joint/model.safetensors", LAST),
        (f"runs/{TASK}/model.safetensors", FINETUNED),
        (f"evaluation/{TASK}.json", {f"evaluate {TASK}", "report"}),
        ("report/index.html", {"report"}),
    ],
)
def test_a_removed_output(base, output, expected):
    (base / "results" / output).unlink()
    assert plan(base) == expected


def test_logs_and_benchmarks_may_be_removed(base):
    for name in ("logs", "benchmarks"):
        shutil.rmtree(base / "results" / name, ignore_errors=True)
    assert plan(base) == set()


def test_demo_scans_are_made_one_by_one(prepared, tmp_path):
    scenes = ("scene0000_00", "scene0001_00")
    tasks = "report={runs: [joint], tasks: []}"
    two, three = [tasks, 'demo={"scans": 2}'], [tasks, 'demo={"scans": 3}']
    for scene in scenes:
        for ending in (".sens", "_vh_clean_2.ply"):
            stand_in(tmp_path / "results" / "demo" / scene / f"{scene}{ending}")
    mark_as_made(prepared / "tree", tmp_path, scenes, "--config", *two)
    assert planned(prepared / "tree", tmp_path, "--config", *two) == set()
    more = each("demo", "clouds", "overlap", "chunks", scenes=["scene0002_00"])
    # The last demo scan is held out.
    measured = (PAIRS | {"evaluate joint"}) - FINETUNED | {"report"}
    assert planned(prepared / "tree", tmp_path, "--config", *three) == more | measured
    other = [tasks, 'demo={"scans": 2, "seed": 1}']
    seed = planned(prepared / "tree", tmp_path, "--config", *other)
    assert seed == each("demo", "clouds", "overlap", "chunks", scenes=scenes) | measured


def test_what_the_demo_finetunes(prepared, tmp_path):
    """Every task from all initial weights, on look-alikes; comparisons only as targets."""
    words = ["--config", 'demo={"scans": 2}']
    plan = planned(prepared / "tree", tmp_path, *words)
    images = ("semseg_scannet", "semseg_nyuv2", "insseg_scannet", "insseg_nyuv2")
    clouds = ("semseg3d_scannet", "semseg3d_s3dis", "det3d_scannet", "det3d_sunrgbd")
    runs = {f"{task}-{initial}-100-0" for task in images for initial in ("scratch", "joint")}
    runs |= {f"{task}-{initial}-100-0" for task in clouds for initial in ("scratch", "ppkt")}
    for verb in ("finetune", "evaluate"):
        assert {name for name in plan if name.startswith(verb)} - {"evaluate joint"} == {
            f"{verb} {run}" for run in runs
        }
    modes = ("joint", "ppkt", "pointcontrast", "global_kd", "crd", "gupta")
    assert {name for name in plan if name.startswith("pretrain")} == {
        f"pretrain {mode}" for mode in modes
    }
    curve = 'low_data={"percents": [5, 12.5], "initial_weights": ["moco", "view"], "seeds": 2}'
    plan = planned(prepared / "tree", tmp_path, *words, curve, "--", "low_data")
    assert {name for name in plan if name.startswith("finetune")} == {
        f"finetune semseg_scannet-{initial}-{percent}-{seed}"
        for initial in ("moco", "view")
        for percent in ("5", "12.5")
        for seed in (0, 1)
    }
    assert {"pretrain moco", "pretrain view"} <= plan


def test_the_comparison_of_3d_pretrainings_has_every_mode_and_task(prepared, tmp_path):
    words = ["--config", 'demo={"scans": 3}', 'compare_3d={"percents": [50]}', "--", "compare_3d"]
    plan = planned(prepared / "tree", tmp_path, *words)
    modes = ("ppkt", "pointcontrast", "global_kd", "crd", "gupta")
    tasks = ("semseg3d_scannet", "semseg3d_s3dis", "det3d_scannet", "det3d_sunrgbd")
    assert {f"pretrain {mode}" for mode in modes} <= plan
    runs = {f"{task}-{initial}-50-0" for task in tasks for initial in ("scratch", *modes)}
    for verb in ("finetune", "evaluate"):
        assert {name for name in plan if name.startswith(verb)} == {f"{verb} {run}" for run in runs}
    shown = 'report={"tasks": [], "runs": [], "compare_3d": true}'
    words = [*words[:-2], shown, "--", "report"]
    assert {f"evaluate {run}" for run in runs} <= planned(prepared / "tree", tmp_path, *words)
