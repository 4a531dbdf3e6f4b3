"""Does pretraining a 3D network help where labels are few? Segmentation of unseen procedural rooms.

    python benchmarks/effect3d.py [--work DIR] [--json FILE] [--only-told]

Pretrains (PPKT, PointContrast, and the global baselines) on the scans of 120 rooms, without labels,
each on the same number of clouds, on images as they are, and at a rate at which its loss falls.
The teacher of PPKT and of the baselines is a 2D network that learned semantic segmentation on the
labelled images of 40 *other* rooms: there are no weights of ImageNet here, and a teacher has to
know something. Finetunes each pretrained network, and random weights, on the labelled surfaces of 5
and 20 % of the 120 rooms, and random weights for twice as many steps too; measures mIoU on every
point of 20 unseen rooms. Runs are paired: those of one subset see the same labels in the same order
and begin with the same last layer. Everything goes through the command line, two jobs of one thread
at once. What is there already is not done again.
"""

import json
from pathlib import Path

import effect
from effect import HELD_OUT, HOW, ROOMS, UNSEEN, assigned, call, is_there, told

TEACHER_ROOMS, TEACHER_UNSEEN = 40, 4
DATA = {name: value for name, value in effect.DATA.items() if name != "chunks"}
TEACHER = effect.INPUT | {"batch": 8, "lr": 0.3, "warmup": 0.1, "crop": 1.0, "steps": 1000}
NETWORK = {
    "network3d": {
        "widths": [16, 16, 32, 32, 32, 32, 16, 16],
        "blocks": [1] * 8,
        "stem_kernel": 3,
        "channels": 32,
    },
}
PRETRAIN = NETWORK | {
    "height": 96,
    "width": 128,
    "steps": 2000,
    "batch": 8,
    "matches": 256,
    "projection_channels": 64,
    "temperature": 0.1,
    "frame_voxel_m": 0.08,
    "radius_m": 0.08,
    "teacher": "resnet18_half",
    "augment_color": False,
    "precision": "bf16",
}
# A pair has two clouds. Losses of whole frames are small, and so are their gradients.
MODES = {"ppkt": {}, "pointcontrast": {"batch": 4}, "global_kd": {"lr": 1.0}, "crd": {}}
MODES |= {"gupta": {"lr": 0.3}}
PRETRAINING_SEEDS = 2
FINETUNE = NETWORK | {"voxel_m": 0.08, "batch": 4, "lr": 0.1, "warmup": 0.1, "subset": "random"}
STEPS = {5: 200, 20: 300}
SUBSETS = {5: 4, 20: 4}
LONGER_SUBSETS = 2
STARTS = ["scratch", *MODES]
LONGER = effect.LONGER


def subsets(start: str, percent: int) -> range:
    return range(LONGER_SUBSETS if start == LONGER else SUBSETS[percent])


def prepare(work: Path) -> None:
    """results/pairs.h5 and clouds/, labelled/ (surfaces), and teacher/ below `work`."""
    effect.make_artefacts(work, DATA, ["results/pairs.h5"])
    scans = work / "results" / "demo"
    held_out = [word for scene in HELD_OUT for word in ("--held-out", scene)]
    if not (work / "labelled" / "scannetv2_val.txt").exists():
        call("pri3d", "data", "demo", "scannet3d", work / "labelled", "--scans", scans, *held_out)
    others, labelled = work / "teacher_scans", work / "teacher_labelled"
    if not (labelled / "scannetv2_val.txt").exists():
        size = [f"--{name.replace('_', '-')}={DATA['demo'][name]}" for name in DATA["demo"]]
        size += [f"--scans={TEACHER_ROOMS}", "--seed=1"]
        call("pri3d", "demo", others, *size)
        unseen = [f"scene{n:04d}_00" for n in range(TEACHER_ROOMS - TEACHER_UNSEEN, TEACHER_ROOMS)]
        words = [word for scene in unseen for word in ("--held-out", scene)]
        call("pri3d", "data", "demo", "scannet", labelled, "--scans", others, "--every", 1, *words)
    out = work / "runs" / "teacher"
    if not is_there(out, TEACHER | HOW):
        words = assigned(TEACHER | HOW | {"seed": 0})
        call("pri3d", "finetune", "semseg_scannet", "--data", labelled, "--out", out, *words)
    measured = work / "evaluation" / "teacher.json"
    if not measured.exists():
        call("pri3d", "evaluate", out, "--data", labelled, "--out", measured,
             "--threads", 1, "--device", "cpu", "--pictures", 0)  # fmt: skip


def pretrain(work: Path, mode: str, seed: int) -> None:
    out = work / "runs" / f"{mode}-{seed}"
    settings = PRETRAIN | HOW | MODES[mode] | {"seed": seed}
    if mode != "pointcontrast":
        settings["teacher_weights"] = str(work / "runs" / "teacher" / "model.safetensors")
    if is_there(out, settings):
        return
    results = work / "results"
    scenes = [word for scene in HELD_OUT for word in ("--held-out", scene)]
    call("pri3d", "pretrain", "--mode", mode, "--pairs", results / "pairs.h5",
         "--clouds", results / "clouds", "--out", out, *scenes, *assigned(settings))  # fmt: skip
    told(out)


def run_name(start: str, percent: int, subset: int) -> str:
    return "seg-" + effect.run_name(start, percent, subset)


def finetune(work: Path, start: str, percent: int, subset: int) -> None:
    out = work / "runs" / run_name(start, percent, subset)
    measured = work / "evaluation" / f"{out.name}.json"
    settings = HOW | FINETUNE | {"seed": subset, "percent": percent}
    settings |= {"steps": STEPS[percent] * (2 if start == LONGER else 1)}
    if start in MODES:
        settings["init"] = str(work / "runs" / f"{start}-{subset % PRETRAINING_SEEDS}")
    if is_there(out, settings) and measured.exists():
        return
    data = work / "labelled"
    call("pri3d", "finetune", "semseg3d_scannet", "--data", data, "--out", out, *assigned(settings))
    call("pri3d", "evaluate", out, "--data", data, "--out", measured, "--threads", 1,
         "--device", "cpu")  # fmt: skip
    iou = json.loads(measured.read_text())["rules"]["points"]["mean_iou"]
    print(f"{out.name}: mIoU {100 * iou:.2f} %", flush=True)


def figures(work: Path) -> dict[tuple[str, int], dict[int, dict]]:
    """(start, percent) -> subset -> what was measured."""
    jobs = [(s, p, i) for s in [*STARTS, LONGER] for p in STEPS for i in subsets(s, p)]
    return effect.measured_runs(work, jobs, run_name, "points", "overall_accuracy", "clouds")


def teacher(work: Path) -> dict:
    path = work / "evaluation" / "teacher.json"
    rule = json.loads(path.read_text())["rules"]["scannet"]
    return {"rooms": TEACHER_ROOMS - TEACHER_UNSEEN, "miou": round(100 * rule["mean_iou"], 2)}


def results(work: Path) -> tuple[dict, dict, dict]:
    settings = {
        "rooms": ROOMS,
        "unseen": UNSEEN,
        "data": DATA | {"held_out": f"the last {UNSEEN} scans"},
        "teacher": TEACHER,
        "pretrain": PRETRAIN,
        "modes": MODES,
        "finetune": FINETUNE,
        "steps": STEPS,
        "subsets": SUBSETS,
    }
    own = {"teacher": teacher(work), "pretrained": effect.pretrained(work, tuple(MODES))}
    return settings, own, figures(work)


if __name__ == "__main__":
    before, after = effect.jobs_of(STARTS, PRETRAINING_SEEDS, STEPS, subsets)
    stages = [(pretrain, before), (finetune, after)]
    effect.carry_out(__doc__, "effect3d", prepare, stages, results)
