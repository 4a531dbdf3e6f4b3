"""The verb that runs the workflow."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from pri3d import config
from pri3d.cli.options import app, assigned_values, known
from pri3d.errors import Pri3DError

SNAKEFILE = Path(__file__).parents[2] / "Snakefile"


@app.command()
def run(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET... KEY=VALUE...",
            help="targets, such as pretrain_joint or results/pairs.h5 (default: all), and "
            "settings, such as pretrain.lr=0.05 or preset=paper",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    config_file: Annotated[
        Path | None, typer.Option("--config", metavar="FILE.yaml", help="settings of a file")
    ] = None,
    cores: Annotated[str, typer.Option(metavar="N", help="cores to use, or all")] = "all",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="show what would run, and run nothing")
    ] = False,
) -> None:
    """Run the workflow with Snakemake.

    Settings are dotted keys, over those of config.yaml and of --config.
    """
    targets = [word for word in words if "=" not in word]
    given = config.nested(assigned_values([word for word in words if "=" in word]))
    if not SNAKEFILE.is_file():
        raise Pri3DError(f"{SNAKEFILE}: no such file; install the package from its repository")
    raw = config.read_yaml(config_file) if config_file else {}
    raw = config.with_preset(
        config.merged(config.nested(raw), given), config.read_yaml(config.DEMO)
    )
    names = config.target_names(config.parse(raw))
    for target in targets:
        if re.fullmatch(r"\w+", target) and not Path(target).exists():
            known("target", target, names)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--cores", cores]
    command += ["--dry-run"] if dry_run else ["--quiet", "host", "reason", "rules"]
    if config_file is not None:
        command += ["--configfile", str(config_file)]
    if given:
        command += ["--config", *(f"{key}={_word(value)}" for key, value in given.items())]
    os.execv(sys.executable, [*command, "--", *targets])  # signals reach Snakemake directly


def _word(value: object) -> str:
    """A value as Snakemake reads it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
