"""Keys of settings: nested and dotted ones, and mappings laid over each other."""

from typing import Any

from pri3d.config.networks import NAMED_3D

# Names that other software uses -> names here.
SYNONYMS = {
    "learning_rate": "lr",
    "base_lr": "lr",
    "batch_size": "batch",
    "micro_batch_size": "micro_batch",
    "iterations": "steps",
    "max_steps": "steps",
    "max_iter": "steps",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "num_workers": "workers",
    "num_threads": "threads",
    "num_gpus": "processes",
    "gpus": "processes",
    "lr_schedule": "schedule",
    "scheduler": "schedule",
    "warmup_steps": "warmup",
    "grad_clip": "clip_norm",
    "gradient_clip": "clip_norm",
    "max_norm": "clip_norm",
    "wd": "weight_decay",
    "tau": "temperature",
    "backbone": "network2d",
    "encoder": "network2d",
    "pretrained": "initial_weights",
    "checkpoint": "initial_weights",
    "init": "initial_weights",
    "amp": "precision",
    "dtype": "precision",
    "voxel_size": "voxel_m",
    "radius": "radius_m",
    "stride": "every",
}


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two mappings as one; `above` wins, key by key in mappings that both have.

    Explicit numbers of a 3D network over a name change the network of that name.
    """
    both = dict(below)
    for key, value in above.items():
        if isinstance(value, dict):
            under = both.get(key)
            if key == "network3d" and isinstance(under, str):
                under = NAMED_3D.get(under)
            if isinstance(under, dict):
                value = merged(under, value)
        both[key] = value
    return both


def nested(raw: dict[str, Any]) -> dict[str, Any]:
    """Settings with dotted keys, such as `pretrain.lr`, as nested mappings; a later key wins.

    The text null is None: Snakemake reads the values of --config as text.
    """
    resolved: dict[str, Any] = {}
    for key, value in raw.items():
        if isinstance(value, dict):
            value = nested(value)
        elif value == "null":
            value = None
        head, *rest = str(key).split(".")
        for part in reversed(rest):
            value = {part: value}
        resolved = merged(resolved, {head: value})
    return resolved
