"""A second, independent writer of `.sens` files for tests: plain struct, no code of the project."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

COLOR_SHAPE, DEPTH_SHAPE = (24, 32), (12, 16)
K_COLOR = ((30, 0, 15.5, 0), (0, 31, 11.5, 0), (0, 0, 1, 0), (0, 0, 0, 1))
K_DEPTH = ((15, 0, 7.25, 0), (0, 16, 5.5, 0), (0, 0, 1, 0), (0, 0, 0, 1))
EYE = np.eye(4)

# name -> (format, value), in the order of the file
DEFAULTS = {
    "version": ("<I", 4),
    "name_bytes": ("<Q", None),
    "name": ("{}s", b"test"),
    "color_intrinsic": ("<16f", K_COLOR),
    "color_extrinsic": ("<16f", EYE),
    "depth_intrinsic": ("<16f", K_DEPTH),
    "depth_extrinsic": ("<16f", EYE),
    "color_compression": ("<i", 2),
    "depth_compression": ("<i", 1),
    "color_width": ("<I", COLOR_SHAPE[1]),
    "color_height": ("<I", COLOR_SHAPE[0]),
    "depth_width": ("<I", DEPTH_SHAPE[1]),
    "depth_height": ("<I", DEPTH_SHAPE[0]),
    "depth_shift": ("<f", 1000.0),
    "frames": ("<Q", None),
}


def header(frames: int, **changed) -> bytes:
    """The header's bytes; any field can be given another value."""
    values = {name: value for name, (_, value) in DEFAULTS.items()} | {"frames": frames} | changed
    if values["name_bytes"] is None:
        values["name_bytes"] = len(values["name"])
    parts = []
    for name, (form, _) in DEFAULTS.items():
        value = values[name]
        if name == "name":
            parts.append(value)
        elif form == "<16f":
            parts.append(struct.pack(form, *np.ravel(value)))
        else:
            parts.append(struct.pack(form, value))
    return b"".join(parts)


def field_offsets(name_bytes: int = 4) -> dict[str, tuple[int, str]]:
    """Where each fixed header field lies, with the struct format of it."""
    fields, offset = {}, 0
    for name, (form, _) in DEFAULTS.items():
        if name == "name":
            offset += name_bytes
            continue
        fields[name] = (offset, form)
        offset += struct.calcsize(form)
    return fields


def frame(pose=EYE, color=b"", depth=b"", times=(0, 0), sizes=None) -> bytes:
    """One frame's bytes; sizes: what its header says of its payloads."""
    sizes = sizes or (len(color), len(depth))
    return struct.pack("<16f4Q", *np.ravel(pose), *times, *sizes) + color + depth


def tail(records: bytes = b"") -> bytes:
    return struct.pack("<Q", len(records) // 128) + records


def rgb(seed: int = 0, shape=COLOR_SHAPE) -> np.ndarray:
    """A smooth picture, so that JPEG keeps it well."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    waves = [np.sin(rows / 5 + seed), np.cos(columns / 7 - seed), np.sin((rows + columns) / 9)]
    return (np.stack(waves, -1) * 100 + 128).astype(np.uint8)


def depth_mm(seed: int = 0, shape=DEPTH_SHAPE) -> np.ndarray:
    """u16 depth with a few holes."""
    rng = np.random.default_rng(seed)
    depth = rng.integers(400, 5000, shape).astype(np.uint16)
    depth[rng.random(shape) < 0.1] = 0
    return depth


def jpeg(image: np.ndarray) -> bytes:
    return _pillow(image, "JPEG", quality=90)


def png(image: np.ndarray) -> bytes:
    return _pillow(image, "PNG")


def _pillow(image: np.ndarray, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format, **options)
    return buffer.getvalue()


def zlib_depth(depth: np.ndarray) -> bytes:
    return zlib.compress(depth.astype("<u2").tobytes())


def good_frame(seed: int = 0, pose=EYE) -> bytes:
    return frame(pose, jpeg(rgb(seed)), zlib_depth(depth_mm(seed)))


def good_file(frames: int = 3) -> bytes:
    """A whole file with JPEG color and zlib depth."""
    return header(frames) + b"".join(good_frame(seed) for seed in range(frames)) + tail()
