"""Sparse convolutions: the engine in plain torch against MinkowskiEngine; seconds and memory.

    python benchmarks/sparse.py [--scans DIR] [--json FILE] [--plot FILE] [--rounds N] [--quick]

Forward and backward pass of MinkUNet34C (37.9 M parameters, stem kernel 5, 96 output channels) in
float32 on voxels of 2 cm of a real surface: the voxels nearest to its center, in the order of
stored chunks. If the surface has too few voxels, the batch has several such clouds. Compared are:

- torch: the default engine;
- minkowski: the same network with `sparse.engine: minkowski`;
- own layers: the same network of MinkowskiEngine's own layers, tensors and coordinates.

The last two are measured only if MinkowskiEngine is installed (make minkowski). Engines take turns,
each in a process of its own; coordinates and kernel maps are computed again in every pass. Peak
memory is what the passes add to the memory of the process with network and voxels loaded. The floor
is the time that the machine's matrix product needs for the useful operations alone.

Needs a folder with redkitchen/redkitchen_vh_clean_2.ply (default $PRI3D_REAL_DATA/scans).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import date
from pathlib import Path

import numpy as np
from commands import QUICK_HELP, make_quick_data, write_json
from machine import machine

VOXELS = 50_000
THREADS = (1, 2)
GROWTH = (10_000, 20_000, 100_000)
QUICK_VOXELS = 300
PASSES = 3  # timed, after a warm-up pass
CHANNELS = 96


def clouds_of(cells_N3: np.ndarray, number: int) -> list[np.ndarray]:
    """Connected crops with `number` voxels in total."""
    distance = ((cells_N3 - np.median(cells_N3, axis=0)) ** 2).sum(axis=1)
    nearest = np.argsort(distance, kind="stable")
    parts = -(-number // len(cells_N3))
    sizes = [(number + part) // parts for part in range(parts)]
    return [cells_N3[np.sort(nearest[:size])] for size in sizes]


def own_layers():
    """MinkUNet34C of MinkowskiEngine's own layers, and its forward pass."""
    import pri3d.models.minkunet as models
    from pri3d.sparse.engine_minkowski import ME

    def layer(kind):
        return lambda n_in, n_out, size, stride=1, bias=False: kind(
            n_in, n_out, kernel_size=size, stride=stride, bias=bias, dimension=3
        )

    models.SparseConv = layer(ME.MinkowskiConvolution)
    models.SparseConvTranspose = layer(ME.MinkowskiConvolutionTranspose)
    models.SparseBatchNorm = ME.MinkowskiBatchNorm
    models.relu, models.concatenate = ME.MinkowskiFunctional.relu, ME.cat
    models.add = lambda x, y: x + y

    def forward(network, x):
        return network(ME.SparseTensor(features=x.features, coordinates=x.coordinates)).F

    return models.minkunet(3, CHANNELS), forward


def useful_gflop(network, x) -> float:
    """GFLOP of the convolutions of one forward pass; a backward pass has twice as many."""
    from pri3d.sparse.convolution import SparseConv, SparseConvTranspose
    from pri3d.sparse.kernel_map import kernel_map

    total = 0

    def count(layer, inputs, out):
        nonlocal total
        pairs = len(out.features)
        if layer.kernel.ndim == 3:
            fine = min(inputs[0].stride, out.stride)
            rows = kernel_map(out.cache, fine, layer.kernel_size, layer.stride)
            pairs = len(rows.pairs().near) + (rows.identity is not None) * rows.n_inputs
        total += 2 * pairs * layer.kernel.shape[-2] * layer.kernel.shape[-1]

    hooks = [
        layer.register_forward_hook(count)
        for layer in network.modules()
        if isinstance(layer, SparseConv | SparseConvTranspose)
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    return total / 1e9


def gemm_gflops() -> float:
    """GFLOP/s of a matrix product of the shape that most operations have."""
    import torch

    rows, weight, out = torch.randn(4096, 96), torch.randn(96, 96), torch.empty(4096, 96)
    seconds = []
    for _ in range(50):
        start = time.perf_counter()
        for _ in range(10):
            torch.mm(rows, weight, out=out)
        seconds.append(time.perf_counter() - start)
    return 10 * 2 * rows.numel() * 96 / float(np.median(seconds)) / 1e9


def measure(engine: str, threads: int, passes: int, clouds: Path) -> dict:
    """In a process of its own: seconds of each pass, and the memory that they add, in MB."""
    import torch

    from pri3d.models.minkunet import minkunet
    from pri3d.sparse.coordinates import collate

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    with np.load(clouds) as file:
        parts = [torch.from_numpy(file[name]) for name in file.files]
    parts = [(cells_N3, torch.rand(len(cells_N3), 3)) for cells_N3 in parts]
    projection = torch.randn(sum(len(cells_N3) for cells_N3, _ in parts), CHANNELS)
    if engine == "own layers":
        network, forward = own_layers()
    else:
        network = minkunet(3, CHANNELS, engine=engine)

        def forward(network, x):
            return network(x).features

    before = peak_mb()
    seconds = []
    for _ in range(1 + passes):
        start = time.perf_counter()
        out = forward(network, collate(parts))
        between = time.perf_counter()
        (out * projection).sum().backward()
        seconds.append((between - start, time.perf_counter() - between))
        del out
        network.zero_grad()
    measured = {"seconds": seconds[1:], "peak_mb": peak_mb() - before}
    if engine == "torch":
        with torch.no_grad():
            measured["gflop"] = 3 * useful_gflop(network, collate(parts))
        measured["gemm_gflops"] = gemm_gflops()
    return measured


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_own_process(engine: str, threads: int, passes: int, clouds: Path) -> dict:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads))
    words = [sys.executable, __file__, "--measure", engine, str(threads), str(passes), str(clouds)]
    child = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True)
    if child.returncode:
        sys.exit(f"{' '.join(words)} failed")
    return json.loads(child.stdout.splitlines()[-1])


def in_turns(engines: list[str], threads: int, passes: int, clouds: Path, rounds: int) -> dict:
    """Medians over all passes of all rounds, by engine."""
    found = defaultdict(list)
    for _ in range(rounds):
        for engine in engines:
            found[engine].append(in_own_process(engine, threads, passes, clouds))
    result = {}
    for engine, parts in found.items():
        seconds = [pair for part in parts for pair in part["seconds"]]
        forward, backward = np.median(seconds, axis=0)
        result[engine] = {
            "forward_s": round(forward, 3),
            "backward_s": round(backward, 3),
            "both_s": round(float(np.median(np.sum(seconds, axis=1))), 3),
            "both_s_runs": [round(sum(pair), 3) for pair in seconds],
            "peak_mb": round(max(part["peak_mb"] for part in parts)),
        }
    gflop = found["torch"][0]["gflop"]
    rate = float(np.median([part["gemm_gflops"] for part in found["torch"]]))
    result["floor"] = {
        "gflop": round(gflop, 1),
        "gemm_gflops": round(rate, 1),
        "both_s": round(gflop / rate, 3),
    }
    print(json.dumps({f"{threads} threads": result}))
    return result


def plot(growth: dict[int, dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    sizes = list(growth)
    for engine, marker in (("torch", "o"), ("minkowski", "s"), ("own layers", "^")):
        if engine in growth[sizes[0]]:
            for axis, key in zip(axes, ("both_s", "peak_mb")):
                values = [growth[size][engine][key] for size in sizes]
                axis.loglog(sizes, values, marker=marker, label=engine)
    floor = [growth[size]["floor"]["both_s"] for size in sizes]
    axes[0].loglog(sizes, floor, "k:", label="floor")
    axes[0].set(xlabel="voxels", ylabel="seconds", title="Forward and backward, 1 thread")
    axes[1].set(xlabel="voxels", ylabel="MB", title="Peak memory of the passes")
    for axis in axes:
        axis.set_xticks(sizes, [f"{size // 1000}k" for size in sizes], minor=False)
        axis.minorticks_off()
        axis.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("PRI3D_REAL_DATA", ".")) / "scans"
    parser.add_argument("--scans", type=Path, default=default, help="folder with the real scans")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--plot", type=Path, help="write the growth as a picture here")
    parser.add_argument("--rounds", type=int, default=3, help="number of processes per engine")
    parser.add_argument("--quick", action="store_true", help=QUICK_HELP)
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        engine, threads, passes, clouds = options.measure
        print(json.dumps(measure(engine, int(threads), int(passes), Path(clouds))))
        return
    with tempfile.TemporaryDirectory(prefix="pri3d-sparse-") as folder:
        if options.quick:
            options.scans = make_quick_data(Path(folder), 4) / "scans"
        surface = options.scans / "redkitchen" / "redkitchen_vh_clean_2.ply"
        if not surface.exists():
            parser.exit(0, f"{surface}: does not exist; nothing is measured\n")
        compare(surface, Path(folder), options)


def compare(surface: Path, folder: Path, options: argparse.Namespace) -> None:
    from pri3d.errors import Pri3DError
    from pri3d.matching.voxels import voxelize
    from pri3d.sources.surface import read_ply

    engines = ["torch"]
    try:
        from pri3d.sparse.engine_minkowski import ME

        engines += ["minkowski", "own layers"]
        version = ME.__version__
    except Pri3DError as error:
        version = None
        print(f"{error}; only torch is measured")

    points = read_ply(surface)
    cells_N3, _ = voxelize(points.points, points.color, 0.02)
    passes = 1 if options.quick else PASSES
    voxels = QUICK_VOXELS if options.quick else VOXELS
    rounds = 1 if options.quick else options.rounds

    def turns(number: int, threads: int, rounds: int) -> dict:
        path = folder / f"{number}.npz"
        np.savez(path, *clouds_of(cells_N3.astype(np.int32), number))
        return in_turns(engines, threads, passes, path, rounds)

    by_threads = {
        threads: turns(voxels, threads, rounds) for threads in THREADS[: 1 if options.quick else 2]
    }
    growth = {} if options.quick else {number: turns(number, 1, 1) for number in GROWTH}
    growth = dict(sorted((growth | {voxels: by_threads[1]}).items()))

    import torch

    result = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "torch": torch.__version__,
        "minkowskiengine": version,
        "voxels": voxels,
        "threads": by_threads,
        "growth": growth,
    }
    write_json(options.json, result)
    if options.plot:
        plot(growth, options.plot)


if __name__ == "__main__":
    main()
