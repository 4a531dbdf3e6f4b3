"""The runs that the settings ask for, and checks of the names by which they refer to each other."""

from typing import NamedTuple

from pri3d.config.modes import MODES
from pri3d.config.names import unknown_name
from pri3d.config.pretrain import Pretrain
from pri3d.config.settings import Settings
from pri3d.config.tasks import KINDS, TASKS
from pri3d.errors import Pri3DError

NOT_PRETRAINED = ("scratch", "imagenet")  # names of initial weights that no run makes


class PretrainRun(NamedTuple):
    """A pretraining run: its variant (an entry of `variants`, or a mode) and its settings."""

    name: str
    variant: str
    mode: str
    settings: Pretrain


def pretrain_runs(settings: Settings) -> dict[str, PretrainRun]:
    """Name -> run, for every seed of every mode and variant; the runs of one differ in seed."""
    runs = {}
    for variant in variant_names(settings):
        section = settings.of_variant(variant)
        for number, name in enumerate(settings.seeds_of(variant)):
            seeded = section.model_copy(update={"seed": section.seed + number})
            runs[name] = PretrainRun(name, variant, settings.mode_of(variant), seeded)
    return runs


def variant_names(settings: Settings) -> list[str]:
    """The modes, and the entries of `variants`."""
    return list(dict.fromkeys([*MODES, *settings.variants]))


def target_names(settings: Settings) -> list[str]:
    """The target rules of the Snakefile, other than files."""
    pretrain = [f"pretrain_{name}" for name in variant_names(settings)]
    finetune = [f"finetune_{task}" for task in TASKS]
    stages = ["clouds", "overlap", "pairs", "chunks"]
    return ["all", *stages, *pretrain, "evaluate", *finetune, "low_data", "compare_3d", "report"]


def check_run_names(settings: Settings) -> None:
    """Check the names of variants, of initial weights and of the report's runs.

    Raises:
        Pri3DError: a name is unknown or used twice, or a task's section names a file itself.
    """
    variants = variant_names(settings)
    files = settings.finetune.weight_files
    if reserved := sorted(set(NOT_PRETRAINED) & set(variants)):
        raise Pri3DError(
            f"variants.{reserved[0]}: the name is taken by initial weights; choose another"
        )
    taken = {*NOT_PRETRAINED, *variants, *pretrain_runs(settings)}
    if twice := sorted(taken.intersection(files)):
        raise Pri3DError(f"finetune.weight_files: the name {twice[0]} is taken; choose another")
    trained_2d, trained_3d = (
        [name for name in variants if network in MODES[settings.mode_of(name)].trains]
        for network in ("network2d", "network3d")
    )
    known_2d = [*NOT_PRETRAINED, *trained_2d, *files]
    known_3d = ["scratch", *trained_3d, *files]
    _check("finetune.initial_weights", settings.finetune.initial_weights, known_2d)
    _check("low_data.initial_weights", settings.low_data.initial_weights, known_2d)
    _check("finetune.initial_weights_3d", settings.finetune.initial_weights_3d, known_3d)
    _check("compare_3d.initial_weights", settings.compare_3d.initial_weights, known_3d)
    _check("report.runs", settings.report.runs, variants, "mode or variant")
    for kind in KINDS:
        if getattr(settings, kind).initial_weights != "random":
            raise Pri3DError(
                f"{kind}.initial_weights: is for `pri3d finetune`; name the file in "
                "finetune.weight_files, and use that name in finetune.initial_weights"
            )


def _check(
    setting: str, names: list[str], known: list[str], what: str = "run or weight file"
) -> None:
    for name in names:
        if name not in known:
            raise Pri3DError(f"setting {setting}: {unknown_name(what, name, known)}")
