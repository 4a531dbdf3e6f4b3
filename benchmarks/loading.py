"""Preparing training samples: samples per second on one core, and time by part.

    python benchmarks/loading.py [--scans DIR] [--json FILE] [--samples N] [--quick]

Samples of mode `joint` with the paper's settings (240x320, 1,024 matches), of both real scans, in
CPU-seconds of one thread. The peer, in the same run and on the same pairs, is the published method,
reimplemented from its description: for each sample, the vertices of the whole scene are loaded,
cropped with each frame's box of whole meters and voxelized (truncated, numpy); color images (JPEG)
and depth images (PNG) are opened at full size and resized; all pixels and all voxels are projected,
and matches are sampled from the result. Color augmentation is the same. Files are in the page cache
for both. "published_unique_rows" removes duplicate voxels with np.unique over rows.

"reopened": the same samples, with every scan opened again for each sample. This is close to a
training with many more scans than a worker keeps open.

Needs the real scans: a folder with redkitchen/ and livingroom1/ (default $PRI3D_REAL_DATA/scans).
"""

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch
from commands import QUICK_HELP, make_quick_data, write_json
from machine import machine
from PIL import Image, ImageFilter
from torchvision.transforms import v2

from pri3d import config, geometry
from pri3d.artefacts import Chunks, Clouds
from pri3d.pretrain import image_pairs, scan_cache
from pri3d.pretrain.image_pairs import ImagePairs
from pri3d.pretrain.scan_cache import Scan, ScanCache
from pri3d.sources import images
from pri3d.sources.surface import fuse, read_ply
from pri3d.stages import chunks, clouds, overlap, pairs

SETTINGS = config.Pretrain()
SHAPE = SETTINGS.height, SETTINGS.width
EVERY = {"redkitchen": 3, "livingroom1": 10}
CPU_SECONDS: Counter[str] = Counter()  # by part


def timed(part: str, function: Callable) -> Callable:
    """The function with its CPU time added to a part. Nested timed functions count separately."""

    def run(*arguments, **named):
        before, start = sum(CPU_SECONDS.values()), time.process_time()
        result = function(*arguments, **named)
        inner = sum(CPU_SECONDS.values()) - before
        CPU_SECONDS[part] += time.process_time() - start - inner
        return result

    return run


def time_parts() -> None:
    """Time the parts of our samples."""
    for owner, name, part in [
        (scan_cache, "decode_color", "decode"),
        (image_pairs, "crop_image", "decode"),
        (image_pairs, "augment", "augment"),
        (image_pairs, "normalize", "augment"),
        (image_pairs, "view_matches", "match"),
        (image_pairs, "geo_matches", "voxel look-up"),
        (ScanCache, "__getitem__", "open"),
        (Scan, "chunk_of", "read"),
        (Clouds, "color_jpeg", "read"),
        (Clouds, "view", "read"),
    ]:
        setattr(owner, name, timed(part, getattr(owner, name)))


def prepare(scan: str, scans: Path, work: Path, quick: bool) -> Path:
    """Make the artefacts of one scan, and image files of its frames for the published method."""
    folder = work / scan
    if (folder / "done").exists():
        return folder
    source = scans / scan
    mesh = source / f"{scan}_vh_clean_2.ply"
    mesh = mesh if mesh.exists() else None
    cloud, chunk = folder / f"clouds/{scan}.h5", folder / f"chunks/{scan}.h5"
    every, radius_m, min_overlap = (1, 0.1, 0.1) if quick else (EVERY[scan], 0.02, 0.3)
    clouds.run(source / f"{scan}.sens", cloud, config.Frames(every=every))
    overlap.run(cloud, folder / f"overlap/{scan}.h5", config.Overlap(radius_m=radius_m))
    rule = config.Pairs(min_overlap=min_overlap)
    pairs.run([folder / f"overlap/{scan}.h5"], folder / "pairs.h5", rule)
    chunks.run(cloud, chunk, config.Chunks(), mesh)
    with Clouds(cloud) as opened:
        surface = read_ply(mesh) if mesh else fuse(opened, config.Chunks().voxel_m)
        np.save(folder / "scene.npy", np.hstack([surface.points, surface.color]).astype("f4"))
        for row, number in enumerate(opened.index):
            (folder / f"{number}.jpg").write_bytes(opened.color_jpeg(row))
            depth = np.round(opened.depth(row) * 1000).astype(np.uint16)
            (folder / f"{number}.png").write_bytes(images.encode_png(depth))
    (folder / "done").touch()
    return folder


class Published:
    """Samples by the published method.

    by_rows: remove duplicate voxels with np.unique(axis=0), the obvious way. Otherwise each voxel
    gets one number, which is much faster.
    """

    def __init__(self, folder: Path, scan: str, data: ImagePairs, by_rows: bool = False):
        self.folder, self.data, self.by_rows = folder, data, by_rows
        with Clouds(folder / f"clouds/{scan}.h5") as opened:
            self.K = geometry.scale_intrinsics(opened.K, opened.shape, SHAPE)
            self.pose = dict(zip(opened.index.tolist(), opened.world_from_camera))
        self.jitter = v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8)
        self.grey = v2.RandomGrayscale(0.2)

    def sample(self, index: int):
        frames = self.data.order.item(index % len(self.data.order)).frames
        rng = np.random.default_rng(index)
        colors = [self.color(frame, rng) for frame in frames]
        depths = [self.depth(frame) for frame in frames]
        poses = [self.pose[frame] for frame in frames]
        view = self.pixels(depths, poses, rng)
        scene = self.scene()
        sides = [self.voxels(scene, d, pose, rng) for d, pose in zip(depths, poses)]
        return colors, view, sides

    def color(self, frame: int, rng) -> torch.Tensor:
        return self.augmented(self.opened(frame), rng)

    def opened(self, frame: int) -> Image.Image:
        with Image.open(self.folder / f"{frame}.jpg") as image:
            return image.resize(SHAPE[::-1], Image.Resampling.BILINEAR)

    def augmented(self, image: Image.Image, rng) -> torch.Tensor:
        image = self.grey(self.jitter(image))
        if rng.random() < 0.5:
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2)))
        image_HWC = (np.asarray(image, np.float32) / 255 - MEAN) / STD
        return torch.from_numpy(image_HWC.transpose(2, 0, 1).copy())

    def depth(self, frame: int) -> np.ndarray:
        with Image.open(self.folder / f"{frame}.png") as image:
            small = image.resize(SHAPE[::-1], Image.Resampling.NEAREST)
        return np.asarray(small).astype(np.float32) / 1000

    def scene(self) -> np.ndarray:
        return np.load(self.folder / "scene.npy")

    def world(self, depth: np.ndarray, pose: np.ndarray) -> np.ndarray:
        v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
        x, y = (u - self.K[0, 2]) / self.K[0, 0] * depth, (v - self.K[1, 2]) / self.K[1, 1] * depth
        points = np.stack([x, y, depth], -1).reshape(-1, 3)
        return points @ pose[:3, :3].T + pose[:3, 3]

    def projected(self, world: np.ndarray, depth: np.ndarray, pose: np.ndarray, threshold: float):
        """Rows of the points that agree with a depth image, and their pixels."""
        inverse = np.linalg.inv(pose)
        x, y, z = (world @ inverse[:3, :3].T + inverse[:3, 3]).T
        with np.errstate(all="ignore"):
            u, v = x / z * self.K[0, 0] + self.K[0, 2], y / z * self.K[1, 1] + self.K[1, 2]
        inside = (u > -1) & (u < SHAPE[1]) & (v > -1) & (v < SHAPE[0])
        rows = np.flatnonzero(inside)
        u, v = u[rows].astype(np.int64), v[rows].astype(np.int64)
        near = np.abs(z[rows] - depth[v, u]) < threshold
        return rows[near], np.stack([v[near], u[near]], 1)

    def pixels(self, depths, poses, rng):
        rows, others = self.projected(self.world(depths[0], poses[0]), depths[1], poses[1], 0.05)
        chosen = rng.permutation(len(rows))[: SETTINGS.matches]
        return np.stack(np.divmod(rows[chosen], SHAPE[1]), 1) // 2, others[chosen] // 2

    def chunk(self, scene: np.ndarray, depth: np.ndarray, pose: np.ndarray):
        world = self.world(depth, pose)
        low, high = np.floor(world.min(axis=0)), np.ceil(world.max(axis=0))
        inside = ((scene[:, :3] > low) & (scene[:, :3] < high)).all(axis=1)
        points, color = scene[inside, :3], scene[inside, 3:]
        cells = (points / 0.02).astype(np.int64)  # toward zero
        if self.by_rows:
            _, first = np.unique(cells, axis=0, return_index=True)
            return cells[first], color[first]
        x, y, z = (cells - cells.min(axis=0)).T
        keys = (x * (y.max() + 1) + y) * (z.max() + 1) + z
        _, first = np.unique(keys, return_index=True)
        return cells[first], color[first]

    def voxels(self, scene, depth, pose, rng):
        cells, color = self.chunk(scene, depth, pose)
        rows, pixels = self.projected(cells * 0.02, depth, pose, 0.2)
        chosen = rng.permutation(len(rows))[: SETTINGS.matches]
        return cells, color, pixels[chosen] // 2, rows[chosen]


MEAN, STD = (
    np.array(values, np.float32) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
)


def time_published_parts() -> None:
    for name, part in [
        ("opened", "decode"),
        ("depth", "read"),
        ("scene", "read"),
        ("augmented", "augment"),
        ("pixels", "match"),
        ("chunk", "voxelize"),
        ("voxels", "voxel look-up"),
    ]:
        setattr(Published, name, timed(part, getattr(Published, name)))


def measure(sample: Callable[[int], object], number: int) -> dict:
    """CPU-milliseconds per sample, in total and by part."""
    for index in range(min(3, number)):
        sample(index)
    CPU_SECONDS.clear()
    start = time.process_time()
    for index in range(number):
        sample(index)
    total = time.process_time() - start
    parts = {part: 1000 * seconds / number for part, seconds in CPU_SECONDS.items()}
    parts["rest"] = 1000 * total / number - sum(parts.values())
    return {
        "ms_a_sample": 1000 * total / number,
        "samples_a_second": number / total,
        "parts_ms": {part: round(ms, 3) for part, ms in parts.items()},
    }


def one_scan(scan: str, folder: Path, number: int, rounds: int) -> dict:
    data = ImagePairs(folder / "pairs.h5", folder / "clouds", folder / "chunks", SETTINGS)
    peer = Published(folder, scan, data)

    def reopened(index: int) -> None:
        data.scans.close()
        data[index]

    by_rows = Published(folder, scan, data, by_rows=True)
    # In turns, so that other work of the machine affects all of them.
    methods = data.__getitem__, peer.sample, reopened, by_rows.sample
    measured = [[measure(method, number) for method in methods] for _ in range(rounds)]
    ours, published, opened, rows = (
        sorted(runs, key=lambda run: run["ms_a_sample"])[rounds // 2] for runs in zip(*measured)
    )
    sample, (_, published_view, published_sides) = data[0], peer.sample(0)
    seen = [chunk for chunk in sample.chunks if chunk is not None]
    view = 0 if sample.view is None else len(sample.view[0])
    with Chunks(folder / f"chunks/{scan}.h5") as surface:
        voxels = len(surface.voxel)
    return {
        "vertices": len(peer.scene()),
        "voxels_of_the_scan": voxels,
        "pairs": len(data.order),
        "matches": {
            "ours": [view, *(len(chunk.row_N) for chunk in seen)],
            "published": [len(published_view[0]), *(len(side[3]) for side in published_sides)],
        },
        "voxels_of_a_chunk": {
            "ours": [len(chunk.voxel_V3) for chunk in seen],
            "published": [len(side[0]) for side in published_sides],
        },
        "ours": ours,
        "reopened": opened,
        "published": published,
        "published_unique_rows": rows,
        "ratio": published["ms_a_sample"] / ours["ms_a_sample"],
        "ratio_unique_rows": rows["ms_a_sample"] / ours["ms_a_sample"],
        "ratio_reopened": published["ms_a_sample"] / opened["ms_a_sample"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("PRI3D_REAL_DATA", ".")) / "scans"
    parser.add_argument("--scans", type=Path, default=default, help="folder with the real scans")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--samples", type=int, default=60, help="samples to time, three times")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/scratch/loading"))
    parser.add_argument("--quick", action="store_true", help=QUICK_HELP)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="pri3d-loading-") as folder:
        if options.quick:
            options.scans = make_quick_data(Path(folder), 4) / "scans"
            options.work, options.samples = Path(folder), 2
        elif not all((options.scans / scan / f"{scan}.sens").exists() for scan in EVERY):
            parser.exit(
                0, f"{options.scans}: has no redkitchen and livingroom1; nothing is measured\n"
            )
        time_parts()
        time_published_parts()
        result = {
            "date": date.today().isoformat(),
            "machine": machine(),
            "samples": options.samples,
        }
        for scan in EVERY:
            prepared = prepare(scan, options.scans, options.work, options.quick)
            result[scan] = one_scan(scan, prepared, options.samples, 1 if options.quick else 3)
            print(scan, json.dumps(result[scan], indent=1))
    write_json(options.json, result)


if __name__ == "__main__":
    main()
