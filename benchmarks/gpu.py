"""Training on a GPU: sparse convolutions by engine, and whole steps of pretraining.

    python benchmarks/gpu.py --artefacts DIR [--scans DIR] [--json FILE]
    python benchmarks/gpu.py --quick [--json FILE]

Networks: forward and backward pass of MinkUNet34C (37.9 M parameters, stem kernel 5, 96 output
channels) on voxels of 2 cm of a real surface; coarser levels and kernel maps are computed again in
every pass, and engines take turns. The floor is the time of the useful operations alone at the rate
of the GPU's matrix product of that type.

Steps: `pri3d pretrain` with the settings of the presets and one micro-batch per step (8 pairs, or
8 frames of ppkt), from random weights. Rates are medians over all lines of metrics.jsonl except the
first, in which kernels are compiled.

Each result is written at once, and results that the JSON file has are not measured again.

Needs a GPU, DIR with pairs.h5, clouds/ and chunks/ of real scans (snakemake --config
scans=<folder> 'frames={"every": 1}' -- results/pairs.h5 chunks), and in --scans
redkitchen/redkitchen_vh_clean_2.ply (default $PRI3D_REAL_DATA/scans). --quick runs the same code on
the CPU if there is no GPU, with the engine torch only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from commands import (
    QUICK_HELP,
    assigned,
    call_here,
    make_quick_artefacts,
    make_quick_data,
    write_json,
)
from machine import machine
from sparse import CHANNELS, clouds_of, useful_gflop

from pri3d.matching.voxels import voxelize
from pri3d.models.minkunet import minkunet
from pri3d.sources.surface import read_ply
from pri3d.sparse.convolution import use_engine
from pri3d.sparse.coordinates import SparseTensor, collate

ROOT = Path(__file__).parents[1]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ENGINES = ("torch", "triton") if DEVICE == "cuda" else ("torch",)
TYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
VOXELS = (50_000, 400_000)
PASSES, ROUNDS = 8, 3
STEPS = 60
# view has no 3D network.
RUNS = [
    ("view", "paper", "torch", "float32"),
    ("view", "paper", "torch", "bf16"),
    ("geo", "paper", "torch", "float32"),
    ("geo", "paper", "torch", "bf16"),
    ("joint", "paper", "triton", "bf16"),
    ("joint", "paper", "triton", "float32"),
    ("ppkt", "ppkt", "triton", "bf16"),
    ("geo", "paper", "triton", "bf16"),
    ("joint", "paper", "torch", "float32"),
    ("geo", "paper", "triton", "float32"),
]
COMMON = {"steps": STEPS, "batch": 8, "micro_batch": 8, "log_every": 10, "device": "cuda"}
QUICK_COMMON = {"steps": 2, "batch": 1, "micro_batch": 1, "log_every": 1, "device": DEVICE}
QUICK_3D = {"widths": [8] * 8, "blocks": [1] * 8}
QUICK = {"height": 64, "width": 64, "matches": 32, "radius_m": 0.1, "network3d": QUICK_3D}
QUICK_2D = {"view": {"network2d": "resnet18_half"}, "ppkt": {"teacher": "resnet18_half"}}
QUICK_RUNS = [
    ("view", "paper", "torch", "float32"),
    ("ppkt", "ppkt", "torch", "bf16"),
]


class Effort(NamedTuple):
    """How much is measured. matrix: rows of the square matrices of the floor. network: shape of the
    3D network; default: MinkUNet34C.
    """

    voxels: tuple[int, ...] = VOXELS
    passes: int = PASSES
    rounds: int = ROUNDS
    matrix: int = 8192
    network: dict[str, Any] = {}  # noqa: RUF012


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def median_ms(function: Callable[[], object], passes: int) -> float:
    seconds = []
    for _ in range(passes):
        synchronize()
        start = time.perf_counter()
        function()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))


def network_passes(cells_N3: np.ndarray, voxels: int, precision: str, effort: Effort) -> dict:
    """Milliseconds and memory of the engines, and the floor."""
    torch.manual_seed(0)
    parts = [(torch.from_numpy(c), torch.rand(len(c), 3)) for c in clouds_of(cells_N3, voxels)]
    inputs = collate(parts).to(DEVICE)
    projection = torch.randn(len(inputs.features), CHANNELS, device=DEVICE)
    network = minkunet(3, CHANNELS, **effort.network).to(DEVICE)

    def forward() -> torch.Tensor:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16"):
            return network(inputs.to(DEVICE)).features  # `to` drops the kernel maps

    def both() -> None:
        (forward().float() * projection).sum().backward()
        network.zero_grad()

    found = {engine: {"forward_ms": [], "both_ms": []} for engine in ENGINES}
    for _ in range(effort.rounds):
        for engine, times in found.items():
            use_engine(network, engine)
            both()
            synchronize()
            before = 0
            if DEVICE == "cuda":
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            times["forward_ms"].append(round(median_ms(forward, effort.passes), 2))
            times["both_ms"].append(round(median_ms(both, effort.passes), 2))
            peak = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else 0
            times["peak_mb"] = round((peak - before) / 2**20)
    with torch.no_grad():
        use_engine(network, "torch")
        gflop = 3 * useful_gflop(network, SparseTensor(inputs.coordinates, inputs.features))
    rate = product_gflops(TYPES[precision], effort)
    floor = {"gflop": round(gflop), "gflops": round(rate), "both_ms": round(1e3 * gflop / rate, 2)}
    return found | {"floor": floor}


def product_gflops(dtype: torch.dtype, effort: Effort) -> float:
    n = effort.matrix
    a, b = (torch.randn(n, n, device=DEVICE, dtype=dtype) for _ in range(2))
    a @ b
    return 2 * n**3 / median_ms(lambda: a @ b, effort.passes) / 1e6


def steps_of(
    mode: str, preset: str, engine: str, precision: str, artefacts: Path, quick: bool
) -> dict:
    """Medians of the metrics of a training, without those of its first steps."""
    settings = {"precision": precision}
    settings |= (
        QUICK_COMMON | QUICK | {"workers": 0, **QUICK_2D[mode]}
        if quick
        else COMMON | {"workers": max(1, (os.cpu_count() or 2) - 2)}
    )
    settings |= (
        {"teacher_weights": "random"} if mode == "ppkt" else {"initial_weights_2d": "random"}
    )
    with tempfile.TemporaryDirectory(prefix="pri3d-gpu-") as folder:
        words = ["pretrain", "--mode", mode, "--out", Path(folder) / "run", "--engine", engine]
        words += ["--config", ROOT / "workflow" / "presets" / f"{preset}.yaml"]
        words += ["--pairs", artefacts / "pairs.h5", "--clouds", artefacts / "clouds"]
        words += ["--chunks", artefacts / "chunks", *assigned(settings)]
        if quick:
            call_here("pri3d", *words)
        else:
            command = [sys.executable, "-m", "pri3d", *map(str, words)]
            process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            if process.returncode:
                sys.exit(f"{' '.join(command)}\n{process.stderr[-2000:]}")
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines][1:]
    rate = float(np.median([row["pairs_per_s"] for row in rows]))
    return {
        "samples_per_s": round(rate, 1),
        "ms_a_step": round(1e3 * settings["batch"] / rate, 1),
        "data_wait_share": round(float(np.median([row["data_wait_share"] for row in rows])), 4),
        "gpu_memory_mb": round(max(row.get("gpu_memory_mb", 0) for row in rows)),
        "loss": round(rows[-1]["loss"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("PRI3D_REAL_DATA", ".")) / "scans"
    parser.add_argument("--artefacts", type=Path, help="folder of pairs.h5, clouds/ and chunks/")
    parser.add_argument("--scans", type=Path, default=default, help="folder with the real scans")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--quick", action="store_true", help=QUICK_HELP)
    options = parser.parse_args()
    if options.quick:
        with tempfile.TemporaryDirectory(prefix="pri3d-gpu-") as folder:
            options.scans = make_quick_data(Path(folder), 4) / "scans"
            options.artefacts = Path(folder)
            make_quick_artefacts(options.scans, options.artefacts, radius_m=0.1, voxel_m=0.1)
            measure_all(options)
    elif DEVICE == "cpu":
        parser.exit(0, "this machine has no GPU; nothing is measured\n")
    elif options.artefacts is None:
        parser.error("--artefacts is needed, or --quick")
    else:
        measure_all(options)


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def measure_all(options: argparse.Namespace) -> None:
    points = read_ply(options.scans / "redkitchen" / "redkitchen_vh_clean_2.ply")
    cells_N3, _ = voxelize(points.points, points.color, 0.02)
    effort = Effort((300,), 1, 1, 64, QUICK_3D) if options.quick else Effort()
    result = {
        "date": date.today().isoformat(),
        "machine": machine()
        | {"gpu": torch.cuda.get_device_name() if DEVICE == "cuda" else "none"},
        "torch": torch.__version__,
        "triton": installed("triton"),
        "settings": QUICK_COMMON if options.quick else COMMON,
        "networks": {},
        "steps": {},
    }
    if options.json and options.json.exists():
        before = json.loads(options.json.read_text())
        for key in ("machine", "torch", "triton", "settings"):
            if before[key] != result[key]:
                sys.exit(
                    f"{options.json}: has {key} {before[key]}, not {result[key]}; remove the file"
                )
        result = before

    def keep(part: str, name: str, measured: dict) -> None:
        result[part][name] = measured
        print(name, json.dumps(measured), flush=True)
        write_json(options.json, result)

    cells_N3 = cells_N3.astype(np.int32)
    for voxels in effort.voxels:
        for precision in TYPES:
            name = f"{voxels}, {precision}"
            if name not in result["networks"]:
                keep("networks", name, network_passes(cells_N3, voxels, precision, effort))
    artefacts = options.artefacts.resolve()
    runs = QUICK_RUNS if options.quick else RUNS
    for mode, preset, engine, precision in runs:
        name = f"{mode}, {engine}, {precision}"
        if name not in result["steps"]:
            steps = steps_of(mode, preset, engine, precision, artefacts, options.quick)
            keep("steps", name, steps)


if __name__ == "__main__":
    main()
