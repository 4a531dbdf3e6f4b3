"""Training on a GPU: sparse convolutions by engine, and whole steps of pretraining.

    python benchmarks/gpu.py --artefacts DIR [--scans DIR] [--json FILE]

Networks: forward and backward pass of MinkUNet34C (37.9 M parameters, stem kernel 5, 96 channels
out) on voxels of 2 cm of a real surface, with coarser levels and kernel maps made anew in every
pass; engines in turns. The floor is the time of the useful operations alone at the rate of the
GPU's matrix product of that type.

Steps: `pri3d pretrain` with the presets' settings and one micro-batch a step (8 pairs, or 8 frames
of ppkt), from random weights; the rates are medians over the lines of metrics.jsonl but the first,
in which kernels are compiled.

Every figure is written as soon as it is there, and what the JSON has already is not measured again.

Needs a GPU, DIR with pairs.h5, clouds/ and chunks/ of real scans (snakemake --config
scans=<folder> 'frames={"every": 1}' -- results/pairs.h5 chunks), and in --scans
redkitchen/redkitchen_vh_clean_2.ply (default $PRI3D_REAL_DATA/scans).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from effect import assigned
from machine import machine
from sparse import CHANNELS, clouds_of, useful_gflop

from pri3d.matching.voxels import voxelize
from pri3d.models.minkunet import minkunet
from pri3d.sources.surface import read_ply
from pri3d.sparse.convolution import use_engine
from pri3d.sparse.coordinates import SparseTensor, collate

ROOT = Path(__file__).parents[1]
ENGINES = ("torch", "triton")
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


def median_ms(work) -> float:
    seconds = []
    for _ in range(PASSES):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))


def network_passes(cells_N3: np.ndarray, voxels: int, precision: str) -> dict:
    """Milliseconds and memory of both engines, and the floor."""
    torch.manual_seed(0)
    parts = [(torch.from_numpy(c), torch.rand(len(c), 3)) for c in clouds_of(cells_N3, voxels)]
    given = collate(parts).to("cuda")
    projection = torch.randn(len(given.features), CHANNELS, device="cuda")
    network = minkunet(3, CHANNELS).cuda()

    def forward():
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            return network(given.to("cuda")).features  # `to` drops the kernel maps

    def both():
        (forward().float() * projection).sum().backward()
        network.zero_grad()

    found = {engine: {"forward_ms": [], "both_ms": []} for engine in ENGINES}
    for _ in range(ROUNDS):
        for engine, times in found.items():
            use_engine(network, engine)
            both()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            times["forward_ms"].append(round(median_ms(forward), 2))
            times["both_ms"].append(round(median_ms(both), 2))
            times["peak_mb"] = round((torch.cuda.max_memory_allocated() - before) / 2**20)
    with torch.no_grad():
        use_engine(network, "torch")
        gflop = 3 * useful_gflop(network, SparseTensor(given.coordinates, given.features))
    rate = product_gflops(TYPES[precision])
    floor = {"gflop": round(gflop), "gflops": round(rate), "both_ms": round(1e3 * gflop / rate, 2)}
    return found | {"floor": floor}


def product_gflops(dtype: torch.dtype) -> float:
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
    a @ b
    return 2 * 8192**3 / median_ms(lambda: a @ b) / 1e6


def steps_of(mode: str, preset: str, engine: str, precision: str, artefacts: Path) -> dict:
    """What a training logs, but for its first steps."""
    settings = COMMON | {"precision": precision, "workers": max(1, (os.cpu_count() or 2) - 2)}
    settings |= (
        {"teacher_weights": "random"} if mode == "ppkt" else {"initial_weights_2d": "random"}
    )
    with tempfile.TemporaryDirectory(prefix="pri3d-gpu-") as folder:
        words = ["pretrain", "--mode", mode, "--out", Path(folder) / "run", "--engine", engine]
        words += ["--config", ROOT / "workflow" / "presets" / f"{preset}.yaml"]
        words += ["--pairs", artefacts / "pairs.h5", "--clouds", artefacts / "clouds"]
        words += ["--chunks", artefacts / "chunks", *assigned(settings)]
        command = [sys.executable, "-m", "pri3d", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines][1:]
    rate = float(np.median([row["pairs_per_s"] for row in rows]))
    return {
        "samples_per_s": round(rate, 1),
        "ms_a_step": round(8e3 / rate, 1),
        "data_wait_share": round(float(np.median([row["data_wait_share"] for row in rows])), 4),
        "gpu_memory_mb": round(max(row["gpu_memory_mb"] for row in rows)),
        "loss": round(rows[-1]["loss"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("PRI3D_REAL_DATA", ".")) / "scans"
    parser.add_argument("--artefacts", type=Path, required=True, help="pairs.h5, clouds, chunks")
    parser.add_argument("--scans", type=Path, default=default, help="folder with the real scans")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(0, "no GPU here; nothing measured\n")
    import triton

    points = read_ply(options.scans / "redkitchen" / "redkitchen_vh_clean_2.ply")
    cells_N3, _ = voxelize(points.points, points.color, 0.02)
    result = {
        "date": date.today().isoformat(),
        "machine": machine() | {"gpu": torch.cuda.get_device_name()},
        "torch": torch.__version__,
        "triton": triton.__version__,
        "settings": COMMON,
        "networks": {},
        "steps": {},
    }
    if options.json and options.json.exists():
        before = json.loads(options.json.read_text())
        for key in ("machine", "torch", "triton", "settings"):
            if before[key] != result[key]:
                sys.exit(f"{options.json}: has {key} {before[key]}, here {result[key]}; remove it")
        result = before

    def measure(part: str, name: str, work) -> None:
        if name not in result[part]:
            result[part][name] = work()
            print(name, json.dumps(result[part][name]), flush=True)
            if options.json:
                options.json.write_text(json.dumps(result, indent=1) + "\n")

    cells_N3 = cells_N3.astype(np.int32)
    for voxels in VOXELS:
        for precision in TYPES:
            measure(
                "networks",
                f"{voxels}, {precision}",
                lambda voxels=voxels, precision=precision: network_passes(
                    cells_N3, voxels, precision
                ),
            )
    artefacts = options.artefacts.resolve()
    for run in RUNS:
        mode, _, engine, precision = run
        measure(
            "steps", f"{mode}, {engine}, {precision}", lambda run=run: steps_of(*run, artefacts)
        )


if __name__ == "__main__":
    main()
