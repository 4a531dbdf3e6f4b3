"""Checks of `chunks/<scene>.h5`."""

from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from pri3d.artefacts import Chunks, Clouds
from pri3d.matching.voxels import build_table, nearest_voxel
from pri3d.selection import evenly_spaced
from pri3d.verify.checks import check, check_offsets, source_of
from pri3d.verify.recount import world_points

_FRAMES = 10  # sampled frames
_PIXELS = 2000  # sampled pixels per frame


def check_chunks(path: Path, beside: Path, deep: bool) -> list[str]:
    """Check that voxels are unique and sorted, chunks complete, boxes large enough, and that pixels
    find their nearest voxels.

    Raises:
        Pri3DError: a check failed.
    """
    with Chunks(path) as chunks:
        voxel = chunks.voxel.astype(np.int64)
        if len(voxel) > 1:
            step = np.diff(voxel, axis=0)
            first = (step != 0).argmax(axis=1)[:, None]
            good = np.take_along_axis(step, first, axis=1)[:, 0] > 0
            check(path, "surface/voxel", good, "is not below the next one in x, y, z")
        offset, end = chunks.file["frames/offset"][()], len(chunks.file["frames/rows"])
        check_offsets(path, "frames/offset", offset, end)
        for frame, (low, high) in enumerate(chunks.box):
            inside = np.flatnonzero(((voxel >= low) & (voxel <= high)).all(axis=1))
            same = np.array_equal(chunks.rows(frame), inside)
            check(path, f"frames/rows of frame row {frame}", same, "are not the voxels in its box")
        passed = [
            f"{len(voxel)} voxels are unique and sorted",
            f"{len(chunks.index)} chunks hold the voxels in their boxes and no others",
        ]
        source = beside / "clouds" / f"{chunks.scene}.h5"
        clouds = source_of(Clouds, source, path, chunks.inputs)
        if clouds is None:
            return [*passed, f"boxes were not compared with depth, {source} does not exist"]
        with clouds:
            same = np.array_equal(chunks.index, clouds.index)
            check(path, "frames/index", same, "has other frames than clouds")
            return passed + _check_against_clouds(path, chunks, clouds, deep)


def _check_against_clouds(path: Path, chunks: Chunks, clouds: Clouds, deep: bool) -> list[str]:
    size = chunks.voxel_m
    table, centers = build_table(chunks.voxel), (chunks.voxel + 0.5) * size
    tree = cKDTree(centers)
    frames = evenly_spaced(len(clouds), len(clouds) if deep else _FRAMES)
    tested = matched = 0
    for frame in frames:
        points = world_points(clouds, frame)
        cells = np.floor(points / size)
        inside = (cells >= chunks.box[frame, 0]) & (cells <= chunks.box[frame, 1])
        check(path, f"frames/box row {frame}", inside.all(), "does not hold the frame's points")
        points = points[evenly_spaced(len(points), _PIXELS)]
        rows, _ = nearest_voxel(table, points, size, size)
        near = rows >= 0
        apart = np.linalg.norm(points[near] - centers[rows[near]], axis=1)
        expected, _ = tree.query(points)
        good = (apart < size).all() and np.allclose(expected[near], apart, rtol=0, atol=1e-9)
        good &= (expected[~near] > size - 1e-9).all()
        what = f"pixels do not find their nearest voxel within {size} m"
        check(path, f"surface/voxel for frame row {frame}", good, what)
        tested, matched = tested + len(points), matched + int(near.sum())
    return [
        f"the boxes of {len(frames)} frames hold all their depth points",
        f"{matched} of {tested} sampled pixels have a voxel, less than {size} m away",
    ]
