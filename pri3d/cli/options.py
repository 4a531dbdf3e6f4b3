"""The program, options that verbs share, and settings as options and back."""

import json
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pri3d import __version__, config
from pri3d.cli.messages import configure_logging
from pri3d.errors import Pri3DError

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

app = typer.Typer(
    help="Raw RGB-D scans in, contrastively pretrained 2D and 3D backbones out. "
    "Each verb reads files and writes one; `pri3d run` and Snakemake run all of them.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=HELP,
)

DEFAULT = config.Settings()


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pri3d {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    configure_logging()


ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE.yaml", help="settings; default: those of --help"),
]
Assigned = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="a setting, over the file's: lr=0.05, pretrain.lr=0.05, training.threads=4, "
        "network3d.widths=[...] (docs/configuration.md)",
    ),
]
Engine = Literal["auto", "torch", "triton", "minkowski"]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="auto uses a GPU if there is one")
]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0: torch's default")]


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
    """A checked section of the settings.

    Raises:
        typer.BadParameter: a value is wrong.
    """
    try:
        return getattr(config.parse({section: values}), section)
    except Pri3DError as error:
        raise typer.BadParameter(str(error)) from None


def known(what: str, name: str, names: Collection[str]) -> str:
    """The name, which has to be one of `names`.

    Raises:
        typer.BadParameter: it is not; the message has the nearest name and all names.
    """
    if name not in names:
        raise typer.BadParameter(config.unknown_name(what, name, names))
    return name


def listing(title: str, summaries: dict[str, str]) -> str:
    """Names and their summaries as a paragraph of a help text, one per line."""
    width = max(map(len, summaries))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in summaries.items()]
    return "\n".join(["\b", title, *lines])


def existing_file(path: Path, hint: str) -> Path:
    """The path of a file that exists; checked before slow imports.

    Raises:
        Pri3DError: it does not; `hint` is what to do.
    """
    if path.is_dir():
        raise Pri3DError(f"{path}: is a folder; {hint}")
    if not path.exists():
        raise Pri3DError(f"{path}: no such file; {hint}")
    return path


def existing_folder(path: Path, hint: str) -> Path:
    """The path of a folder that exists; checked before slow imports.

    Raises:
        Pri3DError: it does not; `hint` is what to do.
    """
    if not path.exists():
        raise Pri3DError(f"{path}: no such folder; {hint}")
    if not path.is_dir():
        raise Pri3DError(f"{path}: is no folder; {hint}")
    return path


def existing_weights(name: str, value: str) -> None:
    """Check that a setting of weights names a file or a run that exists, if it names one.

    Raises:
        Pri3DError: it does not exist; `name` is the setting's.
    """
    if value not in config.NAMED_WEIGHTS and not Path(value).exists():
        raise Pri3DError(
            f"{value}: no such file or run; set {name} to a file of weights, a folder of a run, or "
            f"one of {', '.join(config.NAMED_WEIGHTS)}"
        )


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
    chosen = section.model_dump(exclude=set(leave_out), include=None if only is None else set(only))
    pairs = (f"{key}={json.dumps(value)}" for key, value in chosen.items())
    return " ".join(f"--set {shlex.quote(pair)}" for pair in pairs)


def assigned_values(assigned: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` words as key -> value, which is read as YAML.

    Raises:
        typer.BadParameter: a word has no `=`, or its value is no YAML.
    """
    import yaml

    values = {}
    for text in assigned:
        key, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"settings are given as KEY=VALUE, not {text!r}")
        try:
            values[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            message = " ".join(str(error).split())
            raise typer.BadParameter(f"{text}: the value is no YAML ({message})") from None
    return values


def settings_file(config_file: Path | None) -> dict[str, Any]:
    """The settings of a file on top of its preset, as a mapping; without a file, none.

    Raises:
        Pri3DError: the file cannot be read, or a setting in it is wrong.
    """
    if config_file is None:
        return {}
    raw = config.with_preset(config.read_yaml(config_file))
    config.parse(raw)  # a mistake in the file is no wrong usage
    return raw
