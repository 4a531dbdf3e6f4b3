"""What a results folder holds: artefacts, runs, evaluations and measurements."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from pri3d.artefacts import Pairs
from pri3d.errors import Pri3DError
from pri3d.run.folder import Run, is_run, read_run
from pri3d.store import DAMAGE

Value = TypeVar("Value")


class Ledger(NamedTuple):
    """The group `ledger` of pairs.h5; arrays have one entry per scan, in the order of the scenes.

    dropped: frames dropped, by reason [S, R]. statuses: "ok", "partial: why" or "failed: why".
    pairs_sampled: kept pairs that were sampled for training. rule, radius_m: of the overlap.
    """

    frames_in_scan: np.ndarray
    frames_in: np.ndarray
    kept: np.ndarray
    dropped: np.ndarray
    reasons: list[str]
    statuses: list[str]
    pairs_tested: np.ndarray
    pairs_kept: np.ndarray
    pairs_sampled: np.ndarray
    rule: str
    radius_m: float


@dataclass
class Results:
    """The content of a results folder.

    Attributes:
        folder: the results folder.
        scenes: scene ids of `pairs`, or of the files if there is no pairs.h5.
        pairs: the arrays of pairs.h5 (its file is closed), None without the file.
        ledger: its ledger, None without the file.
        overlap, clouds, chunks: scene -> file, for `scenes` only.
        unlisted: names of files of other scenes, left by earlier work.
        demo: folders of demo scans.
        runs: pretraining runs that have written their settings.
        finetuned: finetuning runs that have written their settings.
        without_settings: folders of other runs.
        evaluations: files that `pri3d evaluate` wrote.
        benchmarks: time and memory of each job, as Snakemake measured them.
    """

    folder: Path
    scenes: list[str]
    pairs: Pairs | None
    ledger: Ledger | None
    overlap: dict[str, Path]
    clouds: dict[str, Path]
    chunks: dict[str, Path]
    unlisted: list[str]
    demo: list[Path]
    runs: list[Run]
    finetuned: list[Run]
    without_settings: list[Path]
    evaluations: list[Path]
    benchmarks: list[Path]

    def name(self, path: Path) -> str:
        """The name of a file on the page: its path below the results folder."""
        return path.relative_to(self.folder).as_posix()

    @property
    def by_stage(self) -> dict[str, dict[str, Path]]:
        """Stage -> scene -> file, for the artefacts that exist per scan."""
        return {"clouds": self.clouds, "overlap": self.overlap, "chunks": self.chunks}


def gather(folder: str | Path) -> Results:
    """List the content of a results folder.

    Raises:
        Pri3DError: it holds neither artefacts nor runs, or pairs.h5 or a run is damaged.
    """
    folder = Path(folder)
    files = {
        stage: {path.stem: path for path in sorted((folder / stage).glob("[!.]*.h5"))}
        for stage in ("overlap", "clouds", "chunks")
    }
    run_folders = [path for path in sorted(folder.glob("runs/[!.]*")) if path.is_dir()]
    pairs, ledger = None, None
    scenes = sorted({scene for per_scene in files.values() for scene in per_scene})
    if (folder / "pairs.h5").exists():
        pairs, ledger = read(folder / "pairs.h5", _read_pairs)
        scenes = pairs.scenes
    if not scenes and not run_folders and pairs is None:
        raise Pri3DError(
            f"{folder}: holds nothing to report on; give the folder with pairs.h5, overlap/, "
            "clouds/, chunks/ and runs/, or make them first"
        )
    listed = {
        stage: {scene: path for scene, path in per_scene.items() if scene in set(scenes)}
        for stage, per_scene in files.items()
    }
    runs = [read_run(path) for path in run_folders if is_run(path)]
    return Results(
        folder=folder,
        scenes=scenes,
        pairs=pairs,
        ledger=ledger,
        overlap=listed["overlap"],
        clouds=listed["clouds"],
        chunks=listed["chunks"],
        unlisted=[
            f"{stage}/{path.name}"
            for stage, per_scene in files.items()
            for scene, path in per_scene.items()
            if scene not in listed[stage]
        ],
        demo=[path.parent for path in sorted(folder.glob("demo/*/*.sens")) if path.stem in scenes],
        runs=[run for run in runs if run.kind == "pretrain"],
        finetuned=[run for run in runs if run.kind == "finetune"],
        without_settings=[path for path in run_folders if not is_run(path)],
        evaluations=sorted(folder.glob("evaluation/[!.]*.json")),
        # The measurement of an earlier report is not about what this one shows.
        benchmarks=[
            path
            for path in sorted(folder.glob("benchmarks/**/*.tsv"))
            if path.relative_to(folder).parts[1] != "report.tsv"
        ],
    )


def _read_pairs(path: Path) -> tuple[Pairs, Ledger]:
    with Pairs(path) as pairs:
        data = {name: values[()] for name, values in pairs.file["ledger"].items()}
        return pairs, Ledger(
            frames_in_scan=data["frames_in_scan"],
            frames_in=data["frames_in"],
            kept=data["kept"],
            dropped=data["dropped"],
            reasons=[reason.decode() for reason in data["reason"]],
            statuses=[status.decode() for status in data["status"]],
            pairs_tested=data["pairs_tested"],
            pairs_kept=data["pairs_kept"],
            pairs_sampled=data["pairs_drawn"],
            rule=str(pairs.file.attrs["rule"]),
            radius_m=float(pairs.file.attrs["radius_m"]),
        )


def read(path: Path, reader: Callable[[Path], Value]) -> Value:
    """reader(path).

    Raises:
        Pri3DError: the file is damaged; the message names it.
    """
    try:
        return reader(path)
    except DAMAGE as error:
        raise Pri3DError(
            f"{path}: cannot be read ({error}); remove it and run the stage that makes it again"
        ) from None
