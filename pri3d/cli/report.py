"""The verbs that show and check results, and those that print the settings."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pri3d import config
from pri3d.cli.options import app, existing_folder
from pri3d.errors import Pri3DError


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="folder with the artefacts")] = Path("results"),
    out: Annotated[Path | None, typer.Option(help="default: RESULTS/report/index.html")] = None,
) -> None:
    """Draw all results as one self-contained page.

    With what was left out, and why.
    """
    existing_folder(results, "give the folder with the artefacts")
    from pri3d import report as stage

    stage.run(results, out or results / "report" / "index.html")


@app.command()
def verify(
    artefacts: Annotated[
        list[Path],
        typer.Argument(metavar="ARTEFACT...", help="files made by other verbs, or folders of runs"),
    ],
    deep: Annotated[
        bool, typer.Option("--deep", help="recount everything instead of samples (slow)")
    ] = False,
) -> None:
    """Check artefacts: checksums, schema, digest and numbers.

    Numbers are computed again from what they were made from.
    """
    from pri3d.verify import verify as check

    failed = []
    for path in artefacts:
        try:
            print(f"{path}: good", *check(path, deep=deep), sep="\n  ")
        except Pri3DError as error:
            failed.append(str(error))
    if failed:
        raise Pri3DError("; ".join(failed))


@app.command()
def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="as the page docs/configuration.md")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="as the JSON schema workflow/config.schema.json")
    ] = False,
    config_file: Annotated[
        Path | None, typer.Option("--config", metavar="FILE.yaml", help="settings of a file")
    ] = None,
    preset: Annotated[
        str, typer.Option(metavar="NAME", help=f"settings of {', '.join(config.preset_names())}")
    ] = "",
) -> None:
    """Print every setting, resolved, as JSON."""
    if markdown:
        print(config.markdown(), end="")
        return
    if schema:
        print(json.dumps(config.json_schema(), indent=2))
        return
    raw = config.read_yaml(config_file) if config_file else {}
    if preset:
        raw["preset"] = preset
    resolved = config.parse(config.with_preset(raw))
    print(json.dumps(resolved.model_dump(), indent=2))
