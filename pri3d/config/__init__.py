"""Every setting, typed; the only source of defaults, units and descriptions.

`config.yaml`, the JSON schema that Snakemake validates with, and the defaults shown by `--help`
are all held against these models by tests. An unknown key is an error that names the nearest
right one.
"""

import difflib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from pri3d.config.data import Chunks, Demo, Evaluate, Frames, Labelled, Overlap, Pairs, Sparse
from pri3d.config.finetune import (
    FINETUNE_HOW,
    SECTIONS,
    TASKS,
    WITH_CLOUDS,
    AnyTask,
    Compare3d,
    Det3d,
    Finetune,
    Finetuned,
    Finetuned2d,
    Insseg,
    LowData,
    Semseg,
    Semseg3d,
    Start,
    Task,
    Task3d,
    finetune_unused,
)
from pri3d.config.pretrain import (
    INIT,
    PRETRAIN_HOW,
    PRETRAIN_UNUSED,
    PRETRAINED,
    PRETRAINED_3D,
    WHOLE_FRAMES,
    WITH_TEACHER,
    Mode,
    Net2d,
    Pretrain,
)
from pri3d.config.section import Section
from pri3d.errors import Pri3DError

__all__ = [
    "FINETUNE_HOW",
    "INIT",
    "PRETRAINED",
    "PRETRAINED_3D",
    "PRETRAIN_HOW",
    "PRETRAIN_UNUSED",
    "SECTIONS",
    "TASKS",
    "WHOLE_FRAMES",
    "WITH_CLOUDS",
    "WITH_TEACHER",
    "AnyTask",
    "Chunks",
    "Compare3d",
    "Demo",
    "Det3d",
    "Evaluate",
    "Finetune",
    "Finetuned",
    "Finetuned2d",
    "Frames",
    "Insseg",
    "Labelled",
    "LowData",
    "Mode",
    "Net2d",
    "Overlap",
    "Pairs",
    "Pretrain",
    "Report",
    "Section",
    "Semseg",
    "Semseg3d",
    "Settings",
    "Sparse",
    "Start",
    "Task",
    "Task3d",
    "finetune_unused",
    "json_schema",
    "load",
    "parse",
]


class Report(Section):
    runs: list[Mode] = Field(["joint"], description="pretraining runs that the report waits for")
    tasks: list[AnyTask] = Field([], description="finetuning tasks that the report waits for")
    low_data: bool = Field(False, description="the report waits for the low-data curve too")
    compare_3d: bool = Field(
        False, description="the report waits for the comparison of 3D pretrainings too"
    )


class Settings(Section):
    scans: str = Field("demo", description="`demo`, or the folder that holds the scans")
    scenes: list[str] | str | None = Field(
        None, description="scene ids: a list, or a text file with one id a line; default all found"
    )
    held_out: list[str] | str | None = Field(
        None,
        description="scene ids that no pretraining sees, for evaluation: a list, or a text file "
        "with one id a line; default: the last of the demo's scans, none of others",
    )
    frames: Frames = Frames()
    overlap: Overlap = Overlap()
    pairs: Pairs = Pairs()
    chunks: Chunks = Chunks()
    demo: Demo = Demo()
    sparse: Sparse = Sparse()
    pretrain: Pretrain = Pretrain()
    evaluate: Evaluate = Evaluate()
    labelled: Labelled = Labelled()
    finetune: Finetune = Finetune()
    semseg: Semseg = Semseg()
    insseg: Insseg = Insseg()
    semseg3d: Semseg3d = Semseg3d()
    det3d: Det3d = Det3d()
    low_data: LowData = LowData()
    modes: dict[Mode, dict[str, Any]] = Field(
        {}, description="settings of `pretrain` that are others for one mode: mode -> name -> value"
    )
    tasks: dict[AnyTask, dict[str, Any]] = Field(
        {}, description="settings of a task's section that are others for one task, likewise"
    )
    compare_3d: Compare3d = Compare3d()
    report: Report = Report()

    @model_validator(mode="after")
    def _others_are_valid(self) -> "Settings":
        for mode in self.modes:
            self.of_mode(mode)
        for task in self.tasks:
            self.of_task(task)
        return self

    def of_mode(self, mode: str) -> Pretrain:
        """The section `pretrain` as a mode has it."""
        return _with(self.pretrain, self.modes.get(mode, {}), f"modes.{mode}")

    def of_task(self, task: str) -> Finetuned:
        """The section of a task's settings as that task has it."""
        section = getattr(self, TASKS[task][0])
        return _with(section, self.tasks.get(task, {}), f"tasks.{task}")


def _with(section: Section, changes: dict[str, Any], where: str) -> Any:
    try:
        return type(section).model_validate(section.model_dump() | changes)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join([where, *map(str, first["loc"])])
        raise ValueError(f"{name}: {first['msg'][0].lower()}{first['msg'][1:]}") from None


def parse(raw: dict[str, Any]) -> Settings:
    """Settings from a plain mapping; Pri3DError names the key, the problem and the nearest key."""
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise Pri3DError("; ".join(_explain(e) for e in error.errors())) from None


def _explain(error: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    section, description = Settings, None
    for part in error["loc"]:
        field = section.model_fields.get(str(part))
        if field is None:
            break
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            section = field.annotation
        else:
            description = field.description
    if error["type"] == "extra_forbidden":
        return f"setting {where} is unknown; {_nearest(str(error['loc'][-1]), section)}"
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


def load(path: str | Path) -> Settings:
    """Settings from a YAML file."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            raw = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Pri3DError(f"{path}: is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(raw, dict | None):
        raise Pri3DError(f"{path}: holds no settings; write one `name: value` a line")
    return parse(raw or {})


def json_schema() -> dict[str, Any]:
    """The JSON schema that `workflow/config.schema.json` holds."""
    return Settings.model_json_schema()
