"""Schema of the artefacts: data sets with their types and shapes, and attributes."""

from pathlib import Path

import h5py

from pri3d import store
from pri3d.artefacts import CHUNKS, CLOUDS, OVERLAP, PAIRS
from pri3d.verify.checks import wrong

# Data sets with their types and shapes. A letter is a size, the same in all data sets of a file.
_SCHEMA = {
    CLOUDS: {
        "frames/index": ("<u4", "F"),
        "frames/world_from_camera": ("<f8", "F 4 4"),
        "frames/depth": ("<u2", "F H W"),
        "frames/points": ("<u4", "F"),
        "frames/color": ("|u1", "B"),
        "frames/color_offset": ("<u8", "F+1"),
        "dropped/index": ("<u4", "D"),
        "dropped/reason": ("S", "D"),
    },
    OVERLAP: {
        "frames/index": ("<u4", "F"),
        "points": ("<u4", "F"),
        "matches": ("<u4", "F F"),
        "dropped/index": ("<u4", "D"),
        "dropped/reason": ("S", "D"),
    },
    PAIRS: {
        "scenes/name": ("S", "S"),
        "frames/scene": ("<u4", "T"),
        "frames/index": ("<u4", "T"),
        "frames/points": ("<u4", "T"),
        "pairs/a": ("<u4", "P"),
        "pairs/b": ("<u4", "P"),
        "pairs/matches_ab": ("<u4", "P"),
        "pairs/matches_ba": ("<u4", "P"),
        "pairs/overlap": ("<f4", "P"),
        "ledger/frames_in_scan": ("<u8", "S"),
        "ledger/frames_in": ("<u8", "S"),
        "ledger/kept": ("<u8", "S"),
        "ledger/reason": ("S", "R"),
        "ledger/dropped": ("<u8", "S R"),
        "ledger/pairs_tested": ("<u8", "S"),
        "ledger/pairs_kept": ("<u8", "S"),
        "ledger/pairs_drawn": ("<u8", "S"),
        "ledger/status": ("S", "S"),
    },
    CHUNKS: {
        "surface/voxel": ("<i4", "V 3"),
        "surface/color": ("|u1", "V 3"),
        "frames/index": ("<u4", "F"),
        "frames/box": ("<i4", "F 2 3"),
        "frames/offset": ("<u8", "F+1"),
        "frames/rows": ("<u4", "N"),
    },
}
# Additional data sets of a scan with frames that have no pose.
_UNPOSED = {
    "unposed/index": ("<u4", "U"),
    "unposed/depth": ("<u2", "U H W"),
    "unposed/points": ("<u4", "U"),
    "unposed/color": ("|u1", "C"),
    "unposed/color_offset": ("<u8", "U+1"),
}
_ATTRIBUTES = {
    CLOUDS: (
        "scene",
        "status",
        "frames_in_scan",
        "frames_in",
        "depth_shift",
        "depth_intrinsic",
        "color_intrinsic",
        "color_shape",
        "color_from_depth",
    ),
    OVERLAP: ("scene", "status", "frames_in_scan", "frames_in"),
    PAIRS: ("rule", "radius_m"),
    CHUNKS: ("scene", "status", "voxel_m", "surface_source", "surface_dropped"),
}


def check_schema(path: Path, format: str) -> None:
    """Check that an artefact has exactly the data sets and attributes of its format, checksummed.

    Raises:
        Pri3DError: the artefact cannot be read, or differs from the schema.
    """
    sizes: dict[str, int] = {}
    with store.open_artefact(path, format) as file:
        stored: dict[str, h5py.Dataset] = {}
        file.visititems(
            lambda name, item: stored.update({name: item}) if hasattr(item, "dtype") else None
        )
        schema = _SCHEMA[format]
        if format == CLOUDS and "unposed" in file:
            schema = schema | _UNPOSED
        for name in sorted(set(stored) ^ set(schema)):
            problem = "is not part of this format" if name in stored else "is missing"
            raise wrong(path, name, problem)
        for name, (kind, axes) in schema.items():
            data = stored[name]
            if kind not in (data.dtype.str, data.dtype.kind):
                raise wrong(path, name, f"has type {data.dtype.str}, expected {kind}")
            if not _fits(data.shape, axes.split(), sizes):
                raise wrong(path, name, f"has shape {data.shape}, expected [{axes}] with {sizes}")
            if not data.fletcher32:
                raise wrong(path, name, "has no checksum")
        for name in ("settings", "inputs", *_ATTRIBUTES[format]):
            if name not in file.attrs:
                raise wrong(path, f"attribute {name}", "is missing")


def _fits(shape: tuple[int, ...], axes: list[str], sizes: dict[str, int]) -> bool:
    """Compare a shape with the known sizes of letters, and add those that are new."""
    if len(shape) != len(axes):
        return False
    for size, axis in zip(shape, axes):
        letter, plus, more = axis.partition("+")
        size -= int(more) if plus else 0
        if size != (int(letter) if letter.isdecimal() else sizes.setdefault(letter, size)):
            return False
    return True
