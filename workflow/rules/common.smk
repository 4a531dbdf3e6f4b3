"""What all rules share: the settings, the scans, and how the package is called."""

import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# The package beside this workflow runs, in the Python that runs Snakemake; with --sdm conda in the
# environment of envs/, which Snakemake puts in front of PATH.
sys.path.insert(0, workflow.basedir)
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]))
shell.prefix(f"set -euo pipefail; export PYTHONPATH={shlex.quote(workflow.basedir)}; ")

from pri3d.cli import assignments, options
from pri3d.closure import code_digest
from pri3d.config import FINETUNE_HOW, INIT, PRETRAIN_HOW, PRETRAIN_UNUSED, PRETRAINED
from pri3d.config import PRETRAINED_3D, TASKS, WITH_CLOUDS, WITH_TEACHER, finetune_unused
from pri3d.config import parse as parse_settings
from pri3d.errors import Pri3DError
from pri3d.scans import demo
from pri3d.scans.find import find_scans


def find_all(settings):
    """Scene -> (its .sens, its surface or None) of all scans there are, or will be."""
    if settings.scans != "demo":
        return find_scans(settings.scans)
    stems = {scene: f"results/demo/{scene}/{scene}" for scene in demo.scene_ids(settings.demo)}
    return {scene: (f"{stem}.sens", f"{stem}_vh_clean_2.ply") for scene, stem in stems.items()}


def choose(found, wanted):
    """The scans of the wanted scenes (a list or a text file), and the scenes that have none."""
    if isinstance(wanted, str):
        try:
            wanted = Path(wanted).read_text().split()
        except (OSError, UnicodeDecodeError) as error:
            raise Pri3DError(f"{wanted}: no list of scenes ({error}); write one id a line")
    wanted = list(dict.fromkeys(wanted))
    missing = [scene for scene in wanted if scene not in found]
    return {scene: found[scene] for scene in wanted if scene in found}, missing


MODES = [*PRETRAINED, *PRETRAINED_3D]

try:
    settings = parse_settings(config)
    FOUND = find_all(settings)
    SCANS, MISSING = choose(FOUND, FOUND if settings.scenes is None else settings.scenes)
    if not SCANS:
        raise Pri3DError(f"{settings.scans}: no scan of those asked for; look at `scans`, `scenes`")
    last = list(SCANS)[1:][-1:] if settings.scans == "demo" else []
    HELD_OUT, UNKNOWN = choose(SCANS, last if settings.held_out is None else settings.held_out)
    TRAINED = [scene for scene in SCANS if scene not in HELD_OUT]
    STARTS_2D = ["scratch", "imagenet", *PRETRAINED, *settings.finetune.files]
    STARTS_3D = ["scratch", *PRETRAINED_3D, "geo", "joint", *settings.finetune.files]
    for chosen, known in (
        ([*settings.finetune.starts, *settings.low_data.starts], STARTS_2D),
        ([*settings.finetune.starts3d, *settings.compare_3d.starts], STARTS_3D),
    ):
        for start in chosen:
            if start not in known:
                raise Pri3DError(f"starts: there is no {start}; there are {', '.join(known)}")
    if taken := sorted({"scratch", "imagenet", *MODES}.intersection(settings.finetune.files)):
        raise Pri3DError(
            f"finetune.files: {', '.join(taken)} is a start already; name it otherwise"
        )
    for section in ("semseg", "insseg", "semseg3d", "det3d"):
        if getattr(settings, section).init != "random":
            raise Pri3DError(
                f"{section}.init: name it in finetune.files, and that in finetune.starts"
            )
    if not TRAINED:
        raise Pri3DError("held_out: leaves no scan to train on; hold out fewer")
except Pri3DError as error:
    raise WorkflowError(str(error))
if MISSING:
    logger.warning(f"No scan for {len(MISSING)} scenes, the ledger tells: {' '.join(MISSING)}")
if UNKNOWN:
    logger.warning(f"held_out: {len(UNKNOWN)} scenes are not among the scans: {' '.join(UNKNOWN)}")

# Networks of which a measure without labels asks how well they find matches.
MEASURED_MODES = [mode for mode in settings.report.runs if mode in PRETRAINED and HELD_OUT]


def scenes_of(mode):
    """Pairs know their scenes, and some are held out; a mode without pairs is told which to take."""
    if mode in WITH_TEACHER:
        return [word for scene in TRAINED for word in ("--scene", scene)]
    return [word for scene in HELD_OUT for word in ("--held-out", scene)]


DEMO_SCENES = demo.scene_ids(settings.demo)
# The scan that no pretraining sees is the one that finetuning is measured on.
DEMO_VAL = [scene for scene in HELD_OUT if scene in DEMO_SCENES] or DEMO_SCENES[-1:]


def labelled(task):
    """The folder of the data set of a task."""
    name = TASKS[task][1]
    folder = getattr(settings.labelled, name)
    if folder == "demo" and settings.scans != "demo":
        raise WorkflowError(
            f"labelled.{name}: is the demo's, and scans are {settings.scans}; give the folder of the "
            f"data set for {task} (docs/finetuning.md, docs/ppkt.md), or leave the task out "
            "(report.tasks, low_data.tasks, compare_3d.tasks)"
        )
    if folder == "demo" and len(DEMO_SCENES) < 2:
        raise WorkflowError("demo.scans: finetuning wants two, one of them to measure on")
    return f"results/labelled/{name}" if folder == "demo" else folder


# Look-alikes that are rendered from rooms of their own, and what does it.
RENDERED = {"nyuv2": "pri3d.datasets.demo", "sunrgbd": "pri3d.datasets.demo_objects"}
RUN = "{task}-{start}-{percent}-{seed}"
NAME = RUN.replace("{", "{wildcards.")


def runs_of(task, starts, percents, seeds):
    """Names of runs."""
    share = [f"{percent:g}" for percent in percents]
    return expand(RUN, task=task, start=starts, percent=share, seed=range(seeds))


def runs_of_all(section):
    """Names of the runs of a comparison: tasks x starts x shares of the labels x seeds."""
    return [
        run
        for task in section.tasks
        for run in runs_of(task, section.starts, section.percents, section.seeds)
    ]


# What measures a task; images: pri3d.finetune.measure.
MEASURES = {"semseg3d": "pri3d.finetune.measure3d", "det3d": "pri3d.finetune.measure_boxes"}


def starts_of(task):
    """What a task is finetuned from."""
    with_clouds = TASKS[task][0] in WITH_CLOUDS
    return settings.finetune.starts3d if with_clouds else settings.finetune.starts


def cores_of(section, processes=1):
    """What a training takes: small ones run side by side. With `threads: 0`, for a large machine or
    a GPU, all there are."""
    return (section.threads + section.workers) * processes if section.threads else 64


def finetune_settings(w):
    section = settings.of_task(w.task)
    start = {"scratch": "random", **settings.finetune.files}.get(w.start, w.start)
    start = f"results/runs/{start}" if w.start in MODES else start
    chosen = {"init": start, "percent": float(w.percent), "seed": section.seed + int(w.seed)}
    section = section.model_copy(update=chosen)
    return assignments(section, leave_out=finetune_unused(section))


wildcard_constraints:
    scene="[^/]+",
    mode="|".join(MODES),
    task="|".join(TASKS),
    start="|".join({*STARTS_2D, *STARTS_3D}),
    cloud_set="scannet3d|s3dis",
    frame_set="|".join(RENDERED),
    percent=r"\d+(\.\d+)?",
    seed=r"\d+",
