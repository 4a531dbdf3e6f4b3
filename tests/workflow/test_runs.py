"""The whole flow, tiny: the same results for any number of cores and after any kill."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from flow import ROOT, planned, words_for

from pri3d import store
from pri3d.run.folder import read_run

pytestmark = [pytest.mark.xdist_group("runs"), pytest.mark.timeout(900)]

CONFIG = [
    'demo={"scans": 2, "frames": 40, "height": 48, "color_height": 64}',
    'frames={"every": 5}',
    'pairs={"min_overlap": 0.1}',
    'evaluate={"max_pairs": 3, "matches": 32}',
    'network3d={"widths": [8, 8, 8, 8, 8, 8, 8, 8]}',
    'pretrain={"steps": 4, "height": 64, "width": 64,'
    ' "batch": 1, "matches": 64, "radius_m": 0.05, "workers": 0, "threads": 1,'
    ' "log_every": 1, "checkpoint_every": 1}',
    'finetune={"initial_weights": ["joint"], "initial_weights_3d": ["ppkt"]}',
    'report={"runs": ["joint", "ppkt"],'
    ' "tasks": ["semseg_scannet", "insseg_scannet", "semseg3d_scannet"]}',
    'semseg={"steps": 2, "batch": 1, "height": 64, "width": 64, "workers": 0, "threads": 1,'
    ' "checkpoint_every": 1}',
    'insseg={"steps": 1, "batch": 1, "short_sides": [64], "long_side": 86, "min_pixels": 20,'
    ' "roi_samples": 16, "workers": 0, "threads": 1}',
    'semseg3d={"steps": 2, "batch": 1, "voxel_m": 0.1}',
]
TASKS = [f"{task}_scannet-joint-100-0" for task in ("semseg", "insseg")]
IN_CLOUDS = "semseg3d_scannet-ppkt-100-0"


def start(folder, cores, *targets, log=None, more=()):
    """The ordinary command, in a process group of its own; `more` settings after CONFIG."""
    folder.mkdir(exist_ok=True)
    words = words_for(ROOT, folder, "--config", *CONFIG, *more, "--", *targets)
    words[words.index("--cores") + 1] = str(cores)
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", *words],
        stdout=log or subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(folder, cores, *targets):
    process = start(folder, cores, *targets)
    output, _ = process.communicate()
    assert process.returncode == 0, output


def digests(folder):
    """Name -> digest of everything that was made and must not depend on time or machine."""
    results = folder / "results"
    digest_of = {
        str(path.relative_to(results)): store.artefact_digest(path)
        for path in sorted(results.rglob("*.h5"))
    }
    for pattern in ("demo/*/*", "runs/*/model.safetensors"):
        for path in sorted(results.glob(pattern)):
            content = path.read_bytes()
            digest_of[str(path.relative_to(results))] = hashlib.sha256(content).hexdigest()
    return digest_of


def litter(folder):
    return [str(path) for path in (folder / "results").rglob("*.tmp")]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Digests of an undisturbed run of everything."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    finish(folder, 2, "all")
    yield folder, digests(folder)
    shutil.rmtree(folder)


def test_everything_is_made(reference):
    folder, digest_of = reference
    names = [f"{stage}/scene000{n}_00.h5" for stage in ("clouds", "overlap") for n in range(2)]
    assert {*names, "pairs.h5", "chunks/scene0001_00.h5", "runs/joint/model.safetensors"} <= set(
        digest_of
    )
    assert (folder / "results" / "report" / "index.html").stat().st_size > 10_000
    for task in TASKS:
        assert f"runs/{task}/model.safetensors" in digest_of
        measured = json.loads((folder / "results/evaluation" / f"{task}.json").read_text())
        assert measured["images"] == 4  # every tenth of the held-out scan's 40
        assert measured["left_out"] == []
    assert {"runs/ppkt/model.safetensors", f"runs/{IN_CLOUDS}/model.safetensors"} <= set(digest_of)
    measured = json.loads((folder / "results/evaluation" / f"{IN_CLOUDS}.json").read_text())
    assert (measured["clouds"], measured["left_out"]) == (1, [])
    finetuned = read_run(folder / "results" / "runs" / IN_CLOUDS).provenance.finetuned_from
    assert (finetuned.kind, finetuned.name, finetuned.mode) == ("run", "ppkt", "ppkt")
    trained = read_run(folder / "results/runs/ppkt").provenance
    assert list(trained.inputs["clouds"]) == ["scene0000_00"]
    measured = json.loads((folder / "results/evaluation/joint.json").read_text())
    assert measured["scenes"] == ["scene0001_00"]  # the last one is held out
    trained = read_run(folder / "results/runs/joint").provenance
    assert list(trained.inputs["clouds"]) == list(trained.inputs["chunks"]) == ["scene0000_00"]
    assert litter(folder) == []
    for kind in ("logs", "benchmarks"):
        made = {path.relative_to(folder / "results" / kind).parts[0].split(".")[0]
                for path in (folder / "results" / kind).rglob("*.*")}  # fmt: skip
        stages = {"demo", "clouds", "overlap", "pairs", "chunks", "pretrain", "evaluate", "report"}
        assert made == stages | {"datasets", "finetune"}
    assert planned(ROOT, folder, "--config", *CONFIG, "--", "all") == set()


def test_a_real_file_with_a_new_date_reruns_nothing(reference):
    folder, _ = reference
    later = time.time() + 5
    for name in ("demo/scene0001_00/scene0001_00.sens", "clouds/scene0000_00.h5", "pairs.h5"):
        path = folder / "results" / name
        before = path.stat()
        os.utime(path, (later, later))
        assert planned(ROOT, folder, "--config", *CONFIG, "--", "all") == set()
        os.utime(path, (before.st_atime, before.st_mtime))


@pytest.mark.slow
def test_one_core_gives_the_same(reference, tmp_path):
    finish(tmp_path / "run", 1, "results/pairs.h5", "chunks", "finetune_semseg_scannet")
    others = ("insseg", "ppkt")
    expected = {
        name: digest
        for name, digest in reference[1].items()
        if not any(other in name for other in others)
    }
    assert digests(tmp_path / "run") == expected


def test_variants_and_seeds_end_in_the_report(reference, tmp_path):
    """Two variants of one mode with two seeds each: pretrained, finetuned from and compared."""
    folder = tmp_path / "run"
    shutil.copytree(reference[0], folder)
    variants = {
        "plain": {"mode": "view", "seeds": 2},
        "deep": {"mode": "view", "seeds": 2, "lr": 1},
    }
    more = [
        f"variants={json.dumps(variants)}",
        'finetune={"initial_weights": ["plain", "deep"]}',
        'report={"runs": ["plain", "deep"], "tasks": ["semseg_scannet"]}',
    ]
    process = start(folder, 2, "report", more=more)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    digests = set()
    for name in variants:
        for seed in range(2):
            run = read_run(folder / "results" / "runs" / f"{name}-{seed}")
            assert (run.mode, run.variant, run.pretrain.seed) == ("view", name, seed)
            finetuned = folder / "results" / "runs" / f"semseg_scannet-{name}-{seed}-100-0"
            weights = read_run(finetuned).provenance.finetuned_from
            assert (weights.kind, weights.name, weights.mode) == ("run", name, "view")
            digests.add(run.digest())
    assert len(digests) == 4
    page = (folder / "results" / "report" / "index.html").read_text()
    assert "plain" in page
    assert "deep" in page


def kill_repeatedly(folder, kills, longest, *targets):
    """Start the ordinary command and kill it with its jobs, `kills` times.

    Returns the number of starts that were killed while they worked.
    """
    rng, at_work = random.Random(kills), 0
    for _ in range(kills):
        process = start(folder, 2, *targets, log=subprocess.DEVNULL)
        try:
            process.wait(timeout=rng.uniform(1.5, longest))
        except subprocess.TimeoutExpired:
            at_work += 1
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return at_work


@pytest.mark.parametrize(
    ("kills", "longest", "targets"),
    [
        (2, 4, ["results/pairs.h5", "chunks"]),
        pytest.param(10, 9, ["all"], marks=pytest.mark.slow),
    ],
)
def test_one_ordinary_command_ends_what_was_killed(reference, tmp_path, kills, longest, targets):
    assert kill_repeatedly(tmp_path / "run", kills, longest, *targets) >= kills // 2
    finish(tmp_path / "run", 2, *targets)
    reached = digests(tmp_path / "run")
    expected = reference[1]
    if targets != ["all"]:
        expected = {name: digest for name, digest in expected.items() if "runs/" not in name}
    assert reached == expected
    assert litter(tmp_path / "run") == []


@pytest.mark.slow
def test_what_is_killed_alone_does_not_hinder_the_next_run(reference, tmp_path):
    """Only Snakemake is killed; its jobs still run beside those of the next run."""
    first = start(tmp_path / "run", 2, "all", log=subprocess.DEVNULL)
    time.sleep(4)
    first.kill()
    first.wait()
    try:
        finish(tmp_path / "run", 2, "results/pairs.h5", "chunks")
    finally:
        with contextlib.suppress(ProcessLookupError):  # they have all ended
            os.killpg(first.pid, signal.SIGKILL)
    reached = digests(tmp_path / "run")
    assert reached.items() <= reference[1].items()
    assert "pairs.h5" in reached
