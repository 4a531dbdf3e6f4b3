"""Settings of version 0.1 under their present names."""

from typing import Any

# Old dotted name -> new dotted name.
RENAMED = {
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
    "labelled": "datasets",
    "modes": "variants",
    "finetune.starts": "finetune.initial_weights",
    "finetune.starts3d": "finetune.initial_weights_3d",
    "finetune.files": "finetune.weight_files",
    "low_data.starts": "low_data.initial_weights",
    "compare_3d.starts": "compare_3d.initial_weights",
    "semseg.net": "semseg.architecture",
    "insseg.norm": "insseg.encoder_norm",
    "insseg.least_pixels": "insseg.min_pixels",
    "insseg.proposals": "insseg.roi_samples",
    "insseg.score": "insseg.min_score",
    "semseg3d.augment3d": "semseg3d.augment_cloud",
    "det3d.augment3d": "det3d.augment_scene",
    "det3d.points": "det3d.max_points",
    "det3d.seeds": "det3d.seed_points",
    "det3d.score": "det3d.min_score",
}
for _kind in ("semseg", "insseg", "semseg3d", "det3d"):
    RENAMED[f"{_kind}.init"] = f"{_kind}.initial_weights"
    if _kind in ("semseg", "insseg"):
        RENAMED[f"{_kind}.net2d"] = "network2d"
    else:
        RENAMED[f"{_kind}.width3d"] = "network3d.widths"
        RENAMED[f"{_kind}.blocks3d"] = "network3d.blocks"
        RENAMED[f"{_kind}.stem3d"] = "network3d.stem_kernel"
    if _kind != "semseg3d":
        RENAMED[f"{_kind}.colors"] = f"{_kind}.augment_color"


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
