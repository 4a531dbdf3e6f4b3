"""The settings of all artefacts and runs, with their meaning."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import h5py

from pri3d.config import TASKS, Section, Settings
from pri3d.report import html
from pri3d.report.gather import Results, read
from pri3d.report.html import Cell, Html, tag
from pri3d.run.folder import Run

ID = "settings"
TITLE = "Settings"

_SECTIONS = {"clouds": "frames", "overlap": "overlap", "chunks": "chunks"}  # of each stage
_SHARED = ("network2d", "network3d")  # sections that pretraining and finetuning share
_HEAD = ["setting", "value", "meaning"]


def render(results: Results) -> Html:
    """A table of the settings of all stages, and one table per run."""
    parts = []
    if rows := _stages(results):
        parts.append(html.table(_HEAD, rows))
    for run in results.runs + results.finetuned:
        parts.append(html.details(f"Run {run.name}", html.table(_HEAD, _run(run))))
    return html.join(parts) if parts else html.missing("No settings are recorded.")


def _stages(results: Results) -> list[list[Cell]]:
    """One row per setting that an artefact records; its values, if scans differ."""
    values: dict[tuple[str, str], Counter[str]] = {}
    recorded = [
        (_SECTIONS[stage], read(path, _recorded))
        for stage, per_scene in results.by_stage.items()
        for path in per_scene.values()
    ]
    if results.pairs:
        recorded.append(("pairs", results.pairs.settings))
    for section, settings in recorded:
        for name, value in settings.items():
            values.setdefault((section, name), Counter())[_value(value)] += 1
    rows: list[list[Cell]] = []
    for (section, name), counts in values.items():
        several = len(counts) > 1
        text = ", ".join(
            f"{value} ({n} scans)" if several else value for value, n in counts.items()
        )
        meaning = _meaning(type(getattr(Settings(), section)), name)
        rows.append([f"{section}.{name}", tag("code", text), meaning])
    return rows


def _recorded(path: Path) -> dict[str, Any]:
    with h5py.File(path) as file:
        settings: dict[str, Any] = json.loads(file.attrs["settings"])
        return settings


def _run(run: Run) -> list[list[Cell]]:
    """One row per setting of a run, under its name in config.yaml."""
    section = TASKS[run.task].kind if run.task else "pretrain"
    rows: list[list[Cell]] = []
    for name, value in run.settings:
        shown = name if name in _SHARED else f"{section}.{name}"
        if isinstance(value, Section):
            for key, part in value:
                meaning = _meaning(type(value), key)
                rows.append([f"{shown}.{key}", tag("code", _value(part)), meaning])
        else:
            meaning = _meaning(type(run.settings), name)
            rows.append([shown, tag("code", _value(value)), meaning])
    return rows


def _value(value: object) -> str:
    """A value as config.yaml has it."""
    return value if isinstance(value, str) else json.dumps(value)


def _meaning(section: type[Section], name: str) -> str:
    field = section.model_fields.get(name)
    return field.description or "" if field else ""
