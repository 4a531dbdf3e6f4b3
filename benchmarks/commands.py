"""How benchmarks call the command line, and the small inputs of their --quick form."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
QUICK_HELP = "a few seconds on small inputs that it makes itself: shows that it runs, no results"


def call(module: str, *words: object) -> None:
    """Run `python -m <module> <words>` with one thread; the benchmark ends if it fails."""
    command = [sys.executable, "-m", module, *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    if process.returncode:
        sys.exit(f"{' '.join(command)}\n{process.stdout[-2000:]}\n{process.stderr[-2000:]}")


def call_here(module: str, *words: object) -> None:
    """As `call`, for `pri3d` only: in this process, which saves the imports."""
    from pri3d.cli import app

    if module != "pri3d":
        raise ValueError(f"call_here: runs pri3d only, not {module}")
    with contextlib.redirect_stdout(io.StringIO()):
        app(args=[str(word) for word in words], standalone_mode=False)


def assigned(settings: dict[str, Any]) -> list[str]:
    """Settings as options of the command line."""
    return [f"--set={name}={json.dumps(value)}" for name, value in settings.items()]


def held_out_options(scenes: Collection[str]) -> list[str]:
    return [word for scene in scenes for word in ("--held-out", scene)]


def make_artefacts(
    work: Path,
    settings: dict[str, Any],
    targets: Collection[str] = ("results/pairs.h5", "chunks"),
) -> None:
    """Make results/pairs.h5, clouds/ and chunks/ in the folder `work` with Snakemake."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "settings.json").write_text(json.dumps(settings))
    words = ["--snakefile", ROOT / "Snakefile", "--directory", work, "--cores", "all"]
    words += ["--quiet", "rules", "--configfile", work / "settings.json"]
    call("snakemake", *words, "--", *targets)


def make_quick_artefacts(scans: Path, results: Path, radius_m: float, voxel_m: float) -> None:
    """As `make_artefacts`, of all frames of few small scans <scans>/<scene>/<scene>.sens."""
    overlaps = []
    for sens in sorted(scans.glob("*/*.sens")):
        clouds, overlap, chunks = (
            results / stage / f"{sens.stem}.h5" for stage in ("clouds", "overlap", "chunks")
        )
        call_here("pri3d", "clouds", sens, clouds, "--every", 1)
        call_here("pri3d", "overlap", clouds, overlap, "--radius", radius_m)
        surface = sens.with_name(f"{sens.stem}_vh_clean_2.ply")
        call_here("pri3d", "chunks", clouds, chunks, "--surface", surface, "--voxel", voxel_m)
        overlaps.append(overlap)
    call_here("pri3d", "pairs", *overlaps, results / "pairs.h5", "--min-overlap", 0.1)


def make_quick_scans(folder: Path, scans: int, frames: int, height: int = 48) -> Path:
    """Small synthetic scans in the folder."""
    size = ["--height", height, "--color-height", height]
    call_here("pri3d", "demo", folder, "--scans", scans, "--frames", frames, *size)
    return folder


def make_quick_data(folder: Path, frames: int) -> Path:
    """Synthetic scans under the names and in the folders of the real ones."""
    scans = make_quick_scans(folder / "scans", 2, frames)
    for number, name in enumerate(("redkitchen", "livingroom1")):
        scene = f"scene{number:04d}_00"
        for path in (scans / scene).iterdir():
            path.rename(path.with_name(path.name.replace(scene, name)))
        (scans / scene).rename(scans / name)
    wide = folder / "sens-valid" / "color1296_20f.sens"
    wide.parent.mkdir()
    wide.write_bytes((scans / "redkitchen" / "redkitchen.sens").read_bytes())
    return folder


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Write the results, if a file is named."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
