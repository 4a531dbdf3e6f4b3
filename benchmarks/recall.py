"""Do the features find matches in scans that no training has seen? Recall before and after.

    python benchmarks/recall.py real [--data DIR] [--work DIR] [--json FILE]
    python benchmarks/recall.py demo [--work DIR] [--json FILE]

`real`: trained on the red kitchen and measured in the living room, and the other way round, for
view and joint and three seeds. `demo`: trained on procedural rooms and measured in others, for
view, geo and joint. Everything is run by the command line: Snakemake makes the pairs and
chunks, `pri3d pretrain` trains (one thread, two trainings at once), `pri3d evaluate` measures. A
training that is there already is not repeated, so an interrupted benchmark can be started again.

Needs for `real` a folder with redkitchen/ and livingroom1/ (default $PRI3D_REAL_DATA/scans).
"""

import argparse
import json
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from effect import DATA, HELD_OUT, assigned, call, make_artefacts
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
# Steps and pairs a step: what a core does in the minutes that the claim speaks of.
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
EVALUATE = ["--max-pairs", "100", "--matches", "256", "--radius", "0.04"]
EVALUATE += ["--threads", "1"]


def one(work: Path, name: str, mode: str, seed: int, settings: dict, held_out: list[str]) -> dict:
    """Train and measure one run; `held_out` is measured, everything else trained on."""
    results, out = work / "results", work / "runs" / name
    inputs = ["--pairs", results / "pairs.h5", "--clouds", results / "clouds"]
    inputs += ["--chunks", results / "chunks"]
    scenes = [word for scene in held_out for word in ("--held-out", scene)]
    given = assigned(COMMON | settings | {"seed": seed})
    call("pri3d", "pretrain", "--mode", mode, *inputs, "--out", out, *scenes, *given)
    measured = work / "evaluation" / f"{name}.json"
    call("pri3d", "evaluate", out, *inputs, *scenes, "--out", measured, *EVALUATE)
    figures = json.loads(measured.read_text())
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    kept = {key: figures[key] for key in ("before", "after", "chance", "pairs", "scenes")}
    minutes = round(last["elapsed_s"] / 60, 2)
    print(f"{name}: {minutes} min, {json.dumps(kept['before'])} -> {json.dumps(kept['after'])}")
    return {"mode": mode, "seed": seed, "minutes": minutes, "steps": last["step"], **kept}


def summary(runs: list[dict]) -> dict:
    """For each mode, set of scans and kind of match: means over seeds, and how recall at 1 grew."""
    told = {}
    for mode, scenes in sorted({(run["mode"], _scans(run)) for run in runs}):
        same = [r for r in runs if (r["mode"], _scans(r)) == (mode, scenes)]
        for kind in same[0]["after"]:
            values = {
                when: [run[when][kind] for run in same] for when in ("before", "after", "chance")
            }
            ratios = [
                a["recall_1"] / b["recall_1"] for a, b in zip(values["after"], values["before"])
            ]
            told[f"{mode}, {kind}, in {scenes}"] = {
                "seeds": len(same),
                **{
                    f"{name}_{when}": round(statistics.mean(v[name] for v in values[when]), 4)
                    for name in ("recall_1", "recall_3", "recall_5", "top1")
                    for when in values
                },
                "recall_1_ratio_least": round(min(ratios), 2),
                "recall_1_ratio_most": round(max(ratios), 2),
                "minutes_most": max(run["minutes"] for run in same),
            }
    return told


def _scans(run: dict) -> str:
    scenes = run["scenes"]
    return ", ".join(scenes) if len(scenes) < 5 else f"{len(scenes)} unseen rooms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=["real", "demo"])
    default = Path(os.environ.get("PRI3D_REAL_DATA", ".")) / "scans"
    parser.add_argument("--data", type=Path, default=default, help="folder with the real scans")
    parser.add_argument("--work", type=Path, default=None, help="artefacts and runs; is kept")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--seeds", type=int, default=None, help="default: 3 for real, 1 for demo")
    options = parser.parse_args()
    work = (options.work or ROOT / "benchmarks/scratch/recall" / options.which).resolve()
    if options.which == "real":
        scans = ["redkitchen", "livingroom1"]
        if not all((options.data / scan / f"{scan}.sens").exists() for scan in scans):
            parser.exit(0, f"{options.data}: has not {' and '.join(scans)}; nothing measured\n")
        real = {"scans": str(options.data.resolve()), "frames": {"every": 1}, "chunks": CHUNKS}
        make_artefacts(work, real)
        tests, modes, data = [[scan] for scan in scans], REAL, {"chunks": CHUNKS}
    else:
        make_artefacts(work, DATA)
        tests, modes = [HELD_OUT], DEMO
        data = DATA | {"held_out": f"the last {len(HELD_OUT)} scans"}
    jobs = [
        (work, f"{mode}-without-{held_out[0]}-{seed}", mode, seed, modes[mode], held_out)
        for seed in range(options.seeds or (3 if options.which == "real" else 1))
        for held_out in tests
        for mode in modes
    ]
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda job: one(*job), jobs))
    result = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "settings": {"common": COMMON, "modes": modes, "data": data},
        "summary": summary(runs),
        "runs": runs,
    }
    print(json.dumps(result["summary"], indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
