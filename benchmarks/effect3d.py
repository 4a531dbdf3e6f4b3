"""Does pretraining a 3D network help with few labels? Segmentation of unseen synthetic rooms.

    python benchmarks/effect3d.py [--work DIR] [--json FILE] [--collect-only | --quick]

Pretrains (PPKT, PointContrast and the global baselines) on the scans of 120 rooms, without labels,
each on the same number of clouds, on images without augmentation, and at a learning rate at which
its loss falls. The teacher of PPKT and of the baselines is a 2D network that was trained for
semantic segmentation on the labeled images of 40 *other* rooms: weights of ImageNet are not
available, and the features of a random teacher carry too little information. Finetunes each
pretrained network, and random weights, on the labeled surfaces of 5 and 20 % of the 120 rooms.
Random weights are also finetuned for twice as many steps. Measures mIoU on every point of 20 unseen
rooms. Runs are paired: those of one subset see the same labels in the same order and start with the
same last layer. Everything is run by the command line, two jobs of one thread at a time. Finished
runs are not repeated.
"""

import json
from pathlib import Path
from typing import Any

import commands
import effect
from commands import assigned, held_out_options
from effect import COMMON, Plan

TEACHER_ROOMS, TEACHER_UNSEEN = 40, 4
NETWORK = {
    "network3d": {
        "widths": [16, 16, 32, 32, 32, 32, 16, 16],
        "blocks": [1] * 8,
        "stem_kernel": 3,
        "channels": 32,
    },
}
TEACHER = effect.INPUT | {"batch": 8, "lr": 0.3, "warmup": 0.1, "crop": 1.0, "steps": 1000}
PLAN = Plan(
    rooms=140,
    unseen=20,
    data={key: value for key, value in effect.PLAN.data.items() if key != "chunks"},
    pretrain=NETWORK
    | {
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
    },
    # A pair has two clouds. Losses of whole frames are small, and so are their gradients.
    modes={
        "ppkt": {},
        "pointcontrast": {"batch": 4},
        "global_kd": {"lr": 1.0},
        "crd": {},
        "gupta": {"lr": 0.3},
    },
    seeds=2,
    finetune=NETWORK | {"voxel_m": 0.08, "batch": 4, "lr": 0.1, "warmup": 0.1, "subset": "random"},
    steps={5: 200, 20: 300},
    subsets={5: 4, 20: 4},
    longer_subsets={5: 2, 20: 2},
)
QUICK = PLAN._replace(
    rooms=2,
    unseen=1,
    data={key: value for key, value in effect.QUICK.data.items() if key != "chunks"},
    pretrain=PLAN.pretrain | {"steps": 1, "batch": 1, "matches": 32, "precision": "float32"},
    modes={"ppkt": {}},
    seeds=1,
    finetune=PLAN.finetune | {"batch": 1},
    steps={100: 1},
    subsets={100: 1},
    longer_subsets={100: 1},
    call=commands.call_here,
)
QUICK_TEACHER = TEACHER | {"steps": 1, "batch": 1, "height": 64, "width": 64}


def prepare(work: Path, plan: Plan) -> None:
    """Make the artefacts, the labeled surfaces (labeled/) and the teacher in the folder `work`."""
    scans = work / "results" / "demo"
    if not plan.quick:
        commands.make_artefacts(work, plan.data, ["results/pairs.h5"])
    elif not (work / "results" / "pairs.h5").exists():
        commands.make_quick_scans(scans, plan.rooms, frames=4)
        commands.make_quick_artefacts(scans, work / "results", radius_m=0.1, voxel_m=0.1)
    if not (work / "labeled" / "scannetv2_val.txt").exists():
        plan.call("pri3d", "data", "demo", "scannet3d", work / "labeled", "--scans", scans,
                  *held_out_options(plan.held_out))  # fmt: skip
    others, labeled = work / "teacher_scans", work / "teacher_labeled"
    rooms, unseen = (2, 1) if plan.quick else (TEACHER_ROOMS, TEACHER_UNSEEN)
    if not (labeled / "scannetv2_val.txt").exists():
        demo = plan.data["demo"] | {"scans": rooms, "seed": 1}
        if plan.quick:
            demo |= {"frames": 4, "height": 48, "color_height": 48}
        plan.call(
            "pri3d", "demo", others, *(f"--{k.replace('_', '-')}={v}" for k, v in demo.items())
        )
        held_out = [f"scene{n:04d}_00" for n in range(rooms - unseen, rooms)]
        plan.call("pri3d", "data", "demo", "scannet", labeled, "--scans", others, "--every", 1,
                  *held_out_options(held_out))  # fmt: skip
    out, data = work / "runs" / "teacher", ["--data", labeled]
    settings = (QUICK_TEACHER if plan.quick else TEACHER) | COMMON | {"seed": 0}
    plan.call("pri3d", "finetune", "semseg_scannet", *data, "--out", out, *assigned(settings))
    measured = work / "evaluation" / "teacher.json"
    if not measured.exists():
        plan.call("pri3d", "evaluate", out, *data, "--out", measured,
                  "--threads", 1, "--device", "cpu", "--pictures", 0)  # fmt: skip


def pretrain(work: Path, plan: Plan, mode: str, seed: int) -> None:
    out = work / "runs" / f"{mode}-{seed}"
    settings = plan.pretrain | COMMON | plan.modes[mode] | {"seed": seed}
    if mode != "pointcontrast":
        settings["teacher_weights"] = str(work / "runs" / "teacher" / "model.safetensors")
    results = work / "results"
    plan.call("pri3d", "pretrain", "--mode", mode, "--pairs", results / "pairs.h5",
              "--clouds", results / "clouds", "--out", out, *held_out_options(plan.held_out),
              *assigned(settings))  # fmt: skip
    effect.print_run(out)


def run_name(weights: str, percent: int, subset: int) -> str:
    return "seg-" + effect.run_name(weights, percent, subset)


def finetune(work: Path, plan: Plan, weights: str, percent: int, subset: int) -> None:
    name = run_name(weights, percent, subset)
    settings = effect.finetune_settings(work, plan, weights, percent, subset)
    effect.finetune_and_evaluate(work, plan, "semseg3d_scannet", name, settings)


def teacher(work: Path) -> dict[str, Any]:
    path = work / "evaluation" / "teacher.json"
    rule = json.loads(path.read_text())["rules"]["scannet"]
    return {"rooms": TEACHER_ROOMS - TEACHER_UNSEEN, "miou": round(100 * rule["mean_iou"], 2)}


def results(work: Path, plan: Plan) -> tuple[dict[str, Any], dict[str, Any], effect.Runs]:
    settings = {
        "rooms": plan.rooms,
        "unseen": plan.unseen,
        "data": plan.data | {"held_out": f"the last {plan.unseen} scans"},
        "teacher": TEACHER,
        "pretrain": plan.pretrain,
        "modes": plan.modes,
        "finetune": plan.finetune,
        "steps": plan.steps,
        "subsets": plan.subsets,
    }
    own = {"teacher": teacher(work), "pretrained": effect.pretrained(work, plan)}
    names = "overall_accuracy", "clouds"
    runs = effect.measured_runs(work, plan, "semseg3d_scannet", run_name, "points", names)
    return settings, own, runs


if __name__ == "__main__":
    effect.run_benchmark(__doc__, "effect3d", (PLAN, QUICK), prepare, (pretrain, finetune), results)
