"""Every setting, typed: the only source of defaults, units and descriptions.

`config.yaml`, the JSON schema that Snakemake validates with, `docs/configuration.md` and the
defaults shown by `--help` are checked against these models. An unknown key is an error that names
the nearest known one.

    settings    all sections as one model; messages about wrong keys and values
    data        scans, overlap, pairs, chunks, data sets
    networks    the networks that pretraining and finetuning share
    training    how a training is computed
    pretrain    pretraining; modes: its modes, as records
    finetune    finetuning; tasks: its tasks, as records
    files       YAML files and presets
    verb        the settings of one training, with changes from the command line
    runs        the pretraining runs of the workflow
    renamed     settings of version 0.1
    document    the JSON schema and the page of the documentation
"""

from pri3d.config.data import Chunks, Datasets, Demo, Evaluate, Frames, Overlap, Pairs, Sparse
from pri3d.config.document import json_schema, markdown
from pri3d.config.files import DEMO, load, preset_names, read_yaml, with_preset
from pri3d.config.finetune import (
    Compare3d,
    Det3d,
    Finetune,
    Insseg,
    LowData,
    Semseg,
    Semseg3d,
    Task,
    unused_settings,
)
from pri3d.config.keys import merged, nested
from pri3d.config.modes import ALL_MODES, MODES, Mode, used_settings
from pri3d.config.names import ModeName, TaskName, unknown_name
from pri3d.config.networks import NAMED_3D, Network2d, Network3d
from pri3d.config.pretrain import NAMED_WEIGHTS, Pretrain
from pri3d.config.renamed import RENAMED, old_keys, renamed_settings
from pri3d.config.runs import (
    PretrainRun,
    check_run_names,
    pretrain_runs,
    target_names,
    variant_names,
)
from pri3d.config.section import Section
from pri3d.config.settings import INHERITS, Report, Settings, Variant, parse
from pri3d.config.tasks import KINDS, TASKS, inapplicable_option, kind_of
from pri3d.config.training import RUNTIME, Training
from pri3d.config.verb import pretrain_settings, task_settings

__all__ = [
    "ALL_MODES",
    "DEMO",
    "INHERITS",
    "KINDS",
    "MODES",
    "NAMED_3D",
    "NAMED_WEIGHTS",
    "RENAMED",
    "RUNTIME",
    "TASKS",
    "Chunks",
    "Compare3d",
    "Datasets",
    "Demo",
    "Det3d",
    "Evaluate",
    "Finetune",
    "Frames",
    "Insseg",
    "LowData",
    "Mode",
    "ModeName",
    "Network2d",
    "Network3d",
    "Overlap",
    "Pairs",
    "Pretrain",
    "PretrainRun",
    "Report",
    "Section",
    "Semseg",
    "Semseg3d",
    "Settings",
    "Sparse",
    "Task",
    "TaskName",
    "Training",
    "Variant",
    "check_run_names",
    "inapplicable_option",
    "json_schema",
    "kind_of",
    "load",
    "markdown",
    "merged",
    "nested",
    "old_keys",
    "parse",
    "preset_names",
    "pretrain_runs",
    "pretrain_settings",
    "read_yaml",
    "renamed_settings",
    "target_names",
    "task_settings",
    "unknown_name",
    "unused_settings",
    "used_settings",
    "variant_names",
    "with_preset",
]
