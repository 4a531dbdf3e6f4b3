"""Checks of `pairs.h5`."""

from pathlib import Path

import numpy as np

from pri3d.artefacts import Clouds, Overlap, Pairs
from pri3d.verify.checks import ascending, check, source_of
from pri3d.verify.recount import agrees, check_correspondences, recount, recount_all

_SAMPLED = 5  # pairs


def check_pairs(path: Path, beside: Path, deep: bool) -> list[str]:
    """Recompute overlaps from counts, and counts from overlap files and from the depth images.

    Raises:
        Pri3DError: a check failed.
    """
    with Pairs(path) as pairs:
        rule, radius = str(pairs.file.attrs["rule"]), float(pairs.file.attrs["radius_m"])
        _check_table(path, pairs, rule)
        _check_ledger(path, pairs)
        compared = 0
        for number, scene in enumerate(pairs.scenes):
            source = None
            if scene in pairs.inputs:
                file = beside / "overlap" / f"{scene}.h5"
                source = source_of(Overlap, file, path, pairs.inputs)
            if source is not None:
                with source:
                    _check_against_overlap(path, pairs, number, source)
                compared += 1
        return [
            f"the overlaps of {len(pairs.a)} pairs recompute and reach "
            f"{pairs.settings['min_overlap']}",
            f"the ledger of {len(pairs.scenes)} scans adds up",
            f"{compared} of {len(pairs.inputs)} overlap files exist and have the same counts",
            _check_against_clouds(path, pairs, beside, rule, radius, deep),
        ]


def _check_table(path: Path, pairs: Pairs, rule: str) -> None:
    a, b, scene = pairs.a.astype(np.int64), pairs.b.astype(np.int64), pairs.frame_scene
    check(path, "frames/scene", scene < len(pairs.scenes), "is not a scan of this file")
    order = (scene.astype(np.int64) << 32) | pairs.frame_index
    check(path, "frames/index", ascending(order), "is not in order")
    check(path, "pairs/a", (a < b) & (b < len(scene)), "is not a pair a < b of frames")
    check(path, "pairs/a", ascending((a << 32) | b), "is not in order")
    check(path, "pairs/b", scene[a] == scene[b], "is of another scan than a")
    points_a, points_b = (pairs.frame_points[rows].astype(np.float64) for rows in (a, b))
    ab, ba = pairs.matches_ab.astype(np.float64), pairs.matches_ba.astype(np.float64)
    check(path, "pairs/matches_ab", ab <= points_a, "is more than the points of a")
    check(path, "pairs/matches_ba", ba <= points_b, "is more than the points of b")
    with np.errstate(invalid="ignore"):  # 0 / 0 where frames have no points
        if rule == "official":
            share = np.fmax(ab / points_a, ba / points_b)
        else:
            share = (ab + ba) / (points_a + points_b)
    good = np.abs(pairs.overlap - np.nan_to_num(share)) <= 1.2e-7
    check(path, "pairs/overlap", good, "does not recompute from the counts")
    threshold = pairs.settings["min_overlap"]
    good = pairs.overlap.astype(np.float64) >= threshold
    check(path, "pairs/overlap", good, f"is below the threshold {threshold}")


def _check_ledger(path: Path, pairs: Pairs) -> None:
    ledger = {name: item[()] for name, item in pairs.file["ledger"].items()}
    scenes = len(pairs.scenes)
    check(path, "scenes/name", pairs.scenes == sorted(set(pairs.scenes)), "is not in order")
    frames_kept = np.bincount(pairs.frame_scene, minlength=scenes)
    stored = np.bincount(pairs.frame_scene[pairs.a], minlength=scenes)
    frames = ledger["kept"] + ledger["dropped"].sum(axis=1, dtype=np.uint64)
    tested = frames_kept * (frames_kept - 1) // 2
    kept = ledger["pairs_kept"].astype(np.int64)
    check(path, "ledger/frames_in", ledger["frames_in"] == frames, "is not kept + dropped")
    check(path, "ledger/kept", ledger["kept"] == frames_kept, "is not the number of its frames")
    check(path, "ledger/pairs_tested", ledger["pairs_tested"] == tested, "is not n (n - 1) / 2")
    check(path, "ledger/pairs_kept", (stored <= kept) & (kept <= tested), "is not possible")
    check(path, "ledger/pairs_drawn", ledger["pairs_drawn"] == stored, "is not its number of pairs")
    max_pairs = pairs.settings["max_pairs"]
    expected = kept.sum() if max_pairs is None else min(kept.sum(), max_pairs)
    check(path, "pairs/a", len(pairs.a) == expected, f"has {len(pairs.a)} rows, not {expected}")


def _rows(pairs: Pairs, number: int) -> tuple[slice, slice]:
    """Rows of the frames and pairs of a scan; both tables are in the order of the scans."""
    frames = slice(*np.searchsorted(pairs.frame_scene, [number, number + 1]))
    return frames, slice(*np.searchsorted(pairs.a, [frames.start, frames.stop]))


def _check_against_overlap(path: Path, pairs: Pairs, number: int, source: Overlap) -> None:
    frames, rows = _rows(pairs, number)
    name = source.scene
    same = np.array_equal(pairs.frame_index[frames], source.index)
    check(path, f"frames/index of {name}", same, f"differs from {source.path}")
    same = np.array_equal(pairs.frame_points[frames], source.points)
    check(path, f"frames/points of {name}", same, f"differs from {source.path}")
    a, b = pairs.a[rows] - frames.start, pairs.b[rows] - frames.start
    for column, counts, expected in (
        ("pairs/matches_ab", pairs.matches_ab, source.matches[a, b]),
        ("pairs/matches_ba", pairs.matches_ba, source.matches[b, a]),
    ):
        good = np.ones(len(counts), bool)
        good[rows] = counts[rows] == expected
        check(path, column, good, f"differs from {source.path}")


def _check_against_clouds(
    path: Path, pairs: Pairs, beside: Path, rule: str, radius: float, deep: bool
) -> str:
    """Recompute counts and correspondences of kept pairs from the depth images."""
    files = [beside / "clouds" / f"{scene}.h5" for scene in pairs.scenes]
    exists = np.array([file.exists() for file in files], bool)
    scene_of_pair = pairs.frame_scene[pairs.a]
    chosen = np.flatnonzero(exists[scene_of_pair])
    if not deep:
        chosen = np.sort(np.random.default_rng(0).permutation(chosen)[:_SAMPLED])
    sampled = 0
    for number in np.unique(scene_of_pair[chosen]):
        frames, rows = _rows(pairs, number)
        with Clouds(files[number]) as clouds:
            same = np.array_equal(pairs.frame_index[frames], clouds.index)
            check(path, f"frames/index of {clouds.scene}", same, f"differs from {files[number]}")
            matches = recount_all(clouds, rule, radius) if deep else None
            for row in chosen[(chosen >= rows.start) & (chosen < rows.stop)]:
                a, b = pairs.a[row] - frames.start, pairs.b[row] - frames.start
                for name, count, i, j in (
                    ("matches_ab", pairs.matches_ab[row], a, b),
                    ("matches_ba", pairs.matches_ba[row], b, a),
                ):
                    if matches is None:
                        expected = recount(clouds, i, j, rule, radius)
                    else:
                        expected = matches[i, j]
                    what = f"is {count}, the depth images give {expected}"
                    check(path, f"pairs/{name} row {row}", agrees(count, expected), what)
                sampled += check_correspondences(path, f"pairs/a row {row}", clouds, a, b, radius)
    return (
        f"{len(chosen)} {'' if deep else 'sampled '}pairs recount from the depth images, and "
        f"{sampled} sampled correspondences are less than {radius} m apart"
    )
