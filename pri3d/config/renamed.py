"""Settings of version 0.1 under their present names."""

from typing import Any

from pri3d.config.tasks import TASKS

# Old dotted name -> new dotted name.
RENAMED = {
    "labelled": "datasets",
    "modes": "variants",
    "pretrain.net2d": "network2d",
    "pretrain.width3d": "network3d.widths",
    "pretrain.blocks3d": "network3d.blocks",
    "pretrain.stem3d": "network3d.stem_kernel",
    "pretrain.channels3d": "network3d.channels",
    "pretrain.projected": "pretrain.projection_channels",
    "pretrain.teacher_init": "pretrain.teacher_weights",
    "pretrain.init2d": "pretrain.initial_weights_2d",
    "pretrain.init3d": "pretrain.initial_weights_3d",
    "pretrain.normalise": "pretrain.normalize",
    "pretrain.augment": "pretrain.augment_color",
    "pretrain.augment3d": "pretrain.augment_cloud",
    "evaluate.most_pairs": "evaluate.max_pairs",
    "finetune.starts": "finetune.initial_weights",
    "finetune.starts3d": "finetune.initial_weights_3d",
    "finetune.files": "finetune.weight_files",
    "low_data.starts": "low_data.initial_weights",
    "compare_3d.starts": "compare_3d.initial_weights",
    "semseg.init": "semseg.initial_weights",
    "semseg.net2d": "network2d",
    "semseg.net": "semseg.architecture",
    "semseg.colors": "semseg.augment_color",
    "insseg.init": "insseg.initial_weights",
    "insseg.net2d": "network2d",
    "insseg.colors": "insseg.augment_color",
    "insseg.norm": "insseg.encoder_norm",
    "insseg.least_pixels": "insseg.min_pixels",
    "insseg.proposals": "insseg.roi_samples",
    "insseg.score": "insseg.min_score",
    "semseg3d.init": "semseg3d.initial_weights",
    "semseg3d.width3d": "network3d.widths",
    "semseg3d.blocks3d": "network3d.blocks",
    "semseg3d.stem3d": "network3d.stem_kernel",
    "semseg3d.augment3d": "semseg3d.augment_cloud",
    "det3d.init": "det3d.initial_weights",
    "det3d.width3d": "network3d.widths",
    "det3d.blocks3d": "network3d.blocks",
    "det3d.stem3d": "network3d.stem_kernel",
    "det3d.augment3d": "det3d.augment_scene",
    "det3d.colors": "det3d.augment_color",
    "det3d.points": "det3d.max_points",
    "det3d.seeds": "det3d.seed_points",
    "det3d.score": "det3d.min_score",
}


def renamed_settings(section: str, old: dict[str, Any]) -> dict[str, Any]:
    """The settings of one section as version 0.1 wrote them, under their present names."""
    new: dict[str, Any] = {}
    for name, value in old.items():
        *sections, key = RENAMED.get(f"{section}.{name}", name).split(".")
        if sections and sections != [section]:
            new.setdefault(sections[0], {})[key] = value
        else:
            new[key] = value
    return new


def old_keys(raw: dict[str, Any]) -> dict[str, str]:
    """The keys of version 0.1 in nested settings: dotted name -> present dotted name.

    Keys inside `modes`, `variants` and `tasks` are those of the section that they change.
    """
    keys: dict[str, str] = {}
    for section, content in raw.items():
        now = RENAMED.get(section, section)
        if now != section:
            keys[section] = now
        if not isinstance(content, dict):
            continue
        if now not in ("variants", "tasks"):
            keys |= {
                f"{section}.{key}": RENAMED[f"{section}.{key}"]
                for key in content
                if f"{section}.{key}" in RENAMED
            }
            continue
        for name, changes in content.items():
            changed = "pretrain" if now == "variants" else TASKS[name].kind if name in TASKS else ""
            for key in changes if isinstance(changes, dict) else ():
                if new := RENAMED.get(f"{changed}.{key}"):
                    keys[f"{section}.{name}.{key}"] = (
                        f"{now}.{name}.{new.removeprefix(f'{changed}.')}"
                    )
    return keys


def renamed_message(old: str, new: str) -> str:
    """The message about a key of version 0.1."""
    return f"setting {old} is now named {new}"
