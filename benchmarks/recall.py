"""Do the features find matches in scans that they were not trained on? Recall before and after.

    python benchmarks/recall.py real [--data DIR] [--work DIR] [--json FILE] [--quick]
    python benchmarks/recall.py demo [--work DIR] [--json FILE] [--quick]

`real`: trained on the red kitchen and measured in the living room, and vice versa, for view and
joint and three seeds. `demo`: trained on synthetic rooms and measured in other rooms, for view,
geo and joint. Everything is run by the command line: Snakemake makes the pairs and chunks,
`pri3d pretrain` trains (one thread, two trainings at a time), `pri3d evaluate` measures. Finished
runs are not repeated, so an interrupted benchmark can be started again.

Needs for `real` a folder with redkitchen/ and livingroom1/ (default $PRI3D_REAL_DATA/scans).
"""

import argparse
import json
import os
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import commands
import effect
from commands import QUICK_HELP, assigned, held_out_options, write_json
from machine import machine

ROOT = Path(__file__).parents[1]
SMALL_3D = {"network3d": {"widths": [16, 16, 32, 32, 32, 32, 16, 16], "blocks": [1] * 8}}
COMMON = {
    "network2d": "resnet18",
    "height": 96,
    "width": 128,
    "matches": 512,
    "symmetric": True,
    "precision": "bf16",
    "augment_color": False,
    "radius_m": 0.04,
    "threads": 1,
    "workers": 0,
    "device": "cpu",
    **SMALL_3D,
}
# Steps and pairs per step that one core trains in the minutes of the claim.
REAL = {
    "view": {"steps": 180, "batch": 8, "temperature": 0.07},
    "joint": {"steps": 250, "batch": 4, "temperature": 0.07},
}
DEMO = {
    "view": {"network2d": "resnet18_half", "steps": 2400, "batch": 8, "temperature": 0.07},
    "geo": {"network2d": "resnet18_half", "steps": 400, "batch": 4, "temperature": 0.07},
    "joint": {"network2d": "resnet18_half", "steps": 400, "batch": 4, "temperature": 0.07},
}
CHUNKS = {"voxel_m": 0.06}
REAL_SCANS = ("redkitchen", "livingroom1")
EVALUATE = ["--max-pairs", "100", "--matches", "256", "--radius", "0.04"]
EVALUATE += ["--threads", "1"]
QUICK = {"steps": 1, "batch": 1, "matches": 32, "height": 64, "width": 64, "radius_m": 0.1}
QUICK |= {"network2d": "resnet18_half", "precision": "float32"}
QUICK_EVALUATE = ["--max-pairs", "1", "--matches", "32", "--radius", "0.1"]


def run(
    work: Path,
    mode: str,
    seed: int,
    settings: dict,
    held_out: list[str],
    quick: bool,
) -> dict:
    """Train on all scenes but `held_out`, and measure in these."""
    name = f"{mode}-without-{held_out[0]}-{seed}"
    results, out = work / "results", work / "runs" / name
    inputs = ["--pairs", results / "pairs.h5", "--clouds", results / "clouds"]
    inputs += ["--chunks", results / "chunks"]
    scenes = held_out_options(held_out)
    given = assigned(COMMON | settings | {"seed": seed} | (QUICK if quick else {}))
    call = commands.call_here if quick else commands.call
    call("pri3d", "pretrain", "--mode", mode, *inputs, "--out", out, *scenes, *given)
    measured = work / "evaluation" / f"{name}.json"
    measure = QUICK_EVALUATE if quick else EVALUATE
    call("pri3d", "evaluate", out, *inputs, *scenes, "--out", measured, *measure)
    recall = json.loads(measured.read_text())
    last = effect.last_metrics(out)
    kept = {key: recall[key] for key in ("before", "after", "chance", "pairs", "scenes")}
    minutes = round(last["elapsed_s"] / 60, 2)
    print(f"{name}: {minutes} min, {json.dumps(kept['before'])} -> {json.dumps(kept['after'])}")
    return {"mode": mode, "seed": seed, "minutes": minutes, "steps": last["step"], **kept}


def summary(runs: list[dict]) -> dict:
    """Means over seeds, and the gain in recall at 1, by mode, scans and kind of match."""
    table = {}
    for mode, scenes in sorted({(run["mode"], _scans(run)) for run in runs}):
        same = [r for r in runs if (r["mode"], _scans(r)) == (mode, scenes)]
        for kind in same[0]["after"]:
            values = {
                when: [run[when][kind] for run in same] for when in ("before", "after", "chance")
            }
            # Without a single match before pretraining, there is no ratio.
            ratios = [
                round(a["recall_1"] / b["recall_1"], 2)
                for a, b in zip(values["after"], values["before"])
                if b["recall_1"] > 0
            ]
            table[f"{mode}, {kind}, in {scenes}"] = {
                "seeds": len(same),
                **{
                    f"{name}_{when}": round(statistics.mean(v[name] for v in values[when]), 4)
                    for name in ("recall_1", "recall_3", "recall_5", "top1")
                    for when in values
                },
                "recall_1_ratio_least": min(ratios, default=None),
                "recall_1_ratio_most": max(ratios, default=None),
                "minutes_most": max(run["minutes"] for run in same),
            }
    return table


def _scans(run: dict) -> str:
    scenes = run["scenes"]
    return ", ".join(scenes) if len(scenes) < 5 else f"{len(scenes)} unseen rooms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=["real", "demo"])
    default = Path(os.environ.get("PRI3D_REAL_DATA", ".")) / "scans"
    parser.add_argument("--data", type=Path, default=default, help="folder with the real scans")
    parser.add_argument("--work", type=Path, help="folder of artefacts and runs; it is kept")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--seeds", type=int, help="default: 3 for real, 1 for demo")
    parser.add_argument("--quick", action="store_true", help=QUICK_HELP)
    options = parser.parse_args()
    if options.which == "real" and not options.quick:
        for scan in REAL_SCANS:
            if not (options.data / scan / f"{scan}.sens").exists():
                parser.exit(0, f"{options.data}: has no {scan}; nothing is measured\n")
    with tempfile.TemporaryDirectory(prefix="pri3d-quick-") as scratch:
        default = ROOT / "benchmarks/scratch/recall" / options.which
        work = (options.work or (Path(scratch) if options.quick else default)).resolve()
        result = measure(work, options)
    print(json.dumps(result["summary"], indent=1))
    write_json(options.json, result)


def measure(work: Path, options: argparse.Namespace) -> dict:
    """Make the artefacts, carry out all runs and sum up."""
    real, quick = options.which == "real", options.quick
    plan = effect.QUICK if quick else effect.PLAN
    modes, data = (REAL, {"chunks": CHUNKS}) if real else (DEMO, plan.data)
    tests = [[scan] for scan in REAL_SCANS] if real else [plan.held_out]
    if quick:
        scans = work / "scans"
        if real:
            commands.make_quick_data(work, 4)
        else:
            commands.make_quick_scans(scans, plan.rooms, 4)
        commands.make_quick_artefacts(scans, work / "results", radius_m=0.1, voxel_m=0.1)
        tests, modes = tests[:1], {"joint": modes["joint"]}
    elif real:
        scans = str(options.data.resolve())
        commands.make_artefacts(work, {"scans": scans, "frames": {"every": 1}} | data)
    else:
        commands.make_artefacts(work, data)
    seeds = 1 if quick else options.seeds or (3 if real else 1)
    jobs = [
        (work, mode, seed, modes[mode], held_out, quick)
        for seed in range(seeds)
        for held_out in tests
        for mode in modes
    ]
    with ThreadPoolExecutor(1 if quick else 2) as pool:
        runs = list(pool.map(lambda job: run(*job), jobs))
    if not real:
        data = data | {"held_out": f"the last {plan.unseen} scans"}
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "settings": {"common": COMMON, "modes": modes, "data": data},
        "summary": summary(runs),
        "runs": runs,
    }


if __name__ == "__main__":
    main()
