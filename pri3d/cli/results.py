"""Verbs that show and check what was made."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pri3d import config
from pri3d.cli.options import app
from pri3d.errors import Pri3DError


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="folder with the artefacts")] = Path("results"),
    out: Annotated[Path | None, typer.Option(help="default: RESULTS/report/index.html")] = None,
) -> None:
    """Draw what was made, and what was left out and why, as one self-contained page."""
    from pri3d import report as stage

    stage.run(results, out or results / "report" / "index.html")


@app.command()
def verify(
    artefacts: Annotated[
        list[Path],
        typer.Argument(metavar="ARTEFACT...", help="files made by the verbs above, or a run"),
    ],
    deep: Annotated[
        bool, typer.Option("--deep", help="recount everything, not samples (slow)")
    ] = False,
) -> None:
    """Check artefacts: checksums, schema, digest, and that their figures recompute."""
    from pri3d.verify import verify as check

    failed = []
    for path in artefacts:
        try:
            print(f"{path}: good", *check(path, deep=deep), sep="\n  ")
        except Pri3DError as error:
            failed.append(str(error))
    if failed:
        raise Pri3DError("; ".join(failed))


@app.command(hidden=True)
def schema() -> None:
    """Print the JSON schema of config.yaml."""
    print(json.dumps(config.json_schema(), indent=2))
