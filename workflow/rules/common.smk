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
from pri3d.code_digest import code_digest
from pri3d.config import MODES, NAMED_WEIGHTS, RUNTIME, TASKS, kind_of
from pri3d.config import parse as parse_settings
from pri3d.config import read_yaml, unused_settings, used_settings, with_preset
from pri3d.errors import Pri3DError
from pri3d import demo
from pri3d.sources.find import find_scans


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


try:
    # config.yaml, over it the preset, over that --configfile and --config.
    config = with_preset(config, read_yaml(f"{workflow.basedir}/config.yaml"))
    settings = parse_settings(config)
    FOUND = find_all(settings)
    SCANS, MISSING = choose(FOUND, FOUND if settings.scenes is None else settings.scenes)
    if not SCANS:
        raise Pri3DError(f"{settings.scans}: no scan of those asked for; look at `scans`, `scenes`")
    last = list(SCANS)[1:][-1:] if settings.scans == "demo" else []
    HELD_OUT, UNKNOWN = choose(SCANS, last if settings.held_out is None else settings.held_out)
    TRAINED = [scene for scene in SCANS if scene not in HELD_OUT]
    # Pretraining: a variant, or a mode as it is; with several seeds a run for each.
    VARIANTS = list(dict.fromkeys([*MODES, *settings.variants]))
    SEEDS_OF = {name: settings.seeds_of(name) for name in VARIANTS}
    PRETRAINED = {run: name for name in VARIANTS for run in SEEDS_OF[name]}
    FILES = settings.finetune.weight_files
    if taken := sorted({"scratch", "imagenet", *VARIANTS, *PRETRAINED}.intersection(FILES)):
        raise Pri3DError(f"finetune.weight_files: the name {taken[0]} is taken; choose another")
    for network, names in (
        ("network2d", [*settings.finetune.initial_weights, *settings.low_data.initial_weights]),
        (
            "network3d",
            [*settings.finetune.initial_weights_3d, *settings.compare_3d.initial_weights],
        ),
    ):
        trained = [n for n in VARIANTS if network in MODES[settings.mode_of(n)].trains]
        known = ["scratch", *(["imagenet"] if network == "network2d" else []), *trained, *FILES]
        for name in names:
            if name not in known:
                raise Pri3DError(
                    f"initial_weights: there is no {name} for {network}; known: {', '.join(known)}"
                )
    for name in settings.report.runs:
        if name not in VARIANTS:
            raise Pri3DError(f"report.runs: no run is named {name}; known: {', '.join(VARIANTS)}")
    for section in ("semseg", "insseg", "semseg3d", "det3d"):
        if getattr(settings, section).initial_weights != "random":
            raise Pri3DError(
                f"{section}.initial_weights: name the file in finetune.weight_files, and use that "
                "name in finetune.initial_weights"
            )
    if not TRAINED:
        raise Pri3DError("held_out: leaves no scan to train on; hold out fewer")
except Pri3DError as error:
    raise WorkflowError(str(error))
if MISSING:
    logger.warning(f"No scan for {len(MISSING)} scenes, the ledger tells: {' '.join(MISSING)}")
if UNKNOWN:
    logger.warning(f"held_out: {len(UNKNOWN)} scenes are not among the scans: {' '.join(UNKNOWN)}")


def runs_of_variant(name):
    """Names of its runs, one per seed; other initial weights have no runs."""
    return SEEDS_OF.get(name, [name])


def mode_of(run):
    """The record of the mode of a pretraining run."""
    return MODES[settings.mode_of(PRETRAINED[run])]


def pretrain_settings(run):
    """The settings of a pretraining run; runs of one variant differ in seed."""
    section = settings.of_variant(PRETRAINED[run])
    seed = section.seed + SEEDS_OF[PRETRAINED[run]].index(run)
    return section.model_copy(update={"seed": seed})


REPORTED = [run for name in settings.report.runs for run in SEEDS_OF[name]]
# Runs that are measured without labels, by the correspondences that they find.
MEASURED_RUNS = [run for run in REPORTED if mode_of(run).matching and HELD_OUT]


def scenes_of(run):
    """Pairs name their scenes, and some are held out; a mode without pairs gets its scenes."""
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
            f"datasets.{name}: is the demo's, and scans are {settings.scans}; give the folder of the "
            f"data set for {task} (docs/finetuning.md, docs/ppkt.md), or leave the task out "
            "(report.tasks, low_data.tasks, compare_3d.tasks)"
        )
    if folder == "demo" and len(DEMO_SCENES) < 2:
        raise WorkflowError("demo.scans: finetuning wants two, one of them to measure on")
    return f"results/labelled/{name}" if folder == "demo" else folder


# Look-alikes that are rendered from rooms of their own.
RENDERED = ("nyuv2", "sunrgbd")
RUN = "{task}-{initial}-{percent}-{seed}"
NAME = RUN.replace("{", "{wildcards.")


def runs_of(task, names, percents, seeds):
    """Names of finetuning runs."""
    share = [f"{percent:g}" for percent in percents]
    initial = [run for name in names for run in runs_of_variant(name)]
    return expand(RUN, task=task, initial=initial, percent=share, seed=range(seeds))


def runs_of_all(section):
    """Names of the runs of a comparison: tasks x initial weights x shares of the labels x seeds."""
    return [
        run
        for task in section.tasks
        for run in runs_of(task, section.initial_weights, section.percents, section.seeds)
    ]


# What measures a task; images: pri3d.finetune.measure.
MEASURES = {"semseg3d": "pri3d.finetune.measure3d", "det3d": "pri3d.finetune.measure_boxes"}


def initial_weights_of(task):
    """What a task is finetuned from."""
    if kind_of(task).network == "network3d":
        return settings.finetune.initial_weights_3d
    return settings.finetune.initial_weights


def cores_of(section):
    """What a training takes: small ones run side by side. With `threads: 0`, for a large machine or
    a GPU, all there are."""
    return (section.threads + section.workers) * section.processes if section.threads else 64


def finetune_settings(w):
    section = settings.of_task(w.task)
    changes = {"percent": float(w.percent), "seed": section.seed + int(w.seed)}
    if w.initial in PRETRAINED:
        changes["initial_weights"] = f"results/runs/{w.initial}"
        # The network is that of the pretraining, which a variant may have changed.
        network = kind_of(w.task).network
        changes[network] = getattr(pretrain_settings(w.initial), network)
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
    frame_set="|".join(RENDERED),
    percent=r"\d+(\.\d+)?",
    seed=r"\d+",
