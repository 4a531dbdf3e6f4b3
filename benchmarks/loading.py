"""Preparing training samples: how many a second on one core, and where the time goes.

    python benchmarks/loading.py [--scans DIR] [--json FILE] [--samples N]

Samples of mode `joint` at the paper's settings (240x320, 1,024 matches), of both real scans, in
CPU-seconds of one thread. Beside them, in the same run and on the same pairs, the published way,
written anew from its description: per sample the whole scene's vertices are loaded, cut out with
each frame's box of whole metres and voxelised (truncated, numpy); colour (JPEG) and depth (PNG) are
opened at full size and resized; all pixels and all voxels are projected, and matches drawn from
those found. Both augment colours alike. Files are in the system's cache for both.
"published_unique_rows" differs in how duplicate voxels are sought (np.unique over rows).

"anew": the same samples, with every scan opened anew for each of them, which is what a training
over many more scans than a worker keeps open comes close to.

Needs the real scans: a folder with redkitchen/ and livingroom1/ (default $PRI3D_REAL_DATA/scans).
"""

import argparse
import json
import os
import time
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import torch
from machine import machine
from PIL import Image, ImageFilter
from torchvision.transforms import v2

from pri3d import config, geometry
from pri3d.artefacts import Chunks, Clouds
from pri3d.pretrain import image_pairs, scan_cache
from pri3d.pretrain.scan_cache import Scan, ScanCache
from pri3d.sources import images
from pri3d.sources.surface import fuse, read_ply
from pri3d.stages import chunks, clouds, overlap, pairs

SETTINGS = config.Pretrain()
SHAPE = SETTINGS.height, SETTINGS.width
EVERY = {"redkitchen": 3, "livingroom1": 10}
SPENT: Counter = Counter()  # CPU-seconds by part


def timed(part: str, work):
    """The function, its time added to a part; what is inside another counts for the inner one."""

    def run(*arguments, **named):
        before, start = sum(SPENT.values()), time.process_time()
        result = work(*arguments, **named)
        inner = sum(SPENT.values()) - before
        SPENT[part] += time.process_time() - start - inner
        return result

    return run


def watch() -> None:
    """Put a clock on the parts of our samples."""
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


def prepare(scan: str, scans: Path, work: Path) -> Path:
    """Artefacts of one scan, and its frames as the published way has them: files of images."""
    folder = work / scan
    if (folder / "done").exists():
        return folder
    source = scans / scan
    mesh = source / f"{scan}_vh_clean_2.ply"
    mesh = mesh if mesh.exists() else None
    cloud, chunk = folder / f"clouds/{scan}.h5", folder / f"chunks/{scan}.h5"
    clouds.run(source / f"{scan}.sens", cloud, config.Frames(every=EVERY[scan]))
    overlap.run(cloud, folder / f"overlap/{scan}.h5", config.Overlap())
    pairs.run([folder / f"overlap/{scan}.h5"], folder / "pairs.h5", config.Pairs())
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
    """Samples in the published way.

    by_rows: duplicate voxels are sought with np.unique(axis=0), which is how one writes it first;
    otherwise by one number a voxel, which is much faster.
    """

    by_rows = False

    def __init__(self, folder: Path, scan: str, data: image_pairs.ImagePairs):
        self.folder, self.data = folder, data
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
        """Rows of the places that agree with a depth image, and their pixels."""
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
        drawn = rng.permutation(len(rows))[: SETTINGS.matches]
        return np.stack(np.divmod(rows[drawn], SHAPE[1]), 1) // 2, others[drawn] // 2

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
        drawn = rng.permutation(len(rows))[: SETTINGS.matches]
        return cells, color, pixels[drawn] // 2, rows[drawn]


MEAN, STD = (
    np.array(values, np.float32) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
)


def watch_published() -> None:
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


def measure(work, number: int) -> dict:
    """CPU-milliseconds a sample, in all and by part."""
    for index in range(3):
        work(index)
    SPENT.clear()
    start = time.process_time()
    for index in range(number):
        work(index)
    total = time.process_time() - start
    parts = {part: 1000 * spent / number for part, spent in SPENT.items()}
    parts["rest"] = 1000 * total / number - sum(parts.values())
    return {
        "ms_a_sample": 1000 * total / number,
        "samples_a_second": number / total,
        "parts_ms": {part: round(ms, 3) for part, ms in parts.items()},
    }


def one_scan(scan: str, folder: Path, number: int) -> dict:
    data = image_pairs.ImagePairs(
        folder / "pairs.h5", folder / "clouds", folder / "chunks", SETTINGS
    )
    peer = Published(folder, scan, data)

    def anew(index: int) -> None:
        data.scans.close()
        data[index]

    by_rows = Published(folder, scan, data)
    by_rows.by_rows = True
    # In turns, so that what else the machine does falls on all of them.
    ways = data.__getitem__, peer.sample, anew, by_rows.sample
    rounds = [[measure(way, number) for way in ways] for _ in range(3)]
    ours, published, opened, rows = (
        sorted(runs, key=lambda run: run["ms_a_sample"])[1] for runs in zip(*rounds)
    )
    some = data[0], peer.sample(0)
    with Chunks(folder / f"chunks/{scan}.h5") as surface:
        voxels = len(surface.voxel)
    return {
        "vertices": len(peer.scene()),
        "voxels_of_the_scan": voxels,
        "pairs": len(data.order),
        "matches": {
            "ours": [len(some[0].view[0]), *(len(c.row_N) for c in some[0].chunks)],
            "published": [len(some[1][1][0]), *(len(side[3]) for side in some[1][2])],
        },
        "voxels_of_a_chunk": {
            "ours": [len(c.voxel_V3) for c in some[0].chunks],
            "published": [len(side[0]) for side in some[1][2]],
        },
        "ours": ours,
        "anew": opened,
        "published": published,
        "published_unique_rows": rows,
        "ratio": published["ms_a_sample"] / ours["ms_a_sample"],
        "ratio_unique_rows": rows["ms_a_sample"] / ours["ms_a_sample"],
        "ratio_anew": published["ms_a_sample"] / opened["ms_a_sample"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("PRI3D_REAL_DATA", ".")) / "scans"
    parser.add_argument("--scans", type=Path, default=default, help="folder with the real scans")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--samples", type=int, default=60, help="time so many, three times")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/scratch/loading"))
    options = parser.parse_args()
    if not all((options.scans / scan / f"{scan}.sens").exists() for scan in EVERY):
        parser.exit(0, f"{options.scans}: no redkitchen and livingroom1 there; nothing measured\n")
    torch.set_num_threads(1)
    watch()
    watch_published()
    result = {"date": date.today().isoformat(), "machine": machine(), "samples": options.samples}
    for scan in EVERY:
        folder = prepare(scan, options.scans, options.work)
        result[scan] = one_scan(scan, folder, options.samples)
        print(scan, json.dumps(result[scan], indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
