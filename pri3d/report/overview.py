"""The head of the page: settings, counts, problems and navigation."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import h5py

from pri3d.report import html
from pri3d.report.gather import Results, read
from pri3d.report.html import Html, tag
from pri3d.report.ledger import Status, parse_status

_MAX_NAMES = 8


def render(results: Results, titles: dict[str, str]) -> Html:
    """The `<header>` of the page. titles: anchor of each section -> its title."""
    parts = [
        tag("h1", "Pri3D report"),
        html.paragraph(_settings_line(results), class_="lead"),
        _counts(results),
        *(html.warning(problem) for problem in _problems(results)),
        html.navigation(titles),
    ]
    return tag("header", html.join(parts))


def _settings_line(results: Results) -> str:
    clauses = []
    every = {settings["every"] for settings in _settings_of(results.clouds) if "every" in settings}
    if every == {1}:
        clauses.append("every frame is used")
    elif every:
        clauses.append(f"one frame in {' or '.join(map(str, sorted(every)))} is used")
    if results.pairs and results.ledger:
        if results.ledger.rule == "official":
            clauses.append("overlap by the rule of the published script (clouds thinned to 5 cm)")
        else:
            radius = f"{100 * results.ledger.radius_m:g}\N{NO-BREAK SPACE}cm"
            clauses.append(
                f"overlap by the rule of the paper (points closer than {radius}, all depth "
                "pixels, in both directions)"
            )
        minimum = results.pairs.settings["min_overlap"]
        clauses.append(f"pairs with an overlap of at least {minimum:g} are kept")
    line = "; ".join(clauses)
    return f"{line[:1].upper()}{line[1:]}." if line else "No settings are recorded."


def _settings_of(files: dict[str, Path]) -> list[dict[str, Any]]:
    def settings(path: Path) -> dict[str, Any]:
        with h5py.File(path) as file:
            content: dict[str, Any] = json.loads(file.attrs["settings"])
            return content

    return [read(path, settings) for path in files.values()]


def _counts(results: Results) -> Html:
    runs = len(results.runs)
    counts: list[tuple[str, int | None]] = [
        ("scans", len(results.scenes)),
        ("frames kept", int(results.ledger.kept.sum()) if results.ledger else None),
        ("pairs of frames", len(results.pairs.a) if results.pairs else None),
        ("chunks", sum(read(path, _frames_in) for path in results.chunks.values())),
        ("pretraining run" if runs == 1 else "pretraining runs", runs),
    ]
    if results.finetuned:
        finetuned = len(results.finetuned)
        counts.append(("finetuning run" if finetuned == 1 else "finetuning runs", finetuned))
    items = [
        tag("li", html.join([tag("b", "–" if n is None else f"{n:,}"), name], " "))
        for name, n in counts
    ]
    return tag("ul", html.join(items), class_="counts")


def _frames_in(path: Path) -> int:
    with h5py.File(path) as file:
        return len(file["frames/index"])


def _problems(results: Results) -> list[str]:
    """Problems that a reader has to know before reading on."""
    problems = []
    if results.pairs and results.ledger:
        statuses = Counter(map(parse_status, results.ledger.statuses))
        problem_of: dict[Status, str] = {
            "failed": "Missing or unreadable",
            "partial": "Partly damaged, or without a usable frame",
        }
        for status, problem in problem_of.items():
            if statuses[status]:
                problems.append(
                    f"{problem}: {statuses[status]} of {len(results.scenes)} scans. The frame "
                    "ledger gives the reasons."
                )
        changed = [
            scene
            for scene, path in results.overlap.items()
            if results.pairs.inputs.get(scene) != read(path, _digest)
        ]
        if changed:
            names = ", ".join(changed[:_MAX_NAMES])
            more = " and others" if len(changed) > _MAX_NAMES else ""
            problems.append(
                f"pairs.h5 is older than the overlap of {names}{more}: run pairs again."
            )
    if results.unlisted:
        names = ", ".join(results.unlisted[:_MAX_NAMES])
        more = " and others" if len(results.unlisted) > _MAX_NAMES else ""
        problems.append(
            f"These files belong to scans that are not in pairs.h5, and are not shown: "
            f"{names}{more}."
        )
    return problems


def _digest(path: Path) -> str:
    with h5py.File(path) as file:
        return str(file.attrs["digest"])
