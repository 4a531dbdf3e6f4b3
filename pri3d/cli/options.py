"""Settings as options of the command line, and back."""

import json
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pri3d import config
from pri3d.errors import Pri3DError

app = typer.Typer(
    help="Raw RGB-D scans in, contrastively pretrained 2D and 3D backbones out. "
    "Each verb reads files and writes one; Snakemake runs them all.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DEFAULT = config.Settings()

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.yaml",
        help="settings; the section of what is done counts, with what `modes` or `tasks` change",
    ),
]
Assigned = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="a setting of that section, over the file's"),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes a GPU where there is one")
]
Threads = Annotated[int, typer.Option(min=0, help="threads on the CPU; 0 leaves it to torch")]


def _flag(field: str) -> str:
    """`radius_m` is the flag `--radius`: its help names the unit."""
    return "--" + field.removesuffix("_m").replace("_", "-")


def setting(section: config.Section, field: str) -> Any:
    """The option of one setting, described as the typed settings describe it."""
    flag = _flag(field)
    if isinstance(getattr(section, field), bool):
        flag += "/--no-" + flag[2:]
    return typer.Option(flag, help=type(section).model_fields[field].description)


def checked(section: str, **values: Any) -> Any:
    """A checked section of the settings; a bad value is wrong usage."""
    try:
        return getattr(config.parse({section: values}), section)
    except Pri3DError as error:
        raise typer.BadParameter(str(error)) from None


def options(section: config.Section, leave_out: Collection[str] = ()) -> str:
    """A section of the settings as the options of its verb, quoted for a shell."""
    words = []
    for field, value in section.model_dump(exclude=set(leave_out)).items():
        if isinstance(value, bool):
            words.append(_flag(field) if value else "--no-" + _flag(field)[2:])
        elif value is not None:
            words += [_flag(field), str(value)]
    return shlex.join(words)


def assignments(
    section: config.Section, leave_out: Collection[str] = (), only: Collection[str] | None = None
) -> str:
    """A section of the settings, or some of it, as `--set key=value ...`, quoted for a shell."""
    chosen = section.model_dump(exclude=set(leave_out), include=only and set(only))
    pairs = (f"{key}={json.dumps(value)}" for key, value in chosen.items())
    return " ".join(f"--set {shlex.quote(pair)}" for pair in pairs)


def section_of(mode_or_task: str, config_file: Path | None, assigned: list[str]) -> Any:
    """The settings of a mode or a task: a file's, or the defaults, and what --set changes there."""
    settings = config.load(config_file) if config_file else DEFAULT
    if mode_or_task in config.TASKS:
        section, given = config.TASKS[mode_or_task].kind, settings.of_task(mode_or_task)
    else:
        section, given = "pretrain", settings.of_variant(mode_or_task)
    return checked(section, **given.model_dump() | dict(map(_assignment, assigned)))


def _assignment(text: str) -> tuple[str, Any]:
    import yaml

    key, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--set takes KEY=VALUE, not {text!r}")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise typer.BadParameter(f"--set {text}: the value is no YAML ({error})") from None
