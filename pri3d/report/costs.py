"""What everything took, what it was made with, and the digests of the outcome."""

import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from pri3d import config, store
from pri3d.report import html
from pri3d.report.curves import read_json
from pri3d.report.gather import Made, read
from pri3d.report.html import Html, tag

ORDER = ["demo", "clouds", "overlap", "pairs", "chunks", "pretrain"]


class Cost(NamedTuple):
    """Seconds of wall clock, and peak memory (resident, MB); None where it was not measured."""

    seconds: float
    memory_mb: float | None


def costs(made: Made) -> Html:
    measured = measurements(made)
    if not measured:
        return html.missing(
            "There are no measurements in benchmarks/; Snakemake writes them, a stage that is "
            "called by hand does not."
        )
    stages = [*filter(measured.get, ORDER), *sorted(set(measured) - set(ORDER))]
    total = sum(cost.seconds for jobs in measured.values() for cost in jobs.values())
    rows = []
    for stage in stages:
        jobs = list(measured[stage].values())
        seconds = sum(job.seconds for job in jobs)
        memory = [job.memory_mb for job in jobs if job.memory_mb is not None]
        share = 100 * seconds / total if total else 0
        rows.append(
            [
                stage,
                len(jobs),
                seconds,
                seconds / len(jobs),
                max(job.seconds for job in jobs),
                round(max(memory)) if memory else None,
                tag("span", "", class_="bar", style=f"width:{share:.1f}%", title=f"{share:.0f} %"),
            ]
        )
    head = ["stage", "jobs", "seconds", "a job", "longest", "peak MB", "share of all time"]
    jobs = sum(len(measured[stage]) for stage in stages)
    foot = ["all", jobs, total, "", "", max((row[5] for row in rows if row[5]), default=None), ""]
    parts = [
        html.paragraph(
            "Seconds of wall clock and largest resident memory of each job, as Snakemake measured "
            "them. Jobs run side by side where there are cores, so the whole took less than the "
            "sum. Memory is looked at now and then: of a job of about a second it may be far too "
            "low."
        ),
        html.table(head, rows, foot),
    ]
    by_scan = [stage for stage in stages if set(measured[stage]) & set(made.scenes)]
    if by_scan:
        head = ["scan"]
        for stage in by_scan:
            head += [f"{stage}, s", "MB"]
        rows = []
        for scene in made.scenes:
            row: list[Any] = [scene]
            for stage in by_scan:
                cost = measured[stage].get(scene, Cost(0, None))
                row.append(cost.seconds if scene in measured[stage] else None)
                row.append(None if cost.memory_mb is None else round(cost.memory_mb))
            rows.append(row)
        parts.append(html.details("Each scan", html.table(head, rows)))
    return html.join(parts)


def measurements(made: Made) -> dict[str, dict[str, Cost]]:
    """Stage -> job (a scene, a mode, or the stage's own name) -> what it took.

    A file of a scan that is not in this report is left out, as the scan's artefacts are.
    """
    measured: dict[str, dict[str, Cost]] = defaultdict(dict)
    for path in made.benchmarks:
        _, stage, *rest = path.relative_to(made.results).with_suffix("").parts
        job = "/".join(rest) or stage
        strange = stage in ("demo", "clouds", "overlap", "chunks") and job not in made.scenes
        if not strange and (cost := read(path, _read_benchmark)) is not None:
            measured[stage][job] = cost
    return dict(measured)


def _read_benchmark(path: Path) -> Cost | None:
    """The last row of Snakemake's table; None of an empty one."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if not rows:
        return None
    memory = rows[-1].get("max_rss", "")
    measured = memory.replace(".", "", 1).isdecimal()  # "NA" and "-" of jobs that were too short
    return Cost(float(rows[-1]["s"]), float(memory) if measured else None)


def settings(made: Made) -> Html:
    """Every setting of every stage, as the artefacts record it, with what it means."""
    seen: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    sections = {"clouds": "frames", "overlap": "overlap", "chunks": "chunks"}
    for stage, section in sections.items():
        for path in getattr(made, stage).values():
            for name, value in read(path, _recorded)[0].items():
                seen[section, name][_said(value)] += 1
    if made.pairs:
        for name, value in made.pairs.settings.items():
            seen["pairs", name][_said(value)] += 1
    rows = []
    for (section, name), values in seen.items():
        several = len(values) > 1
        said = ", ".join(f"{v} ({n} scans)" if several else v for v, n in values.items())
        rows.append([f"{section}.{name}", tag("code", said), _meaning(section, name)])
    parts = [html.table(["setting", "value", "meaning"], rows)] if rows else []
    for folder in made.runs + made.finetuned:
        if (folder / "settings.json").exists():
            recorded = read(folder / "settings.json", read_json)
            section = config.TASKS[recorded["task"]].kind if "task" in recorded else "pretrain"
            rows = [
                [f"{section}.{name}", tag("code", _said(value)), _meaning(section, name)]
                for name, value in recorded.items()
                if name not in ("mode", "task")
            ]
            table = html.table(["setting", "value", "meaning"], rows)
            parts.append(html.details(f"Run {folder.name}", table))
    return html.join(parts) if parts else html.missing("No settings are recorded.")


def _said(value: Any) -> str:
    """A setting's value as config.yaml has it."""
    return value if isinstance(value, str) else json.dumps(value)


def _meaning(section: str, name: str) -> str:
    model = type(getattr(config.Settings(), section))
    field = model.model_fields.get(name)
    return field.description or "" if field else ""


def _recorded(path: Path) -> tuple[dict, str]:
    """Settings and digest of an artefact."""
    with h5py.File(path) as file:
        return json.loads(file.attrs["settings"]), str(file.attrs["digest"])


def digests(made: Made) -> Html:
    """The digest of every artefact, and of every run's weights."""
    files = [
        path for stage in ("clouds", "overlap", "chunks") for path in getattr(made, stage).values()
    ]
    rows = [_digest_row(made, path, read(path, _recorded)[1]) for path in files]
    if made.pairs:
        rows.insert(0, _digest_row(made, made.pairs.path, made.pairs.digest))
    weights = [folder / "model.safetensors" for folder in made.runs + made.finetuned]
    rows += [_digest_row(made, path, store.file_digest(path)) for path in weights if path.exists()]
    if not rows:
        return html.missing("There are no artefacts.")
    return html.join(
        [
            html.paragraph(
                "SHA-256 of the content: the same inputs and settings give the same digest on any "
                "number of cores. Of weights, that of the file. Two people whose digests agree "
                "have the same data."
            ),
            html.details(f"{len(rows)} digests", html.table(["file", "megabytes", "digest"], rows)),
        ]
    )


def _digest_row(made: Made, path: Path, digest: str) -> list:
    return [made.name(path), path.stat().st_size / 1e6, tag("code", digest, class_="digest")]
