"""Which artefacts, runs and measurements a results folder holds."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from pri3d.artefacts import Pairs
from pri3d.config import TASKS
from pri3d.errors import Pri3DError
from pri3d.store import DAMAGE

Value = TypeVar("Value")


@dataclass
class Made:
    """What there is. scenes: those of `pairs`, or of the files where there are no pairs.

    pairs: its file is closed, its arrays are there. ledger: the arrays of its group `ledger`,
    and its attributes `rule` and `radius_m`.

    overlap, clouds, chunks: scene -> file, of these scenes only. strangers: files of other scenes,
    left by earlier work. demo: folders of demo scans. runs: folders of pretraining. finetuned:
    folders of the other runs. evaluations: files of `pri3d evaluate`. benchmarks: Snakemake's
    measurements.
    """

    results: Path
    scenes: list[str]
    pairs: Pairs | None
    ledger: dict[str, np.ndarray]
    overlap: dict[str, Path]
    clouds: dict[str, Path]
    chunks: dict[str, Path]
    strangers: list[str]
    demo: list[Path]
    runs: list[Path]
    finetuned: list[Path]
    evaluations: list[Path]
    benchmarks: list[Path]

    def name(self, path: Path) -> str:
        """A file's name as the page shows it: without where the results folder lies."""
        return path.relative_to(self.results).as_posix()


def gather(results: str | Path) -> Made:
    """Look into a results folder; raises Pri3DError when it holds nothing that was made."""
    results = Path(results)
    found = {
        stage: {path.stem: path for path in sorted((results / stage).glob("[!.]*.h5"))}
        for stage in ("overlap", "clouds", "chunks")
    }
    runs = [path for path in sorted(results.glob("runs/[!.]*")) if path.is_dir()]
    pairs, ledger = None, {}
    scenes = sorted({scene for files in found.values() for scene in files})
    if (results / "pairs.h5").exists():
        pairs, ledger = read(results / "pairs.h5", _read_pairs)
        scenes = pairs.scenes
    if not scenes and not runs and pairs is None:
        raise Pri3DError(
            f"{results}: holds nothing to report on; give the folder with pairs.h5, overlap/, "
            "clouds/, chunks/ and runs/, or make them first"
        )
    wanted = set(scenes)
    return Made(
        results=results,
        scenes=scenes,
        pairs=pairs,
        ledger=ledger,
        **{
            stage: {scene: path for scene, path in files.items() if scene in wanted}
            for stage, files in found.items()
        },
        strangers=[
            f"{stage}/{path.name}"
            for stage, files in found.items()
            for scene, path in files.items()
            if scene not in wanted
        ],
        demo=[path.parent for path in sorted(results.glob("demo/*/*.sens")) if path.stem in wanted],
        runs=[folder for folder in runs if not _is_finetuned(folder)],
        finetuned=[folder for folder in runs if _is_finetuned(folder)],
        evaluations=sorted(results.glob("evaluation/[!.]*.json")),
        # The measurement of an earlier report is not about what this one shows.
        benchmarks=[
            path
            for path in sorted(results.glob("benchmarks/**/*.tsv"))
            if path.relative_to(results).parts[1] != "report.tsv"
        ],
    )


def _is_finetuned(folder: Path) -> bool:
    """Its settings name a task; a run that has none yet is told by its name."""
    try:
        return "task" in json.loads((folder / "settings.json").read_text())
    except (OSError, ValueError, TypeError):
        return folder.name.startswith(tuple(TASKS))


def _read_pairs(path: Path) -> tuple[Pairs, dict[str, np.ndarray]]:
    with Pairs(path) as pairs:
        ledger = {name: data[()] for name, data in pairs.file["ledger"].items()}
        return pairs, ledger | {name: pairs.file.attrs[name] for name in ("rule", "radius_m")}


def read(path: Path, reader: Callable[[Path], Value]) -> Value:
    """reader(path); damage that it runs into is a Pri3DError with the file's name."""
    try:
        return reader(path)
    except DAMAGE as error:
        raise Pri3DError(
            f"{path}: cannot be read ({error}); remove it and run the stage that makes it again"
        ) from None


def spread(items: list[Value], most: int) -> list[Value]:
    """At most so many of a list, evenly spread over it, in its order."""
    if len(items) <= most:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]
