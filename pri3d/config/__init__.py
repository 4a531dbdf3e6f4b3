"""Every setting, typed: the only source of defaults, units and descriptions.

`config.yaml`, the JSON schema that Snakemake validates with, `docs/configuration.md` and the
defaults shown by `--help` are checked against these models. An unknown key is an error that names
the nearest known one.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError, model_validator

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
    unused_settings,
)
from pri3d.config.modes import ALL_MODES, MODES, Mode, ModeName, used_settings
from pri3d.config.networks import NAMED_3D, Network2d, Network3d
from pri3d.config.pretrain import NAMED_WEIGHTS, Pretrain
from pri3d.config.renamed import RENAMED, renamed_settings
from pri3d.config.section import Section
from pri3d.config.tasks import KINDS, TASKS, TaskName, kind_of
from pri3d.config.training import RUNTIME, Training
from pri3d.errors import Pri3DError

__all__ = [
    "ALL_MODES",
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
    "json_schema",
    "kind_of",
    "load",
    "merged",
    "parse",
    "read_yaml",
    "renamed_settings",
    "unused_settings",
    "used_settings",
    "with_preset",
]


class Report(Section):
    runs: list[str] = Field(
        ["joint"], description="pretraining runs that the report waits for: modes or variants"
    )
    tasks: list[TaskName] = Field([], description="finetuning tasks that the report waits for")
    low_data: bool = Field(False, description="also wait for the low-data curve")
    compare_3d: bool = Field(False, description="also wait for the comparison of 3D pretrainings")


VariantName = Annotated[str, Field(pattern=r"^[A-Za-z]\w*$")]


class Variant(Section):
    """A pretraining run with settings of its own: those of `pretrain`, where they differ."""

    model_config = Section.model_config | {"extra": "allow"}

    mode: ModeName | None = Field(None, description="its mode; null: the variant's name is one")
    seeds: int = Field(1, ge=1, description="number of runs, which differ in seed")

    @property
    def changes(self) -> dict[str, Any]:
        """The settings of `pretrain` that this variant changes."""
        return self.model_extra or {}


# Sections -> the sections that they inherit from.
_INHERITS: dict[str, tuple[str, ...]] = {
    "pretrain": ("training",),
    "finetune": ("training",),
    **dict.fromkeys(KINDS, ("training", "finetune")),
}
# What of `finetune` is not of its tasks.
_NOT_INHERITED = {"initial_weights", "initial_weights_3d", "weight_files"}


class Settings(Section):
    preset: str | None = Field(
        None,
        description="settings to start from: a file of workflow/presets without its ending, such "
        "as paper; null: those of this file",
    )
    scans: str = Field("demo", description="`demo`, or the folder that holds the scans")
    scenes: list[str] | str | None = Field(
        None, description="scene ids: a list, or a text file with one id per line; null: all found"
    )
    held_out: list[str] | str | None = Field(
        None,
        description="scene ids that no pretraining sees, for evaluation: a list, or a text file "
        "with one id per line; null: the last of the demo's scans, none of other scans",
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
        for name, above in _INHERITS.items():
            fields = _section_class(name).model_fields
            sections = [raw.get(part) for part in (*above, name)]
            if not all(isinstance(section, dict | None) for section in sections):
                continue  # reported by the section's own check
            known = {key: raw[key] for key in ("network2d", "network3d") if key in raw}
            for section in sections[:-1]:
                known |= section or {}
            inherited = {
                key: value
                for key, value in known.items()
                if key in fields and key not in _NOT_INHERITED
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
        """The mode of a variant; a mode is a variant of its own name."""
        variant = self.variants.get(name)
        mode = (variant.mode if variant else None) or name
        if mode not in MODES:
            raise ValueError(
                f"variants.{name}: names no mode; add `mode: ` and one of {', '.join(MODES)}"
            )
        return mode

    def seeds_of(self, name: str) -> list[str]:
        """Names of a variant's runs: its own, or with several seeds `<name>-<seed>` for each."""
        seeds = self.variants[name].seeds if name in self.variants else 1
        return [name] if seeds == 1 else [f"{name}-{seed}" for seed in range(seeds)]

    def of_variant(self, name: str) -> Pretrain:
        """The section `pretrain` as a variant, or a mode, has it."""
        self.mode_of(name)
        variant = self.variants.get(name)
        return _with(self.pretrain, variant.changes if variant else {}, f"variants.{name}")

    def of_task(self, task: str) -> Task:
        """The settings of a task: its section, with the changes of `tasks`."""
        section: Task = getattr(self, TASKS[task].kind)
        changes = {str(name): changed for name, changed in self.tasks.items()}
        return _with(section, changes.get(task, {}), f"tasks.{task}")


def _section_class(name: str) -> type[Section]:
    annotation = Settings.model_fields[name].annotation
    assert isinstance(annotation, type)
    assert issubclass(annotation, Section)
    return annotation


S = TypeVar("S", bound=Section)


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two mappings as one; `above` wins, key by key in mappings that both have."""
    both = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(both.get(key), dict):
            value = merged(both[key], value)
        both[key] = value
    return both


def _with(section: S, changes: dict[str, Any], where: str) -> S:
    try:
        return type(section).model_validate(merged(section.model_dump(), changes))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join([where, *map(str, first["loc"])])
        raise ValueError(f"{name}: {first['msg'][0].lower()}{first['msg'][1:]}") from None


def parse(raw: dict[str, Any]) -> Settings:
    """Settings from a plain mapping; Pri3DError names the key, the problem and the nearest key."""
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise Pri3DError("; ".join(dict.fromkeys(map(_explain, error.errors())))) from None


def _explain(error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    where = ".".join(location)
    section: type[Section] = Settings
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
        if where in RENAMED:
            return f"setting {where} is now named {RENAMED[where]}"
        return f"setting {where} is unknown; {_nearest(location[-1], section)}"
    message = f"{error['msg'][0].lower()}{error['msg'][1:]} (given {error['input']!r})"
    return f"setting {where}: {message}" + (f"; it is: {description}" if description else "")


def _nearest(key: str, section: type[Section]) -> str:
    elsewhere = [
        f"{name}.{key}" for name, part in Settings() if key in getattr(part, "__dict__", ())
    ]
    near = difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.4)
    if elsewhere or near:
        return f"did you mean {(elsewhere or near)[0]}?"
    return f"known: {', '.join(section.model_fields)}"


PRESETS = Path(__file__).parents[2] / "workflow" / "presets"


def load(path: str | Path) -> Settings:
    """Settings from a YAML file, on top of the preset that it names.

    Raises:
        Pri3DError: a file is missing or no YAML, or a setting is wrong.
    """
    return parse(with_preset(read_yaml(path)))


def with_preset(raw: dict[str, Any], below: dict[str, Any] | None = None) -> dict[str, Any]:
    """Settings on top of the preset that they name (`preset`), and that on top of `below`.

    Raises:
        Pri3DError: there is no such preset, or presets name each other in a circle.
    """
    layers, name = [raw], raw.get("preset")
    while name is not None:
        path = PRESETS / f"{name}.yaml"
        if not path.is_file() or len(layers) > len(list(PRESETS.glob("*.yaml"))):
            known = ", ".join(sorted(file.stem for file in PRESETS.glob("*.yaml")))
            raise Pri3DError(f"preset: there is no preset {name}; known: {known}")
        layers.append(read_yaml(path))
        name = layers[-1].get("preset")
    resolved = below or {}
    for layer in reversed(layers):
        resolved = merged(resolved, layer)
    return resolved


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        Pri3DError: the file is missing, is no YAML, or holds something else.
    """
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            raw = yaml.safe_load(file)
    except OSError as error:
        raise Pri3DError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Pri3DError(f"{path}: is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(raw, dict | None):
        raise Pri3DError(f"{path}: holds no settings; write one `name: value` per line")
    return raw or {}


def json_schema() -> dict[str, Any]:
    """The JSON schema that `workflow/config.schema.json` holds."""
    return Settings.model_json_schema()
