"""Does pretraining help where labels are few? Semantic segmentation of unseen procedural rooms.

    python benchmarks/effect.py [--work DIR] [--json FILE] [--only-told]

Pretrains (moco, view, geo, joint; two seeds each) on the scans of 120 rooms, without labels.
Finetunes each of them, and random weights, on the labels of 5, 20 and 100 % of those rooms, and
random weights for twice as many steps too; measures mIoU in 20 other rooms. Runs are paired: those
of one subset see the same labels in the same order and begin with the same classifier. Everything
goes through the command line, two jobs of one thread at once. What is there already is not done
again, so an interrupted benchmark can be started again; --only-told writes what there is so far.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from machine import machine

ROOT = Path(__file__).parents[1]
ROOMS, UNSEEN, FRAMES = 140, 20, 25
HELD_OUT = [f"scene{n:04d}_00" for n in range(ROOMS - UNSEEN, ROOMS)]
DATA = {
    "scans": "demo",
    "held_out": HELD_OUT,
    "demo": {"scans": ROOMS, "frames": FRAMES, "height": 96, "color_height": 96},
    "frames": {"every": 1, "color_height": 0},
    # Pixels of these small images are 3 cm apart at 3 m.
    "overlap": {"radius_m": 0.04},
    "chunks": {"voxel_m": 0.08},
}
INPUT = {"network2d": "resnet18_half", "height": 96, "width": 128, "precision": "bf16"}
HOW = {"device": "cpu", "threads": 1, "workers": 0, "log_every": 50, "checkpoint_every": 200}
PRETRAIN = {
    "steps": 1000,
    "batch": 8,
    "temperature": 0.1,
    "matches": 512,
    "radius_m": 0.04,
    "symmetric": True,
    "network3d": {"widths": [16, 16, 32, 32, 32, 32, 16, 16], "blocks": [1] * 8},
    "moco_queue": 4096,
}
# A pair has two images: the same number of images for all.
MODES = {"joint": {}, "geo": {}, "view": {}, "moco": {"batch": 16}}
PRETRAINING_SEEDS = 2
# The rate: of 0.03, 0.1 and 0.3 the best in such rooms, for random and pretrained weights alike. It
# rises over the first steps: at once it can destroy what was pretrained.
FINETUNE = {"batch": 8, "lr": 0.3, "warmup": 0.1, "crop": 1.0, "subset": "random"}
STEPS = {5: 300, 20: 450, 100: 600}
# Of all labels there is one subset; runs differ in the order of images.
SUBSETS = {5: 6, 20: 6, 100: 2}
LONGER_SUBSETS = {5: 2, 20: 2, 100: 1}
STARTS = ["scratch", *MODES]
LONGER = "scratch, twice the steps"


def subsets(start: str, percent: int) -> range:
    return range((LONGER_SUBSETS if start == LONGER else SUBSETS)[percent])


def call(module: str, *words) -> None:
    command = [sys.executable, "-m", module, *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def assigned(settings: dict) -> list[str]:
    return [f"--set={name}={json.dumps(value)}" for name, value in settings.items()]


def make_artefacts(work: Path, settings: dict, targets=("results/pairs.h5", "chunks")) -> None:
    """results/pairs.h5, clouds/ and chunks/ below `work`."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "settings.json").write_text(json.dumps(settings))
    words = ["--snakefile", ROOT / "Snakefile", "--directory", work, "--cores", "all"]
    words += ["--quiet", "rules", "--configfile", work / "settings.json"]
    call("snakemake", *words, "--", *targets)


def prepare(work: Path) -> None:
    """The artefacts, and labelled/ below `work`."""
    make_artefacts(work, DATA)
    if not (work / "labelled" / "scannetv2_val.txt").exists():
        held_out = [word for scene in HELD_OUT for word in ("--held-out", scene)]
        scans = work / "results" / "demo"
        call("pri3d", "data", "demo", "scannet", work / "labelled", "--scans", scans,
             "--every", 1, *held_out)  # fmt: skip


def is_there(out: Path, settings: dict) -> bool:
    """Whether a run is finished; one of other settings than those of this file ends all."""
    if not (out / "model.safetensors").exists():
        return False
    before = json.loads((out / "settings.json").read_text())
    for name, value in settings.items():
        if name not in HOW and before[name] != value:
            sys.exit(f"{out}: has {name} {before[name]}, not {value}; remove it, or put that back")
    return True


def pretrain(work: Path, mode: str, seed: int) -> None:
    out = work / "runs" / f"{mode}-{seed}"
    settings = INPUT | HOW | PRETRAIN | MODES[mode] | {"seed": seed}
    if is_there(out, settings):
        return
    results = work / "results"
    scenes = [word for scene in HELD_OUT for word in ("--held-out", scene)]
    call("pri3d", "pretrain", "--mode", mode, "--pairs", results / "pairs.h5",
         "--clouds", results / "clouds", "--chunks", results / "chunks", "--out", out,
         *scenes, *assigned(settings))  # fmt: skip
    told(out)


def told(out: Path) -> None:
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    recall = {k: round(v, 4) for k, v in last.items() if k.endswith("_recall")}
    print(f"{out.name}: {last['elapsed_s'] / 60:.1f} min, loss {last['loss']:.3f} {recall or ''}")


def run_name(start: str, percent: int, subset: int) -> str:
    return f"{start.replace(', ', '-').replace(' ', '-')}-{percent}-{subset}"


def finetune(work: Path, start: str, percent: int, subset: int) -> None:
    out = work / "runs" / run_name(start, percent, subset)
    measured = work / "evaluation" / f"{out.name}.json"
    settings = INPUT | HOW | FINETUNE | {"seed": subset, "percent": percent}
    settings |= {"steps": STEPS[percent] * (2 if start == LONGER else 1)}
    if start in MODES:
        settings["init"] = str(work / "runs" / f"{start}-{subset % PRETRAINING_SEEDS}")
    if is_there(out, settings) and measured.exists():
        return
    data = work / "labelled"
    call("pri3d", "finetune", "semseg_scannet", "--data", data, "--out", out, *assigned(settings))
    call("pri3d", "evaluate", out, "--data", data, "--out", measured, "--threads", 1,
         "--device", "cpu", "--pictures", 0)  # fmt: skip
    iou = json.loads(measured.read_text())["rules"]["scannet"]["mean_iou"]
    print(f"{out.name}: mIoU {100 * iou:.2f} %", flush=True)


def figures(work: Path) -> dict[tuple[str, int], dict[int, dict]]:
    """(start, percent) -> subset -> what was measured."""
    jobs = [(s, p, i) for s in [*STARTS, LONGER] for p in STEPS for i in subsets(s, p)]
    return measured_runs(work, jobs, run_name, "scannet", "pixel_accuracy", "images")


def measured_runs(
    work: Path, jobs: list, name_of, rule: str, accuracy: str, unit: str
) -> dict[tuple[str, int], dict]:
    """As `figures`, of the jobs that are done: by a rule of the evaluation; accuracy, unit: what
    the share of right pixels (points), and the number of what was trained on, are called."""
    found = defaultdict(dict)
    for start, percent, subset in jobs:
        name = name_of(start, percent, subset)
        path, run = work / "evaluation" / f"{name}.json", work / "runs" / name
        if path.exists():
            last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
            images = json.loads((run / "provenance.json").read_text())["made_from"]["images"]
            measured = json.loads(path.read_text())["rules"][rule]
            found[start, percent][subset] = {
                "miou": round(100 * measured["mean_iou"], 3),
                accuracy: round(100 * measured["pixel_accuracy"], 3),
                unit: images,
                "minutes": round(last["elapsed_s"] / 60, 2),
            }
    return found


def mean_and_error(values: list[float]) -> dict[str, float]:
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {
        "mean": round(statistics.mean(values), 2),
        "standard_error": None if error is None else round(error, 2),
        "n": len(values),
    }


def summary(found: dict) -> dict[str, dict]:
    """For each share of labels and start: mIoU, and its gain over scratch, paired by subset."""
    table = {}
    for (start, percent), runs in found.items():
        entry = {"miou": mean_and_error([run["miou"] for run in runs.values()])}
        scratch = found.get(("scratch", percent), {})
        both = [s for s in runs if s in scratch]
        if start != "scratch" and both:
            gains = [runs[s]["miou"] - scratch[s]["miou"] for s in both]
            gain = mean_and_error(gains)
            if gain["standard_error"]:
                gain["standard_errors"] = round(gain["mean"] / gain["standard_error"], 1)
            entry["gain"] = gain
        table[f"{percent} %, {start}"] = entry
    return table


def pretrained(work: Path, modes=tuple(MODES)) -> dict[str, dict]:
    out = {}
    for path in sorted((work / "runs").glob("*-[01]/provenance.json")):
        if path.parent.name.split("-")[0] in modes and path.parent.name.count("-") == 1:
            last = json.loads((path.parent / "metrics.jsonl").read_text().splitlines()[-1])
            ends = ("_loss", "_loss_chance", "_recall")
            kept = {k: round(v, 4) for k, v in last.items() if k.endswith(ends)}
            out[path.parent.name] = {"minutes": round(last["elapsed_s"] / 60, 1), **kept}
    return out


def jobs_of(starts: list[str], seeds: int, steps: dict, subsets_of) -> tuple[list, list]:
    """All pretrainings (mode, seed), and all finetunings (start, percent, subset) after them."""
    before = [(mode, seed) for mode in starts if mode != "scratch" for seed in range(seeds)]
    after = [
        (start, percent, subset)
        for subset in range(max(len(subsets_of("scratch", percent)) for percent in steps))
        for percent in steps
        for start in [*starts, LONGER]
        if subset in subsets_of(start, percent)
    ]
    return before, after


def carry_out(doc: str, name: str, prepare, stages, results) -> None:
    """What a benchmark's command line does.

    prepare(work); stages: (what does a job: work, *job; its jobs), one after another, two jobs at
    once; results(work) -> what is written between the date and the runs, and the runs (`figures`).
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    default = ROOT / "benchmarks/scratch" / name
    parser.add_argument("--work", type=Path, default=default, help="artefacts and runs; is kept")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--only-told", action="store_true", help="run nothing, tell what is there")
    options = parser.parse_args()
    work, began = options.work.resolve(), time.time()
    if not options.only_told:
        prepare(work)
        with ThreadPoolExecutor(2) as pool:
            for work_on, jobs in stages:
                list(pool.map(lambda job, do=work_on: do(work, *job), jobs))
    settings, own, found = results(work)
    result = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "settings": settings,
        "minutes_of_this_call": round((time.time() - began) / 60, 1),
        **own,
        "summary": summary(found),
        "runs": {f"{p} %, {start}": runs for (start, p), runs in found.items()},
    }
    print(json.dumps(result["summary"], indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def results(work: Path) -> tuple[dict, dict, dict]:
    settings = {
        "data": DATA | {"held_out": f"the last {UNSEEN} scans"},
        "input": INPUT,
        "pretrain": PRETRAIN,
        "modes": MODES,
        "finetune": FINETUNE,
        "steps": STEPS,
        "subsets": SUBSETS,
        "subsets_of_longer_runs": LONGER_SUBSETS,
    }
    return settings, {"pretrained": pretrained(work)}, figures(work)


if __name__ == "__main__":
    before, after = jobs_of(STARTS, PRETRAINING_SEEDS, STEPS, subsets)
    carry_out(__doc__, "effect", prepare, [(pretrain, before), (finetune, after)], results)
