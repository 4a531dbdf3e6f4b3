"""The header of a `.sens` file: its fields, their valid values, and its bytes.

Little-endian and packed: u32 version; u64 length and bytes of the sensor's name; f32[4, 4] color
intrinsic and extrinsic, depth intrinsic and extrinsic; i32 color and depth compression; u32 color
width, height, depth width, height; f32 depth shift; u64 number of frames.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pri3d import geometry
from pri3d.errors import Pri3DError

COLOR_TYPES = {"unknown": -1, "raw": 0, "png": 1, "jpeg": 2}
DEPTH_TYPES = {"unknown": -1, "raw": 0, "zlib": 1, "occi": 2}
# Those that can be decoded. "occi" is a vendor's codec without a published decoder.
READABLE = {"raw", "png", "jpeg", "zlib"}

# A file that claims more counts as damaged: two and a half hours at 30 Hz, and an image somewhat
# larger than an 8K video frame.
MAX_FRAMES = 1 << 18
MAX_SIDE = 1 << 14
MAX_PIXELS = 1 << 25
MAX_NAME_BYTES = 1 << 16

_START = struct.Struct("<IQ")
_FIXED = struct.Struct("<64f ii IIII f Q")
MAX_HEADER_BYTES = _START.size + MAX_NAME_BYTES + _FIXED.size
COUNT_BYTES = 8  # the number of frames ends the header

MATRICES = ("color_intrinsic", "color_extrinsic", "depth_intrinsic", "depth_extrinsic")


def _identity() -> np.ndarray:
    return np.eye(4, dtype=np.float32)


@dataclass
class SensHeader:
    """The properties that all frames of a `.sens` file share.

    Attributes:
        color_shape, depth_shape: (height, width) in pixels.
        color_intrinsic, depth_intrinsic: float32 [4, 4].
        color_extrinsic, depth_extrinsic: float32 [4, 4], from this camera to the frame common to
            both cameras; normally identity. Poses are taken as poses of the depth camera.
        color_compression: "raw", "png" or "jpeg".
        depth_compression: "raw" or "zlib".
        depth_shift: meters are stored depth divided by this.
        sensor: name; bytes that are not UTF-8 are kept as surrogate escapes.
        version: 3 or 4.
    """

    color_shape: tuple[int, int]
    depth_shape: tuple[int, int]
    color_intrinsic: np.ndarray
    depth_intrinsic: np.ndarray
    color_extrinsic: np.ndarray = field(default_factory=_identity)
    depth_extrinsic: np.ndarray = field(default_factory=_identity)
    color_compression: str = "jpeg"
    depth_compression: str = "zlib"
    depth_shift: float = 1000.0
    sensor: str = "pri3d"
    version: int = 4


def camera_problem(header: SensHeader) -> str | None:
    """The reason why the cameras of a scan cannot be used, or None if they can."""
    for which, name in (("colour", "color"), ("depth", "depth")):  # stored text
        K = getattr(header, f"{name}_intrinsic").astype(np.float64)[:3, :3]
        focal = np.abs([K[0, 0], K[1, 1]])
        if focal.min() < 1 or focal.max() > 1e6:
            return f"the {which} camera has focal lengths of {K[0, 0]:g} and {K[1, 1]:g} pixels"
        if np.abs([K[0, 1], K[1, 0], *(K[2] - (0, 0, 1))]).max() > 1e-3:
            return f"the {which} camera's intrinsics have a skew or are no pinhole matrix"
        if geometry.pose_problem(getattr(header, f"{name}_extrinsic")):
            return f"the {which} camera's extrinsic is no rigid transform"
    return None


def parse_header(path: Path, data: bytes, file_bytes: int) -> tuple[SensHeader, int, int]:
    """Read a header.

    Args:
        path: for error messages.
        data: the first MAX_HEADER_BYTES of the file, or all of a shorter file.
        file_bytes: size of the file.

    Returns:
        The header, the number of frames it claims, and its length in bytes.

    Raises:
        Pri3DError: the file is no `.sens` file, or a field has an impossible value; with its byte
            offset.
    """

    def refuse(offset: int, what: str) -> Pri3DError:
        advice = "check that it is a .sens file and whole, else fetch it again"
        return Pri3DError(f"{path}: byte {offset}: {what}; {advice}")

    if len(data) < _START.size:
        raise refuse(file_bytes, f"a file of {file_bytes} bytes has no .sens header")
    version, name_bytes = _START.unpack_from(data)
    if version not in (3, 4):
        raise refuse(0, f"format version {version}, only 3 and 4 can be read")
    if name_bytes > min(MAX_NAME_BYTES, file_bytes):
        raise refuse(4, f"a sensor name of {name_bytes} bytes is not possible")
    start = _START.size + name_bytes
    if len(data) < start + _FIXED.size:
        raise refuse(file_bytes, f"the file ends inside its header of {start + _FIXED.size} bytes")
    *_, color, depth, color_w, color_h, depth_w, depth_h, shift, frames = _FIXED.unpack_from(
        data, start
    )
    matrices = np.frombuffer(data, "<f4", 64, start).reshape(4, 4, 4).astype(np.float32)
    for number, name in enumerate(MATRICES):
        if not np.isfinite(matrices[number]).all():
            raise refuse(start + 64 * number, f"{name} holds values that are not finite")
    color_name = _name_of(color, COLOR_TYPES)
    depth_name = _name_of(depth, DEPTH_TYPES)
    if color_name not in READABLE:
        what = f"colour compression {color_name} ({color})"  # stored text
        raise refuse(start + 256, f"{what} has no decoder")
    if depth_name not in READABLE:
        raise refuse(start + 260, f"depth compression {depth_name} ({depth}) has no decoder")
    for offset, what, width, height in (
        (start + 264, "colour", color_w, color_h),  # stored text
        (start + 272, "depth", depth_w, depth_h),
    ):
        if not 0 < width <= MAX_SIDE or not 0 < height <= MAX_SIDE or width * height > MAX_PIXELS:
            raise refuse(offset, f"{what} images of {width}x{height} pixels are not possible")
    if not (np.isfinite(shift) and shift > 0):
        raise refuse(start + 280, f"the depth shift is {shift}, it must be above 0")
    header = SensHeader(
        color_shape=(color_h, color_w),
        depth_shape=(depth_h, depth_w),
        color_compression=color_name,
        depth_compression=depth_name,
        depth_shift=shift,
        sensor=data[_START.size : start].decode("utf-8", "surrogateescape"),
        version=version,
        **dict(zip(MATRICES, matrices)),
    )
    return header, frames, start + _FIXED.size


def pack_header(header: SensHeader, frames: int) -> bytes:
    """The bytes that `parse_header` reads."""
    name = header.sensor.encode("utf-8", "surrogateescape")
    matrices = [np.asarray(getattr(header, m), "<f4").reshape(4, 4).tobytes() for m in MATRICES]
    return b"".join(
        (
            _START.pack(header.version, len(name)),
            name,
            *matrices,
            struct.pack(
                "<iiIIIIfQ",
                COLOR_TYPES[header.color_compression],
                DEPTH_TYPES[header.depth_compression],
                *reversed(header.color_shape),
                *reversed(header.depth_shape),
                header.depth_shift,
                frames,
            ),
        )
    )


def _name_of(number: int, types: dict[str, int]) -> str:
    return next((name for name, known in types.items() if known == number), "of an unknown type")
