"""The digests of all artefacts and of the weights of all runs."""

from pathlib import Path

import h5py

from pri3d.report import html
from pri3d.report.gather import Results, read
from pri3d.report.html import Cell, Html, tag

ID = "digests"
TITLE = "Digests"


def render(results: Results) -> Html:
    """One row per artefact, and per file of weights."""
    files = [path for per_scene in results.by_stage.values() for path in per_scene.values()]
    rows = [_row(results, path, read(path, _digest)) for path in files]
    if results.pairs:
        rows.insert(0, _row(results, results.pairs.path, results.pairs.digest))
    for run in results.runs + results.finetuned:
        if run.weights.exists():
            rows.append(_row(results, run.weights, run.digest()))
    if not rows:
        return html.missing("There are no artefacts.")
    return html.join(
        [
            html.paragraph(
                "SHA-256 of the content of artefacts, and of the file of weights. Equal inputs and "
                "settings give equal digests of artefacts, on any number of cores. If your digests "
                "equal those of a colleague, you have the same data."
            ),
            html.details(f"{len(rows)} digests", html.table(["file", "MB", "digest"], rows)),
        ]
    )


def _digest(path: Path) -> str:
    with h5py.File(path) as file:
        return str(file.attrs["digest"])


def _row(results: Results, path: Path, digest: str) -> list[Cell]:
    return [results.name(path), path.stat().st_size / 1e6, tag("code", digest, class_="digest")]
