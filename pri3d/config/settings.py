"""All settings as one typed model, and messages about keys and values that are wrong."""

import difflib
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from pri3d.config.data import Chunks, Datasets, Demo, Evaluate, Frames, Overlap, Pairs, Sparse
from pri3d.config.finetune import (
    Compare3d,
    Det3d,
    Finetune,
    Insseg,
    LowData,
    Semseg,
    Semseg3d,
    Task,
)
from pri3d.config.keys import SYNONYMS, merged, nested
from pri3d.config.modes import MODES
from pri3d.config.names import ModeName, TaskName, unknown_name
from pri3d.config.networks import NAMED_3D, Network2d, Network3d
from pri3d.config.pretrain import Pretrain
from pri3d.config.renamed import RENAMED, old_keys, renamed_message
from pri3d.config.section import Section
from pri3d.config.tasks import KINDS, TASKS
from pri3d.config.training import Training
from pri3d.errors import Pri3DError


class Report(Section):
    runs: list[str] = Field(
        ["joint"],
        description="pretraining runs that the target `report` trains first: modes or variants",
    )
    tasks: list[TaskName] = Field(
        [], description="finetuning tasks that the target `report` runs first"
    )
    low_data: bool = Field(False, description="also run the low-data curve for the target `report`")
    compare_3d: bool = Field(
        False, description="also run the comparison of 3D pretrainings for the target `report`"
    )


VariantName = Annotated[str, Field(pattern=r"^[A-Za-z]\w*$")]


class Variant(Section):
    """A pretraining run with settings of its own: the settings of `pretrain` that it changes."""

    model_config = Section.model_config | {"extra": "allow"}

    mode: ModeName | None = Field(None, description="its mode; null: the variant's name is one")
    seeds: int = Field(1, ge=1, description="number of runs, which differ in seed")

    @property
    def changes(self) -> dict[str, Any]:
        """The settings of `pretrain` that this variant changes."""
        return self.model_extra or {}


# Sections -> the sections that they inherit from.
INHERITS: dict[str, tuple[str, ...]] = {
    "pretrain": ("training",),
    "finetune": ("training",),
    **dict.fromkeys(KINDS, ("training", "finetune")),
}
# Settings of `finetune` that its tasks do not inherit.
NOT_INHERITED = frozenset({"initial_weights", "initial_weights_3d", "weight_files"})


class Settings(Section):
    preset: str | None = Field(
        None,
        description="settings to start from: the name of a file in workflow/presets, such as "
        "paper; null: the values of config.yaml",
    )
    scans: str = Field("demo", description="`demo`, or the folder that holds the scans")
    scenes: list[str] | str | None = Field(
        None,
        description="scene ids: a list, or a text file with one id per line; null: all scenes in "
        "`scans`",
    )
    held_out: list[str] | str | None = Field(
        None,
        description="scene ids excluded from pretraining and used for evaluation: a list, or a "
        "text file with one id per line; null: the last scan of the demo, or none of "
        "other scans",
    )
    frames: Frames = Frames()
    overlap: Overlap = Overlap()
    pairs: Pairs = Pairs()
    chunks: Chunks = Chunks()
    demo: Demo = Demo()
    sparse: Sparse = Sparse()
    network2d: Network2d = "resnet18"
    network3d: Network3d = Field(
        Network3d(),
        description=f"the sparse 3D UNet: {', '.join(NAMED_3D)}, or explicit numbers",
    )
    training: Training = Training()
    pretrain: Pretrain = Pretrain()
    variants: dict[VariantName, Variant] = Field(
        {},
        description="pretraining runs with settings of their own: "
        "name -> {mode: MODE, seeds: N, setting: value, ...}; an entry named after a mode changes "
        "that mode's run",
    )
    evaluate: Evaluate = Evaluate()
    datasets: Datasets = Datasets()
    finetune: Finetune = Finetune()
    semseg: Semseg = Semseg()
    insseg: Insseg = Insseg()
    semseg3d: Semseg3d = Semseg3d()
    det3d: Det3d = Det3d()
    tasks: dict[TaskName, dict[str, Any]] = Field(
        {},
        description="settings of one task that differ from its section: "
        "task -> {setting: value, ...}",
    )
    low_data: LowData = LowData()
    compare_3d: Compare3d = Compare3d()
    report: Report = Report()

    @model_validator(mode="before")
    @classmethod
    def _sections_inherit(cls, raw: Any) -> Any:
        """`training`, `finetune` and the networks are stated once; sections may override them."""
        if not isinstance(raw, dict):
            return raw
        resolved = dict(raw)
        for name, above in INHERITS.items():
            fields = section_class(name).model_fields
            sections = [raw.get(part) for part in (*above, name)]
            if not all(isinstance(section, dict | None) for section in sections):
                continue  # reported by the section's own check
            known = {key: raw[key] for key in ("network2d", "network3d") if key in raw}
            for section in sections[:-1]:
                known |= section or {}
            inherited = {
                key: value
                for key, value in known.items()
                if key in fields and key not in NOT_INHERITED
            }
            if inherited or name in raw:
                resolved[name] = merged(inherited, sections[-1] or {})
        return resolved

    @model_validator(mode="after")
    def _variants_and_tasks_are_valid(self) -> "Settings":
        for name in self.variants:
            self.of_variant(name)
        for task in self.tasks:
            self.of_task(task)
        return self

    def mode_of(self, name: str) -> str:
        """The mode of a variant; a mode is a variant of its own name.

        Raises:
            ValueError: the variant names no mode.
        """
        variant = self.variants.get(name)
        mode = (variant.mode if variant else None) or name
        if mode in MODES:
            return mode
        if variant:
            raise ValueError(
                f"setting variants.{name}: no mode is named {name}; add `mode: ` and one of "
                f"{', '.join(MODES)}"
            )
        raise ValueError(unknown_name("mode or variant", name, [*MODES, *self.variants]))

    def seeds_of(self, name: str) -> list[str]:
        """Names of a variant's runs: its own, or with several seeds `<name>-<seed>` for each."""
        seeds = self.variants[name].seeds if name in self.variants else 1
        return [name] if seeds == 1 else [f"{name}-{seed}" for seed in range(seeds)]

    def of_variant(self, name: str) -> Pretrain:
        """The section `pretrain` as a variant, or a mode, has it."""
        self.mode_of(name)
        variant = self.variants.get(name)
        return changed(self.pretrain, variant.changes if variant else {}, f"variants.{name}")

    def of_task(self, task: str) -> Task:
        """The settings of a task: its section, with the changes of `tasks`."""
        section: Task = getattr(self, TASKS[task].kind)
        return changed(section, self.tasks.get(task, {}), f"tasks.{task}")


def section_class(name: str) -> type[Section]:
    """The model of a section of the settings."""
    annotation = Settings.model_fields[name].annotation
    assert isinstance(annotation, type)
    assert issubclass(annotation, Section)
    return annotation


S = TypeVar("S", bound=Section)


def changed(section: S, changes: dict[str, Any], where: str) -> S:
    """A section with changes of some of its settings; `where` names it in messages.

    Raises:
        ValueError: a setting is unknown, or its value is wrong.
    """
    try:
        return type(section).model_validate(merged(section.model_dump(), changes))
    except ValidationError as error:
        raise ValueError(_explain_all(error, type(section), where)) from None


def parse(raw: dict[str, Any]) -> Settings:
    """Settings from a mapping, nested or with dotted keys.

    Raises:
        Pri3DError: a key is unknown or of version 0.1, or a value is wrong; the message names the
            key, the problem and the nearest key.
    """
    raw = nested(raw)
    if old := old_keys(raw):
        raise Pri3DError("; ".join(renamed_message(*names) for names in old.items()))
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise Pri3DError(_explain_all(error, Settings)) from None


def _explain_all(error: ValidationError, section: type[Section], where: str = "") -> str:
    return "; ".join(dict.fromkeys(_explain(each, section, where) for each in error.errors()))


def _explain(error: ErrorDetails, section: type[Section], where: str) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return message  # of a variant or a task, which names it
    location = [str(part) for part in error["loc"] if part != "[key]"]
    key = ".".join([where] * bool(where) + location)
    description = None
    for part in location:
        field = section.model_fields.get(part)
        if field is None:
            break
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            section = field.annotation
        else:
            description = field.description
    if error["type"] == "extra_forbidden":
        return unknown_key(key, section)
    if error["type"] == "value_error":
        return f"setting {key}: {message}"
    text = f"setting {key}: {message[0].lower()}{message[1:]} (given {error['input']!r})"
    return text + (f"; it is: {description}" if description else "")


def unknown_key(key: str, section: type[Section]) -> str:
    """The message about a key that a section does not have: the nearest one, or all of them."""
    parent, _, last = key.rpartition(".")
    before = f"{parent}." if parent else ""
    synonym = SYNONYMS.get(last.lower().replace("-", "_"), "")
    near = difflib.get_close_matches(last, section.model_fields, n=1, cutoff=0.4)
    very_near = difflib.get_close_matches(last, section.model_fields, n=1, cutoff=0.8)
    if synonym in section.model_fields:
        hint = f"did you mean {before}{synonym}?"
    elif f"{parent}.{last}" in RENAMED:
        hint = f"it is now named {RENAMED[f'{parent}.{last}']}"
    elif very_near:
        hint = f"did you mean {before}{very_near[0]}?"
    elif elsewhere := _elsewhere(last) or _elsewhere(synonym):
        hint = f"did you mean {elsewhere}?"
    elif near:
        hint = f"did you mean {before}{near[0]}?"
    else:
        hint = f"known: {', '.join(section.model_fields)}"
    return f"setting {key} is unknown; {hint}"


def _elsewhere(key: str) -> str:
    """The first section that has a setting of this name, with the name; or nothing."""
    for name, section in Settings():
        if isinstance(section, Section) and key in type(section).model_fields:
            return f"{name}.{key}"
    return ""
