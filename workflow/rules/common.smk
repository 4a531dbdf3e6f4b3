"""What all rules share: the settings, the scans, and calls of the package."""

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

from pri3d import demo
from pri3d.cli import assignments, options
from pri3d.code_digest import code_digest, code_of_mode, code_of_task
from pri3d.config import (
    MODES,
    NAMED_WEIGHTS,
    RUNTIME,
    TASKS,
    check_run_names,
    kind_of,
    pretrain_runs,
    read_yaml,
    unused_settings,
    used_settings,
    variant_names,
    with_preset,
)
from pri3d.config import parse as parse_settings
from pri3d.errors import Pri3DError
from pri3d.sources.find import find_scans


def find_all(settings):
    """Scene -> (.sens, surface or None) of all scans, those of the demo before they are made."""
    if settings.scans != "demo":
        return find_scans(settings.scans)
    stems = {scene: f"results/demo/{scene}/{scene}" for scene in demo.scene_ids(settings.demo)}
    return {scene: (f"{stem}.sens", f"{stem}_vh_clean_2.ply") for scene, stem in stems.items()}


def choose(scans, scenes):
    """The scans of some scenes (a list or a text file), and the scenes without a scan."""
    if isinstance(scenes, str):
        try:
            scenes = Path(scenes).read_text().split()
        except (OSError, UnicodeDecodeError) as error:
            raise Pri3DError(f"{scenes}: is no list of scenes ({error}); write one id per line")
    scenes = list(dict.fromkeys(scenes))
    missing = [scene for scene in scenes if scene not in scans]
    return {scene: scans[scene] for scene in scenes if scene in scans}, missing


try:
    # config.yaml, over it the preset, over that --configfile and --config.
    config = with_preset(config, read_yaml(f"{workflow.basedir}/config.yaml"))
    settings = parse_settings(config)
    check_run_names(settings)
    all_scans = find_all(settings)
    SCANS, MISSING = choose(all_scans, all_scans if settings.scenes is None else settings.scenes)
    if not SCANS:
        raise Pri3DError(f"scenes: none of them has a scan in {settings.scans}; look at `scans`")
    last = list(SCANS)[1:][-1:] if settings.scans == "demo" else []
    HELD_OUT, UNKNOWN = choose(SCANS, last if settings.held_out is None else settings.held_out)
    TRAINED = [scene for scene in SCANS if scene not in HELD_OUT]
    if not TRAINED:
        raise Pri3DError("held_out: leaves no scan to train on; hold out fewer")
except Pri3DError as error:
    raise WorkflowError(str(error))
if MISSING:
    logger.warning(f"No scan for {len(MISSING)} scenes, listed in the ledger: {' '.join(MISSING)}")
if UNKNOWN:
    logger.warning(f"held_out: {len(UNKNOWN)} scenes are not among the scans: {' '.join(UNKNOWN)}")

# Runs by name: one per seed of each mode and variant.
PRETRAINED = pretrain_runs(settings)
RUNS_OF = {variant: settings.seeds_of(variant) for variant in variant_names(settings)}
FILES = settings.finetune.weight_files
REPORTED = [run for variant in settings.report.runs for run in RUNS_OF[variant]]


def mode_of(run):
    """The record of the mode of a pretraining run."""
    return MODES[PRETRAINED[run].mode]


# Runs that are measured without labels, by the correspondences that they find.
MEASURED_RUNS = [run for run in REPORTED if mode_of(run).matching and HELD_OUT]


def scenes_of(run):
    """Options of the scenes that a run trains on: without pairs, which name them, a list."""
    if "pairs" not in mode_of(run).reads:
        return [word for scene in TRAINED for word in ("--scene", scene)]
    return [word for scene in HELD_OUT for word in ("--held-out", scene)]


DEMO_SCENES = demo.scene_ids(settings.demo)
# The scan that no pretraining sees is the one that finetuning is measured on.
DEMO_VAL = [scene for scene in HELD_OUT if scene in DEMO_SCENES] or DEMO_SCENES[-1:]


def dataset_folder(task):
    """The folder of the data set of a task."""
    name = TASKS[task].dataset
    folder = getattr(settings.datasets, name)
    if folder == "demo" and settings.scans != "demo":
        raise WorkflowError(
            f"datasets.{name}: is demo, but scans is {settings.scans}; give the folder of the data "
            f"set for {task} (docs/finetuning.md, docs/ppkt.md), or leave the task out "
            "(report.tasks, low_data.tasks, compare_3d.tasks)"
        )
    if folder == "demo" and len(DEMO_SCENES) < 2:
        raise WorkflowError("demo.scans: finetuning needs 2 or more; one of them is for validation")
    return f"results/datasets/{name}" if folder == "demo" else folder


# Look-alikes that are rendered from rooms of their own.
RENDERED = ("nyuv2", "sunrgbd")
RUN = "{task}-{initial}-{percent}-{seed}"
NAME = RUN.replace("{", "{wildcards.")


def runs_of(task, names, percents, seeds):
    """Names of finetuning runs."""
    share = [f"{percent:g}" for percent in percents]
    initial = [run for name in names for run in RUNS_OF.get(name, [name])]
    return expand(RUN, task=task, initial=initial, percent=share, seed=range(seeds))


def runs_of_comparison(section):
    """Names of finetuning runs: tasks x initial weights x shares of the labels x seeds."""
    return [
        run
        for task in section.tasks
        for run in runs_of(task, section.initial_weights, section.percents, section.seeds)
    ]


def initial_weights_of(task):
    """Names of the initial weights that a task is finetuned from."""
    if kind_of(task).network == "network3d":
        return settings.finetune.initial_weights_3d
    return settings.finetune.initial_weights


def cores_of(section):
    """The cores of a training, so that small ones run side by side; all with `threads: 0`."""
    return (section.threads + section.workers) * section.processes if section.threads else 64


def finetune_settings(w):
    """The settings of a finetuning run as options; its network is that of the pretraining."""
    section = settings.of_task(w.task)
    changes = {"percent": float(w.percent), "seed": section.seed + int(w.seed)}
    if w.initial in PRETRAINED:
        changes["initial_weights"] = f"results/runs/{w.initial}"
        network = kind_of(w.task).network
        changes[network] = getattr(PRETRAINED[w.initial].settings, network)
    else:
        changes["initial_weights"] = {"scratch": "random", **FILES}.get(w.initial, w.initial)
    section = section.model_copy(update=changes)
    return assignments(section, leave_out=unused_settings(section))


wildcard_constraints:
    scene="[^/]+",
    run="|".join(PRETRAINED),
    task="|".join(TASKS),
    initial="|".join(["scratch", "imagenet", *PRETRAINED, *FILES]),
    cloud_set="scannet3d|s3dis",
    rendered_set="|".join(RENDERED),
    percent=r"\d+(\.\d+)?",
    seed=r"\d+",
