"""Does pretraining help with few labels? Semantic segmentation of unseen synthetic rooms.

    python benchmarks/effect.py [--work DIR] [--json FILE] [--collect-only | --quick]

Pretrains (moco, view, geo, joint; two seeds each) on the scans of 120 rooms, without labels.
Finetunes each of these networks, and random weights, on the labels of 5, 20 and 100 % of these
rooms. Random weights are also finetuned for twice as many steps. Measures mIoU in 20 other rooms.
Runs are paired: those of one subset see the same labels in the same order and start with the same
classifier. Everything is run by the command line, two jobs of one thread at a time. Finished runs
are not repeated, so an interrupted benchmark can be started again.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import commands
from commands import QUICK_HELP, ROOT, assigned, held_out_options, write_json
from machine import machine

COMMON = {"device": "cpu", "threads": 1, "workers": 0, "log_every": 50, "checkpoint_every": 200}
LONGER = "scratch, twice the steps"
Job = tuple[Any, ...]
Runs = dict[tuple[str, int], dict[int, dict[str, Any]]]


class Plan(NamedTuple):
    """What is run. rooms: number of rooms, the last `unseen` of which are measured in. modes: mode
    -> settings that differ from `pretrain`. steps: percent of the labels -> finetuning steps.
    subsets, longer_subsets: percent -> number of finetunings. call: how commands are run.
    """

    rooms: int
    unseen: int
    data: dict[str, Any]
    pretrain: dict[str, Any]
    modes: dict[str, dict[str, Any]]
    seeds: int
    finetune: dict[str, Any]
    steps: dict[int, int]
    subsets: dict[int, int]
    longer_subsets: dict[int, int]
    call: Callable[..., None] = commands.call

    @property
    def held_out(self) -> list[str]:
        return [f"scene{n:04d}_00" for n in range(self.rooms - self.unseen, self.rooms)]

    @property
    def quick(self) -> bool:
        return self.call is commands.call_here


def demo_rooms(rooms: int, unseen: int) -> dict[str, Any]:
    """Settings of the workflow for synthetic rooms with small images."""
    return {
        "scans": "demo",
        "held_out": [f"scene{n:04d}_00" for n in range(rooms - unseen, rooms)],
        "demo": {"scans": rooms, "frames": 25, "height": 96, "color_height": 96},
        "frames": {"every": 1, "color_height": 0},
        # Pixels of these small images are 3 cm apart at 3 m.
        "overlap": {"radius_m": 0.04},
        "chunks": {"voxel_m": 0.08},
    }


INPUT = {"network2d": "resnet18_half", "height": 96, "width": 128, "precision": "bf16"}
PLAN = Plan(
    rooms=140,
    unseen=20,
    data=demo_rooms(140, 20),
    pretrain=INPUT
    | {
        "steps": 1000,
        "batch": 8,
        "temperature": 0.1,
        "matches": 512,
        "radius_m": 0.04,
        "symmetric": True,
        "network3d": {"widths": [16, 16, 32, 32, 32, 32, 16, 16], "blocks": [1] * 8},
        "moco_queue": 4096,
    },
    # A pair has two images: the same number of images for all modes.
    modes={"joint": {}, "geo": {}, "view": {}, "moco": {"batch": 16}},
    seeds=2,
    # The rate is the best of 0.03, 0.1 and 0.3 in such rooms, for random and pretrained weights
    # alike. A warm-up is needed: a high rate in the first steps can destroy pretrained weights.
    finetune=INPUT | {"batch": 8, "lr": 0.3, "warmup": 0.1, "crop": 1.0, "subset": "random"},
    steps={5: 300, 20: 450, 100: 600},
    # With all labels there is only one subset; runs differ in the order of images.
    subsets={5: 6, 20: 6, 100: 2},
    longer_subsets={5: 2, 20: 2, 100: 1},
)
_QUICK_INPUT = INPUT | {"height": 64, "width": 64, "precision": "float32"}
QUICK = PLAN._replace(
    rooms=2,
    unseen=1,
    data=demo_rooms(2, 1),
    pretrain=PLAN.pretrain | _QUICK_INPUT | {"steps": 1, "batch": 1, "matches": 32},
    modes={"joint": {}},
    seeds=1,
    finetune=PLAN.finetune | _QUICK_INPUT | {"batch": 1},
    steps={100: 1},
    subsets={100: 1},
    longer_subsets={100: 1},
    call=commands.call_here,
)


def prepare(work: Path, plan: Plan) -> None:
    """Make the artefacts, and the labeled frames in labeled/, in the folder `work`."""
    scans = work / "results" / "demo"
    if not plan.quick:
        commands.make_artefacts(work, plan.data)
    elif not (work / "results" / "pairs.h5").exists():
        commands.make_quick_scans(scans, plan.rooms, frames=4)
        commands.make_quick_artefacts(scans, work / "results", radius_m=0.1, voxel_m=0.1)
    if not (work / "labeled" / "scannetv2_val.txt").exists():
        plan.call("pri3d", "data", "demo", "scannet", work / "labeled", "--scans", scans,
                  "--every", 1, *held_out_options(plan.held_out))  # fmt: skip


def pretrain(work: Path, plan: Plan, mode: str, seed: int) -> None:
    out = work / "runs" / f"{mode}-{seed}"
    settings = COMMON | plan.pretrain | plan.modes[mode] | {"seed": seed}
    results = work / "results"
    plan.call("pri3d", "pretrain", "--mode", mode, "--pairs", results / "pairs.h5",
              "--clouds", results / "clouds", "--chunks", results / "chunks", "--out", out,
              *held_out_options(plan.held_out), *assigned(settings))  # fmt: skip
    print_run(out)


def last_metrics(out: Path) -> dict[str, Any]:
    return json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])


def print_run(out: Path) -> None:
    last = last_metrics(out)
    recall = {k: round(v, 4) for k, v in last.items() if k.endswith("_recall")}
    print(f"{out.name}: {last['elapsed_s'] / 60:.1f} min, loss {last['loss']:.3f} {recall or ''}")


def run_name(weights: str, percent: int, subset: int) -> str:
    return f"{weights.replace(', ', '-').replace(' ', '-')}-{percent}-{subset}"


def finetune(work: Path, plan: Plan, weights: str, percent: int, subset: int) -> None:
    name = run_name(weights, percent, subset)
    finetune_and_evaluate(
        work, plan, "semseg_scannet", name, finetune_settings(work, plan, weights, percent, subset)
    )


def finetune_settings(
    work: Path, plan: Plan, weights: str, percent: int, subset: int
) -> dict[str, Any]:
    settings = COMMON | plan.finetune | {"seed": subset, "percent": percent}
    settings |= {"steps": plan.steps[percent] * (2 if weights == LONGER else 1)}
    if weights in plan.modes:
        settings["initial_weights"] = str(work / "runs" / f"{weights}-{subset % plan.seeds}")
    return settings


def finetune_and_evaluate(
    work: Path, plan: Plan, task: str, name: str, settings: dict[str, Any]
) -> None:
    """Finetune on the data in labeled/ and measure the result; a finished run stays."""
    out, measured = work / "runs" / name, work / "evaluation" / f"{name}.json"
    data = ["--data", work / "labeled"]
    plan.call("pri3d", "finetune", task, *data, "--out", out, *assigned(settings))
    if not measured.exists():
        pictures = ["--pictures", 0] if task == "semseg_scannet" else []
        plan.call("pri3d", "evaluate", out, *data, "--out", measured, "--threads", 1,
                  "--device", "cpu", *pictures)  # fmt: skip
    rules = json.loads(measured.read_text())["rules"]
    rule = "scannet" if "scannet" in rules else "points"
    print(f"{name}: mIoU {100 * rules[rule]['mean_iou']:.2f} %", flush=True)


def jobs_of(plan: Plan) -> tuple[list[Job], list[Job]]:
    """All pretrainings (mode, seed), and the finetunings (weights, percent, subset) after them."""
    before = [(mode, seed) for mode in plan.modes for seed in range(plan.seeds)]
    after = [
        (weights, percent, subset)
        for subset in range(max(plan.subsets.values()))
        for percent in plan.steps
        for weights in ["scratch", *plan.modes, LONGER]
        if subset < (plan.longer_subsets if weights == LONGER else plan.subsets)[percent]
    ]
    return before, after


def measured_runs(
    work: Path,
    plan: Plan,
    task: str,
    name_of: Callable[[str, int, int], str],
    rule: str,
    names: tuple[str, str],
) -> Runs:
    """The results of all finished finetunings.

    Args:
        work: folder of the runs.
        plan: what is run.
        task: of the finetunings.
        name_of: name of a run, of weights, percent and subset.
        rule: of the evaluation.
        names: of the share of right pixels (or points), and of the number of labeled images (or
            clouds), in the results.

    Returns:
        (weights, percent) -> subset -> results.
    """
    accuracy, unit = names
    found: Runs = defaultdict(dict)
    for weights in ["scratch", *plan.modes, LONGER]:
        for percent in plan.steps:
            for subset in range(plan.subsets[percent]):
                name = name_of(weights, percent, subset)
                path = work / "evaluation" / f"{name}.json"
                if not path.exists():
                    continue
                measured = json.loads(path.read_text())["rules"][rule]
                settings = finetune_settings(work, plan, weights, percent, subset)
                found[weights, percent][subset] = {
                    "miou": round(100 * measured["mean_iou"], 3),
                    accuracy: round(100 * measured["pixel_accuracy"], 3),
                    unit: number_of_samples(work / "labeled", task, settings),
                    "minutes": round(last_metrics(work / "runs" / name)["elapsed_s"] / 60, 2),
                }
    return found


def number_of_samples(data_dir: Path, task: str, settings: dict[str, Any]) -> int:
    """Number of labeled images or clouds that a finetuning trains on."""
    from pri3d import config
    from pri3d.finetune.tasks import module_of

    record = config.TASKS[task]
    module = module_of(record.kind)
    data = module.open_data(record.dataset, data_dir, "train")
    checked = config.Settings(**{record.kind: settings})
    return len(module.select(data, getattr(checked, record.kind)))


def mean_and_error(values: list[float]) -> dict[str, float | None]:
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {
        "mean": round(statistics.mean(values), 2),
        "standard_error": None if error is None else round(error, 2),
        "n": len(values),
    }


def summary(found: Runs) -> dict[str, dict[str, Any]]:
    """For each share of labels and weights: mIoU, and its gain over scratch, paired by subset."""
    table = {}
    for (weights, percent), runs in found.items():
        entry = {"miou": mean_and_error([run["miou"] for run in runs.values()])}
        scratch = found.get(("scratch", percent), {})
        both = [subset for subset in runs if subset in scratch]
        if weights != "scratch" and both:
            gains = [runs[subset]["miou"] - scratch[subset]["miou"] for subset in both]
            gain = mean_and_error(gains)
            error = gain["standard_error"]
            entry["gain"] = gain | {
                "standard_errors": round(gain["mean"] / error, 1) if error else None
            }
        table[f"{percent} %, {weights}"] = entry
    return table


def pretrained(work: Path, plan: Plan) -> dict[str, dict[str, float]]:
    """Time, losses and recall at the end of each finished pretraining."""
    out = {}
    for mode, seed in sorted(jobs_of(plan)[0]):
        folder = work / "runs" / f"{mode}-{seed}"
        if (folder / "model.safetensors").exists():
            last = last_metrics(folder)
            ends = ("_loss", "_loss_chance", "_recall")
            kept = {k: round(v, 4) for k, v in last.items() if k.endswith(ends)}
            out[folder.name] = {"minutes": round(last["elapsed_s"] / 60, 1), **kept}
    return out


def run_benchmark(
    doc: str,
    name: str,
    plans: tuple[Plan, Plan],
    prepare: Callable[[Path, Plan], None],
    stages: tuple[Callable[..., None], Callable[..., None]],
    results: Callable[[Path, Plan], tuple[dict[str, Any], dict[str, Any], Runs]],
) -> None:
    """The command line of a benchmark.

    Args:
        doc: docstring of the script.
        name: of its folder in benchmarks/scratch.
        plans: the usual one and that of --quick.
        prepare: makes the data.
        stages: what does a pretraining, and what does a finetuning.
        results: makes the settings and results to write, and the runs.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder of artefacts and runs; it is kept")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument(
        "--collect-only", action="store_true", help="run nothing, write the results so far"
    )
    parser.add_argument("--quick", action="store_true", help=QUICK_HELP)
    options = parser.parse_args()
    plan = plans[1] if options.quick else plans[0]
    with tempfile.TemporaryDirectory(prefix="pri3d-quick-") as scratch:
        default = Path(scratch) if options.quick else ROOT / "benchmarks/scratch" / name
        work, began = (options.work or default).resolve(), time.time()
        if not options.collect_only:
            prepare(work, plan)
            for stage, jobs in zip(stages, jobs_of(plan)):
                _carry_out(stage, work, plan, jobs)
        settings, own, found = results(work, plan)
        result = {
            "date": date.today().isoformat(),
            "machine": machine(),
            "settings": settings,
            "minutes_of_this_call": round((time.time() - began) / 60, 1),
            **own,
            "summary": summary(found),
            "runs": {f"{p} %, {weights}": runs for (weights, p), runs in found.items()},
        }
    print(json.dumps(result["summary"], indent=1))
    write_json(options.json, result)


def _carry_out(stage: Callable[..., None], work: Path, plan: Plan, jobs: Iterable[Job]) -> None:
    """Two jobs at a time, each in processes of its own; --quick works in this process."""
    if plan.quick:
        for job in jobs:
            stage(work, plan, *job)
        return
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda job: stage(work, plan, *job), jobs))


def results(work: Path, plan: Plan) -> tuple[dict[str, Any], dict[str, Any], Runs]:
    settings = {
        "data": plan.data | {"held_out": f"the last {plan.unseen} scans"},
        "input": INPUT,
        "pretrain": plan.pretrain,
        "modes": plan.modes,
        "finetune": plan.finetune,
        "steps": plan.steps,
        "subsets": plan.subsets,
        "subsets_of_longer_runs": plan.longer_subsets,
    }
    names = "pixel_accuracy", "images"
    runs = measured_runs(work, plan, "semseg_scannet", run_name, "scannet", names)
    return settings, {"pretrained": pretrained(work, plan)}, runs


if __name__ == "__main__":
    run_benchmark(__doc__, "effect", (PLAN, QUICK), prepare, (pretrain, finetune), results)
