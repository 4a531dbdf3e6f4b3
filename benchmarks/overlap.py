"""Exact all-pairs overlap: checked point by point, and timed against its peers.

    python benchmarks/overlap.py [--scans DIR] [--json FILE] [--plot FILE] [--sample N] [--quick]

Peers, in the same run, on the same frames (640x480), in CPU-seconds of one thread:

- scipy's cKDTree with the same exact counts: one tree per frame, reused for all others, queries
  bounded by the radius (its fastest form); and the same with one tree per directed pair;
- the published approach with voxels of 2 cm: for each pair, open3d thins both clouds, and a Python
  loop does one radius search (1.5 voxels) per point. It is not exact: it counts thinned points.

Needs the real scans: a folder with redkitchen/ and livingroom1/ (default
$PRI3D_REAL_DATA/scans). `--sample N` times the peers on N random directed pairs and extrapolates;
without it they count all pairs, which takes about ten minutes.
"""

import argparse
import json
import os
import tempfile
import time
from datetime import date
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import open3d
from commands import QUICK_HELP, make_quick_data, write_json
from machine import machine
from scipy.spatial import cKDTree

from pri3d import config
from pri3d.artefacts import Clouds
from pri3d.geometry import View, pixel_rays, transform, unproject
from pri3d.matching.overlap import count_matches
from pri3d.stages import clouds

RADIUS = 0.02
RUNS = 3


def cpu(work, *arguments):
    """CPU-seconds of this process, and the result."""
    start = time.process_time()
    result = work(*arguments)
    return time.process_time() - start, result


def load(sens: Path, every: int, folder: Path) -> list[View]:
    path = folder / f"{sens.stem}_{every}.h5"
    if not path.exists():
        clouds.run(sens, path, config.Frames(every=every))
    with Clouds(path) as source:
        return [source.view(row) for row in range(len(source))]


def world_points(view: View) -> np.ndarray:
    points, valid = unproject(view.depth, view.K)
    return transform(view.world_from_camera, points[valid])


def directed_pairs(frames: int) -> np.ndarray:
    return np.argwhere(~np.eye(frames, dtype=bool))


def exactness(views: list[View], pairs: int, seed: int) -> dict:
    matches = count_matches(views, RADIUS).astype(np.int64)
    chosen = np.random.default_rng(seed).permutation(directed_pairs(len(views)))[:pairs]
    points = {i: world_points(views[i]) for i in set(chosen.ravel().tolist())}
    trees = {j: cKDTree(points[j]) for j in set(chosen[:, 1].tolist())}
    differences, excess = [], []
    for i, j in chosen:
        distance, _ = trees[j].query(points[i], distance_upper_bound=2 * RADIUS)
        expected = int((distance < RADIUS).sum())
        differences.append(abs(int(matches[i, j]) - expected))
        excess.append(differences[-1] > max(2, 1e-4 * expected))
    return {
        "directed_pairs": len(chosen),
        "largest_difference": max(differences),
        "outside_tolerance": int(sum(excess)),
    }


def by_tree(views: list[View], pairs: np.ndarray) -> dict:
    points = [world_points(view) for view in views]
    build, trees = cpu(lambda: [cKDTree(p) for p in points])

    def count():
        total = 0
        for i, j in pairs:
            distance, _ = trees[j].query(points[i], distance_upper_bound=RADIUS)
            total += int((distance < RADIUS).sum())
        return total

    query, total = cpu(count)
    return {"build": build / len(views), "query": query / len(pairs), "matches": total}


def by_loop(views: list[View], pairs: np.ndarray) -> dict:
    """The published method, pair by pair: thin both clouds, build a tree, search at each point."""
    clouds = [
        open3d.geometry.PointCloud(open3d.utility.Vector3dVector(world_points(view)))
        for view in views
    ]

    def count():
        for i, j in pairs:
            source, target = (clouds[k].voxel_down_sample(RADIUS) for k in (i, j))
            tree = open3d.geometry.KDTreeFlann(target)
            matched = []
            for row, point in enumerate(source.points):
                _, neighbors, _ = tree.search_radius_vector_3d(point, 1.5 * RADIUS)
                matched.extend((row, other) for other in neighbors[:1])

    query, _ = cpu(count)
    return {"query": query / len(pairs)}


def corridor(frames: int) -> list[View]:
    """A corridor 2.4 m wide, walked at 0.5 m per frame: few frames see the same wall."""
    K = np.array([[577.0, 0, 319.5], [0, 577, 239.5], [0, 0, 1]])
    turn = np.radians(35)
    pose = np.eye(4)
    pose[:3, :3] = [
        [np.cos(turn), 0, np.sin(turn)],
        [0, 1, 0],
        [-np.sin(turn), 0, np.cos(turn)],
    ]
    rays = pixel_rays((480, 640), K) @ pose[:3, :3].T
    with np.errstate(divide="ignore"):
        walls = np.where(rays[..., 0] > 0, 1.2, -1.2) / rays[..., 0]
        floor = np.where(rays[..., 1] > 0, 1.3, -1.1) / rays[..., 1]
    depth = np.minimum(walls, floor)
    depth = np.where(depth < 5, np.round(depth, 3), 0)  # range and resolution of a sensor
    views = []
    for frame in range(frames):
        moved = pose.copy()
        moved[2, 3] = 0.5 * frame
        views.append(View(depth, K, moved))
    return views


def growth(dense: list[View], long: list[View], sizes: tuple[int, ...]) -> list[dict]:
    """Time by number of frames: of a room in which most frames overlap, and of a corridor."""
    rows = []
    for name, views in (("dense room", dense), ("long corridor", long)):
        for frames in sizes:
            step = 1 if name == "long corridor" else sizes[-1] // frames
            chosen = views[::step][:frames]
            tests = sum(int((v.depth > 0).sum()) for v in chosen) * (frames - 1)
            row = {"scene": name, "frames": frames, "tests": tests}
            for threads in (1, 2):
                wall = time.perf_counter()
                seconds, matches = cpu(count_matches, chosen, RADIUS, threads)
                row[f"wall_s_{threads}_threads"] = time.perf_counter() - wall
                row[f"cpu_s_{threads}_threads"] = seconds
            row["ns_a_test"] = row["cpu_s_1_threads"] / tests * 1e9
            row["matched_share"] = float(matches.sum(dtype=np.int64) / tests)
            rows.append(row)
            print(json.dumps(row))
    return rows


def plot(rows: list[dict], path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, marker in (("dense room", "o"), ("long corridor", "s")):
        part = [row for row in rows if row["scene"] == name]
        frames = [row["frames"] for row in part]
        axes[0].loglog(frames, [row["cpu_s_1_threads"] for row in part], marker=marker, label=name)
        axes[1].semilogx(frames, [row["ns_a_test"] for row in part], marker=marker, label=name)
    axes[0].loglog([10, 80], [0.2, 0.2 * 64], "k:", label="frames squared")
    axes[0].set(xlabel="frames", ylabel="CPU-seconds, one thread", title="All pairs")
    axes[1].set(xlabel="frames", ylabel="ns per (point, frame) test", title="Time per test")
    axes[1].set_ylim(bottom=0)
    for axis in axes:
        axis.set_xticks([10, 20, 40, 80], ["10", "20", "40", "80"], minor=False)
        axis.minorticks_off()
        axis.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("PRI3D_REAL_DATA", ".")) / "scans"
    parser.add_argument("--scans", type=Path, default=default, help="folder with the real scans")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--plot", type=Path, help="write the growth as a picture here")
    parser.add_argument("--sample", type=int, help="time the peers on N directed pairs")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/scratch"))
    parser.add_argument("--quick", action="store_true", help=QUICK_HELP)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pri3d-overlap-") as folder:
        if options.quick:
            options.scans = make_quick_data(Path(folder), 8) / "scans"
            options.work, options.sample = Path(folder), 2
        measure(parser, options)


def measure(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    kitchen = options.scans / "redkitchen" / "redkitchen.sens"
    living = options.scans / "livingroom1" / "livingroom1.sens"
    if not kitchen.exists() or not living.exists():
        parser.exit(0, f"{options.scans}: has no redkitchen and livingroom1; nothing is measured\n")
    options.work.mkdir(parents=True, exist_ok=True)

    runs = 1 if options.quick else RUNS
    views = load(kitchen, 3, options.work)
    count_matches(views[:2], RADIUS)  # compiles, or reads numba's cache
    all_pairs = directed_pairs(len(views))
    pairs = np.random.default_rng(0).permutation(all_pairs)[: options.sample or len(all_pairs)]
    ours = [cpu(count_matches, views, RADIUS) for _ in range(runs)]
    tree = by_tree(views, pairs)
    ours += [cpu(count_matches, views, RADIUS) for _ in range(runs)]
    loop = by_loop(views, pairs)
    ours += [cpu(count_matches, views, RADIUS) for _ in range(runs)]
    seconds = float(np.median([s for s, _ in ours]))
    frames, number = len(views), len(all_pairs)
    peers = {
        "cKDTree, one tree per frame": tree["build"] * frames + tree["query"] * number,
        "cKDTree, one tree per directed pair": (tree["build"] + tree["query"]) * number,
        "published method, open3d, one radius search per point, 2 cm voxels": loop["query"]
        * number,
    }
    result = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "frames": frames,
        "directed_pairs": number,
        "pairs_timed_of_peers": len(pairs),
        "cpu_s": seconds,
        "cpu_s_runs": [round(s, 3) for s, _ in ours],
        "same_total_as_tree": bool(tree["matches"] == sum(int(ours[0][1][i, j]) for i, j in pairs)),
        "peers_cpu_s": peers,
        "ratios": {name: value / seconds for name, value in peers.items()},
    }
    print(json.dumps(result, indent=1))
    checked, every = (2, 4) if options.quick else (60, 10)
    result["exactness"] = {
        "redkitchen": exactness(views, checked, seed=1),
        "livingroom1": exactness(load(living, every, options.work), checked, seed=2),
    }
    print(json.dumps(result["exactness"]))
    sizes = (2,) if options.quick else (10, 20, 40, 80)
    result["growth"] = growth(load(kitchen, 1, options.work), corridor(sizes[-1]), sizes)
    write_json(options.json, result)
    if options.plot:
        plot(result["growth"], options.plot)


if __name__ == "__main__":
    main()
