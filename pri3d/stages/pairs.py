"""Stage pairs: `overlap/<scene>.h5` of all scans -> `pairs.h5`, with a ledger of every scan.

A pair is kept if its overlap is at least `min_overlap` (Pri3D, Hou et al. 2021, section 3.1: 0.3 of
the points of both frames have a match in the other frame).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pri3d import store
from pri3d.artefacts import PAIRS, Overlap
from pri3d.config import Pairs as Settings
from pri3d.errors import Pri3DError


class _Scene(NamedTuple):
    """The frames, kept pairs and ledger of one scan; a, b are positions among its own frames."""

    frame_index: np.ndarray
    points: np.ndarray
    a: np.ndarray
    b: np.ndarray
    matches_ab: np.ndarray
    matches_ba: np.ndarray
    overlap: np.ndarray
    tested: int
    frames_in_scan: int
    frames_in: int
    dropped: dict[str, int]
    status: str


def run(
    overlaps: list[Path], out: Path, settings: Settings, missing: list[str] | tuple[str, ...] = ()
) -> None:
    """Write the kept pairs of all scans, in the order of the scans' names.

    Args:
        overlaps: `overlap` artefacts, one per scan.
        out: the `pairs` artefact.
        settings: section `pairs` of the settings.
        missing: requested scans that do not exist; they are listed in the ledger.

    Raises:
        Pri3DError: no file is given, a file is missing or damaged, files have different rules or
            radii or the same scan, or a ledger does not add up.
    """
    scenes: dict[str, _Scene] = {}
    paths: dict[str, Path] = {}
    inputs: dict[str, str] = {}
    made_with = None
    for path in overlaps:
        with Overlap(path) as source:
            setting = (str(source.settings["rule"]), float(source.settings["radius_m"]))
            made_with = made_with or (path, setting)
            if setting != made_with[1]:
                raise Pri3DError(
                    f"{path}: made with rule and radius {setting}, {made_with[0]} with "
                    f"{made_with[1]}; make all overlap files with the same settings"
                )
            if source.scene in scenes:
                raise Pri3DError(
                    f"{path}: scan {source.scene} is also in {paths[source.scene]}; give it once"
                )
            scenes[source.scene] = _scene(source, settings.min_overlap)
            paths[source.scene] = path
            inputs[source.scene] = source.digest
    if made_with is None:
        raise Pri3DError(f"{out}: no overlap file is given; give those of the scans to pair")
    for name in missing:
        if name in scenes:
            raise Pri3DError(f"{paths[name]}: scan {name} is also given as missing; decide on one")
    listed = {**dict.fromkeys(missing, _empty_scene("missing")), **scenes}
    names = sorted(listed)
    _write(out, names, [listed[name] for name in names], settings, inputs, made_with[1])


def _scene(source: Overlap, min_overlap: float) -> _Scene:
    attrs = source.file.attrs
    a, b = np.triu_indices(len(source.index), 1)
    ab, ba = source.matches[a, b], source.matches[b, a]
    overlap = source.shares()[a, b]
    kept = overlap >= min_overlap
    reasons, counts = np.unique(source.file["dropped/reason"][()], return_counts=True)
    scene = _Scene(
        frame_index=source.index,
        points=source.points,
        a=a[kept],
        b=b[kept],
        matches_ab=ab[kept],
        matches_ba=ba[kept],
        overlap=_float32_from(overlap[kept], min_overlap),
        tested=len(a),
        frames_in_scan=int(attrs["frames_in_scan"]),
        frames_in=int(attrs["frames_in"]),
        dropped={reason.decode(): int(n) for reason, n in zip(reasons, counts)},
        status=str(attrs["status"]),
    )
    if scene.frames_in != len(scene.frame_index) + sum(scene.dropped.values()):
        raise Pri3DError(
            f"{source.path}: {scene.frames_in} frames came in, {len(scene.frame_index)} are kept "
            f"and {sum(scene.dropped.values())} dropped, which does not add up; make the file again"
        )
    return scene


def _empty_scene(status: str) -> _Scene:
    empty = np.zeros(0, np.uint32)
    return _Scene(
        frame_index=empty,
        points=empty,
        a=empty,
        b=empty,
        matches_ab=empty,
        matches_ba=empty,
        overlap=empty.astype(np.float32),
        tested=0,
        frames_in_scan=0,
        frames_in=0,
        dropped={},
        status=status,
    )


def _float32_from(overlap: np.ndarray, min_overlap: float) -> np.ndarray:
    """To float32, rounded up where the nearest float32 would be below the threshold.

    With a threshold of 0.7, an overlap of exactly 0.7 would otherwise be stored as 0.69999999.
    """
    rounded = overlap.astype(np.float32)
    below = rounded.astype(np.float64) < min_overlap
    rounded[below] = np.nextafter(rounded[below], np.float32(2))
    return rounded


def _write(
    out: Path,
    names: list[str],
    scenes: list[_Scene],
    settings: Settings,
    inputs: dict[str, str],
    made_with: tuple[str, float],
) -> None:
    first_row = np.cumsum([0] + [len(scene.frame_index) for scene in scenes])

    def join(field: str, dtype: type) -> np.ndarray:
        return np.concatenate([getattr(scene, field) for scene in scenes]).astype(dtype)

    def shifted(field: str) -> np.ndarray:
        """Convert positions among a scan's frames to rows of the table of all frames."""
        parts = [getattr(scene, field) + start for scene, start in zip(scenes, first_row)]
        return np.concatenate(parts).astype(np.uint32)

    pairs = {
        "a": shifted("a"),
        "b": shifted("b"),
        "matches_ab": join("matches_ab", np.uint32),
        "matches_ba": join("matches_ba", np.uint32),
        "overlap": join("overlap", np.float32),
    }
    kept = [len(scene.a) for scene in scenes]
    pair_scene = np.repeat(np.arange(len(scenes)), kept)
    total = len(pair_scene)
    if settings.max_pairs is not None and total > settings.max_pairs:
        rng = np.random.default_rng([settings.seed])
        chosen = np.sort(rng.choice(total, settings.max_pairs, replace=False, shuffle=False))
        pairs = {name: values[chosen] for name, values in pairs.items()}
        pair_scene = pair_scene[chosen]
    reasons = sorted({reason for scene in scenes for reason in scene.dropped})
    frames_per_scene = [len(scene.frame_index) for scene in scenes]
    ledger: dict[str, list[int] | np.ndarray] = {
        "frames_in_scan": [scene.frames_in_scan for scene in scenes],
        "frames_in": [scene.frames_in for scene in scenes],
        "kept": frames_per_scene,
        "pairs_tested": [scene.tested for scene in scenes],
        "pairs_kept": kept,
        "pairs_drawn": np.bincount(pair_scene, minlength=len(scenes)),
    }
    dropped = [[scene.dropped.get(reason, 0) for reason in reasons] for scene in scenes]
    with store.publish(out, PAIRS, settings.model_dump(), inputs) as writer:
        writer.attribute("rule", made_with[0])
        writer.attribute("radius_m", made_with[1])
        writer.dataset("scenes/name", _strings(names))
        scene_of_frame = np.repeat(np.arange(len(scenes)), frames_per_scene)
        writer.dataset("frames/scene", scene_of_frame.astype(np.uint32))
        writer.dataset("frames/index", join("frame_index", np.uint32))
        writer.dataset("frames/points", join("points", np.uint32))
        for name, values in pairs.items():
            writer.dataset(f"pairs/{name}", values)
        for name, counts in ledger.items():
            writer.dataset(f"ledger/{name}", np.asarray(counts, np.uint64))
        writer.dataset("ledger/reason", _strings(reasons))
        shape = (len(scenes), len(reasons))
        writer.dataset("ledger/dropped", np.array(dropped, np.uint64).reshape(shape))
        writer.dataset("ledger/status", _strings([scene.status for scene in scenes]))


def _strings(values: list[str]) -> np.ndarray:
    """Fixed-length bytes, which are checksummed."""
    encoded = [value.encode() for value in values]
    return np.array(encoded, f"S{max([1, *map(len, encoded)])}")
