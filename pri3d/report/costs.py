"""Time and memory of all jobs, as Snakemake measured them."""

import csv
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from pri3d.report import html
from pri3d.report.gather import Results, read
from pri3d.report.html import Cell, Html, tag

ID = "costs"
TITLE = "Time and memory"

ORDER = ["demo", "clouds", "overlap", "pairs", "chunks", "pretrain"]  # others follow by name
_PER_SCAN = ("demo", "clouds", "overlap", "chunks")


class Cost(NamedTuple):
    """Wall-clock time in seconds, and peak resident memory in MB (None if not measured)."""

    seconds: float
    memory_mb: float | None


def render(results: Results) -> Html:
    """A table of all stages, and one of all scans."""
    measured = measurements(results)
    if not measured:
        return html.missing(
            "There are no measurements in benchmarks/; Snakemake writes them, commands that are "
            "run by hand do not."
        )
    stages = [stage for stage in ORDER if stage in measured]
    stages += sorted(set(measured) - set(ORDER))
    parts = [
        html.paragraph(
            "Wall-clock time and peak resident memory of all jobs, as Snakemake measured them. "
            "Jobs run in parallel, so the whole workflow takes less time than the sum. Memory is "
            "sampled, so it may be far too low for jobs that take about a second."
        ),
        _table(measured, stages),
    ]
    per_scan = [stage for stage in stages if set(measured[stage]) & set(results.scenes)]
    if per_scan:
        parts.append(html.details("By scan", _scan_table(results.scenes, measured, per_scan)))
    return html.join(parts)


def _table(measured: dict[str, dict[str, Cost]], stages: list[str]) -> Html:
    total = sum(cost.seconds for jobs in measured.values() for cost in jobs.values())
    rows: list[list[Cell]] = []
    peaks = []
    for stage in stages:
        jobs = list(measured[stage].values())
        seconds = sum(job.seconds for job in jobs)
        memory = [job.memory_mb for job in jobs if job.memory_mb is not None]
        peak = round(max(memory)) if memory else None
        peaks += [peak] if peak is not None else []
        share = 100 * seconds / total if total else 0
        bar = tag("span", "", class_="bar", style=f"width:{share:.1f}%", title=f"{share:.0f} %")
        longest = max(job.seconds for job in jobs)
        rows.append([stage, len(jobs), seconds, seconds / len(jobs), longest, peak, bar])
    head = ["stage", "jobs", "seconds", "mean per job", "longest", "peak MB", "share of the time"]
    number = sum(len(measured[stage]) for stage in stages)
    return html.table(head, rows, ["all", number, total, "", "", max(peaks, default=None), ""])


def _scan_table(scenes: list[str], measured: dict[str, dict[str, Cost]], stages: list[str]) -> Html:
    head = ["scan"]
    for stage in stages:
        head += [f"{stage}, s", "MB"]
    rows: list[list[Cell]] = []
    for scene in scenes:
        row: list[Cell] = [scene]
        for stage in stages:
            cost = measured[stage].get(scene)
            memory = cost.memory_mb if cost else None
            row += [cost.seconds if cost else None, None if memory is None else round(memory)]
        rows.append(row)
    return html.table(head, rows)


def measurements(results: Results) -> dict[str, dict[str, Cost]]:
    """Stage -> job (a scene, a run, or the name of the stage) -> its cost.

    Jobs of scans that are not in this report are left out, as their artefacts are.
    """
    measured: dict[str, dict[str, Cost]] = defaultdict(dict)
    for path in results.benchmarks:
        _, stage, *rest = path.relative_to(results.folder).with_suffix("").parts
        job = "/".join(rest) or stage
        if stage in _PER_SCAN and job not in results.scenes:
            continue
        cost = read(path, _read_benchmark)
        if cost is not None:
            measured[stage][job] = cost
    return dict(measured)


def _read_benchmark(path: Path) -> Cost | None:
    """The last row of Snakemake's table; None if it is empty."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if not rows:
        return None
    memory = rows[-1].get("max_rss", "")
    measured = memory.replace(".", "", 1).isdecimal()  # "NA" and "-" if the job was too short
    return Cost(float(rows[-1]["s"]), float(memory) if measured else None)
