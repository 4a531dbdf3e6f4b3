"""The `.sens` container of RGB-D scans (ScanNet's format): versions 3 and 4, reader and writer.

Little-endian and packed:

    u32 version; u64 length and bytes of the sensor's name; f32[4, 4] colour intrinsic and
    extrinsic, depth intrinsic and extrinsic; i32 colour and depth compression; u32 colour width,
    height, depth width, height; f32 depth shift; u64 number of frames
    each frame: f32[4, 4] world_from_camera; u64 colour and depth time (microseconds); u64 colour
    and depth bytes; the two payloads
    version 4 then has u64 number of IMU records and 128 bytes for each (may be missing: 0 records)

The reader indexes a file by hopping from frame header to frame header and reads a payload only
when asked for it. It believes no size before the file has room for it. A frame that is damaged
costs that frame: it is a problem record ``{"frame", "offset", "reason"}`` (frame number or None
for the file as a whole, byte offset, a phrase), and every whole frame stays readable.
"""

import os
import stat
import struct
import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pri3d.errors import Pri3DError
from pri3d.scans import images
from pri3d.store import atomic_path

COLOR_COMPRESSION = {-1: "unknown", 0: "raw", 1: "png", 2: "jpeg"}
DEPTH_COMPRESSION = {-1: "unknown", 0: "raw", 1: "zlib", 2: "occi"}

# What a file may claim before it counts as damaged. 2^18 frames are two and a half hours at 30 Hz;
# 2^25 pixels is more than an 8K video frame.
MAX_FRAMES = 1 << 18
MAX_PIXELS = 1 << 25
MAX_NAME_BYTES = 1 << 16

_HEADER = struct.Struct("<64f ii IIII f Q")
_FRAME = np.dtype(
    [
        ("world_from_camera", "<f4", (4, 4)),
        ("color_time", "<u8"),
        ("depth_time", "<u8"),
        ("color_bytes", "<u8"),
        ("depth_bytes", "<u8"),
    ]
)
_IMU_BYTES = 128


def _identity() -> np.ndarray:
    return np.eye(4, dtype=np.float32)


@dataclass
class SensHeader:
    """What a `.sens` file says about all of its frames.

    Shapes are (height, width) in pixels. Intrinsics and extrinsics are 4x4 float32; an extrinsic
    takes points of that camera to the common frame in which the poses are given. Depth in metres is
    the stored value / depth_shift. `sensor` holds bytes that are no UTF-8 as surrogate escapes.
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


@dataclass
class SensFrame:
    """One frame as it is stored: pose [4, 4], the two encoded payloads, times in microseconds."""

    world_from_camera: np.ndarray
    color: bytes
    depth: bytes
    color_time: int = 0
    depth_time: int = 0


class DamagedFrame(Pri3DError):
    """One frame cannot be used; the others can."""

    def __init__(self, path: Path, frame: int, offset: int, reason: str):
        super().__init__(
            f"{path}: frame {frame} at byte {offset}: {reason}; skip it or fetch the scan again"
        )
        self.problem = {"frame": frame, "offset": offset, "reason": reason}


def encode_color(rgb: np.ndarray) -> bytes:
    """u8 [H, W, 3] to the payload of a "jpeg" colour frame."""
    return images.encode_jpeg(rgb)


def encode_depth(depth: np.ndarray) -> bytes:
    """u16 [H, W] to the payload of a "zlib" depth frame."""
    return zlib.compress(np.ascontiguousarray(depth, "<u2").tobytes())


class SensFile:
    """A `.sens` file opened for reading; a context manager.

    header: SensHeader. frames: the header's count. len(): the frames that are whole in the file,
    numbered from 0 without gaps. problems: what is wrong with the file's structure. lost: why the
    frames from len() on are not there, "cut" (the file ends) or "unreachable" (the payload sizes
    of frame len() are damaged, so that nothing behind it can be found), else None.
    imu_records: number of records in the tail.

    Raises Pri3DError when the header cannot be trusted or names an encoding without a decoder.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._descriptor = -1
        try:
            # Asking first: opening a pipe or a device could block or worse.
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise Pri3DError(f"{path}: not a regular file; give a .sens file")
            self._descriptor = os.open(path, os.O_RDONLY)
            self._size = os.fstat(self._descriptor).st_size
            if hasattr(os, "posix_fadvise"):  # no read-ahead: the payloads between stay on disk
                os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            self._read_header()
            self._index_frames()
        except OSError as error:
            self.close()
            raise Pri3DError(f"{path}: cannot be read ({error.strerror})") from None
        except Pri3DError:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __len__(self) -> int:
        return len(self._offset)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    # --- structure ---------------------------------------------------------------------------

    def _read_header(self) -> None:
        start = os.pread(self._descriptor, 12, 0)
        if len(start) < 12:
            raise self._bad(0, f"the file has {self._size} bytes, too few for a .sens header")
        version, name_bytes = struct.unpack("<IQ", start)
        if version not in (3, 4):
            raise self._bad(0, f"version {version}, only 3 and 4 can be read")
        if name_bytes > min(MAX_NAME_BYTES, self._size - 12):
            raise self._bad(4, f"a sensor name of {name_bytes} bytes cannot be")
        length = 12 + name_bytes + _HEADER.size
        self.header_bytes = os.pread(self._descriptor, length, 0)
        if len(self.header_bytes) < length:
            raise self._bad(
                len(self.header_bytes), f"the file ends inside its header of {length} bytes"
            )
        fixed = 12 + name_bytes
        *_, color_type, depth_type, color_w, color_h, depth_w, depth_h, shift, self.frames = (
            _HEADER.unpack_from(self.header_bytes, fixed)
        )
        matrices = np.frombuffer(self.header_bytes, "<f4", 64, fixed).reshape(4, 4, 4)
        for number, what in enumerate(
            ("colour intrinsic", "colour extrinsic", "depth intrinsic", "depth extrinsic")
        ):
            if not np.isfinite(matrices[number]).all():
                raise self._bad(fixed + 64 * number, f"the {what} holds values that are not finite")
        color_name = COLOR_COMPRESSION.get(color_type, str(color_type))
        depth_name = DEPTH_COMPRESSION.get(depth_type, str(depth_type))
        if color_name not in ("raw", "png", "jpeg"):
            raise self._bad(
                fixed + 256, f"colour compression {color_name!r} (type {color_type}) has no decoder"
            )
        if depth_name not in ("raw", "zlib"):
            raise self._bad(
                fixed + 260, f"depth compression {depth_name!r} (type {depth_type}) has no decoder"
            )
        for at, what, height, width in (
            (264, "colour", color_h, color_w),
            (272, "depth", depth_h, depth_w),
        ):
            if not 0 < height * width <= MAX_PIXELS:
                raise self._bad(fixed + at, f"{what} images of {width}x{height} pixels cannot be")
        if not (np.isfinite(shift) and shift > 0):
            raise self._bad(fixed + 280, f"the depth shift is {shift}, must be above 0")
        self._count_offset = fixed + 284
        self.header = SensHeader(
            color_shape=(color_h, color_w),
            depth_shape=(depth_h, depth_w),
            color_intrinsic=matrices[0].copy(),
            color_extrinsic=matrices[1].copy(),
            depth_intrinsic=matrices[2].copy(),
            depth_extrinsic=matrices[3].copy(),
            color_compression=color_name,
            depth_compression=depth_name,
            depth_shift=shift,
            sensor=self.header_bytes[12:fixed].decode("utf-8", "surrogateescape"),
            version=version,
        )

    def _bad(self, offset: int, what: str) -> Pri3DError:
        return Pri3DError(
            f"{self.path}: byte {offset}: {what}; is this a .sens file? else fetch it again"
        )

    def _index_frames(self) -> None:
        self._offset = array("Q")
        self.problems: list[dict] = []
        self.lost: str | None = None
        heads = bytearray()
        offset = len(self.header_bytes)
        limits = self._payload_limits()
        while len(self._offset) < min(self.frames, MAX_FRAMES):
            head = os.pread(self._descriptor, _FRAME.itemsize, offset)
            stop = offset + _FRAME.itemsize
            if len(head) == _FRAME.itemsize:
                sizes = struct.unpack_from("<QQ", head, 80)
                stop += sum(sizes)
            if stop > self._size:
                oversized = len(head) == _FRAME.itemsize and (
                    sizes[0] > limits[0] or sizes[1] > limits[1]
                )
                self.lost = "unreachable" if oversized else "cut"
                break
            heads += head
            self._offset.append(offset)
            offset = stop
        self._heads = np.frombuffer(bytes(heads), _FRAME)
        self._read_tail(offset)
        if self.frames > MAX_FRAMES:
            self._problem(
                None,
                self._count_offset,
                f"the header claims {self.frames} frames, which cannot be; {len(self)} were found",
            )
        elif self.lost:
            self._problem(len(self), offset, self._describe_loss(offset))

    def _describe_loss(self, offset: int) -> str:
        missing = f"{self.frames - len(self)} of {self.frames} frames are lost"
        if self.lost == "unreachable":
            return f"its payload sizes are damaged and nothing behind it can be found; {missing}"
        if self._imu_offset is not None:
            return f"the file ends in order before it, the header claims too many; {missing}"
        return f"the file ends {self._size - offset} bytes into it (cut off?); {missing}"

    def _read_tail(self, offset: int) -> None:
        self.imu_records, self._imu_offset = 0, None
        rest = self._size - offset
        if self.header.version >= 4 and rest >= 8:
            records = struct.unpack("<Q", os.pread(self._descriptor, 8, offset))[0]
            if records * _IMU_BYTES == rest - 8:
                self.imu_records, self._imu_offset = records, offset + 8
                return
        if rest and not self.lost and self.frames <= MAX_FRAMES:
            what = "are no IMU records" if self.header.version >= 4 else "do not belong there"
            self._problem(
                None,
                offset,
                f"the {rest} bytes after the last frame {what} (more frames than the header says?)",
            )

    def _problem(self, frame: int | None, offset: int, reason: str) -> None:
        self.problems.append({"frame": frame, "offset": offset, "reason": reason})

    def _payload_limits(self) -> tuple[int, int]:
        """More bytes than any sane encoder makes of one colour and one depth image."""
        (color_h, color_w), (depth_h, depth_w) = self.header.color_shape, self.header.depth_shape
        return 6 * color_h * color_w + (1 << 16), 4 * depth_h * depth_w + (1 << 16)

    # --- frames ------------------------------------------------------------------------------

    def world_from_camera(self, frame: int) -> np.ndarray:
        """The pose as stored, float64 [4, 4]; lost tracking is -inf, see geometry.pose_problem."""
        return self._heads["world_from_camera"][frame].astype(np.float64)

    def times(self, frame: int) -> tuple[int, int]:
        """Colour and depth time stamps in microseconds; often 0, never an order."""
        return int(self._heads["color_time"][frame]), int(self._heads["depth_time"][frame])

    def color_bytes(self, frame: int) -> bytes:
        """The encoded colour image."""
        return self._payload(frame, 0)

    def depth_bytes(self, frame: int) -> bytes:
        """The encoded depth image."""
        return self._payload(frame, 1)

    def frame(self, frame: int) -> SensFrame:
        """Everything of a frame, still encoded, as `write_sens` takes it."""
        return SensFrame(
            self._heads["world_from_camera"][frame],
            self.color_bytes(frame),
            self.depth_bytes(frame),
            *self.times(frame),
        )

    def color(self, frame: int, min_height: int | None = None) -> np.ndarray:
        """The colour image, u8 [H, W, 3]; may be smaller with min_height, see decode_color.

        Raises DamagedFrame.
        """
        data = self.color_bytes(frame)
        try:
            return images.decode_color(
                data, self.header.color_compression, self.header.color_shape, min_height
            )
        except ValueError as error:
            raise self._damaged(frame, 0, str(error)) from None

    def depth(self, frame: int) -> np.ndarray:
        """The depth image as stored, u16 [H, W]; metres are value / depth_shift, 0 is none.

        Raises DamagedFrame.
        """
        data = self.depth_bytes(frame)
        height, width = self.header.depth_shape
        expected = height * width * 2
        if self.header.depth_compression == "zlib":
            data = self._inflate(frame, data, expected)
        elif len(data) != expected:
            raise self._damaged(
                frame, 1, f"the raw depth image has {len(data)} bytes instead of {expected}"
            )
        return np.frombuffer(data, "<u2").astype(np.uint16).reshape(height, width)

    def imu_bytes(self) -> bytes | None:
        """The IMU records as stored, 128 bytes each; None where the file has no tail."""
        if self._imu_offset is None:
            return None
        return os.pread(self._descriptor, self.imu_records * _IMU_BYTES, self._imu_offset)

    def index_bytes(self) -> bytes:
        """The header and all frame headers: what was read to open the file."""
        return self.header_bytes + self._heads.tobytes()

    def _inflate(self, frame: int, data: bytes, expected: int) -> bytes:
        inflater = zlib.decompressobj()
        try:
            depth = inflater.decompress(data, expected + 1)  # bounded, whatever the stream holds
        except zlib.error as error:
            raise self._damaged(frame, 1, f"the depth image does not inflate ({error})") from None
        if len(depth) != expected:
            more = "more than " if len(depth) > expected else ""
            found = f"{more}{min(len(depth), expected)} bytes"
            raise self._damaged(
                frame, 1, f"the depth image inflates to {found} instead of {expected}"
            )
        if not inflater.eof:
            raise self._damaged(frame, 1, "the depth image has lost its end")
        return depth

    def _payload(self, frame: int, which: int) -> bytes:
        offset, size = self._extent(frame, which)
        if size > self._payload_limits()[which]:
            what = ("colour", "depth")[which]
            raise self._damaged(frame, which, f"a {what} image of {size} bytes cannot be")
        try:
            data = os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise self._damaged(frame, which, f"cannot be read ({error.strerror})") from None
        if len(data) != size:
            raise self._damaged(frame, which, "the file has become shorter while it was read")
        return data

    def _extent(self, frame: int, which: int) -> tuple[int, int]:
        sizes = [int(self._heads[name][frame]) for name in ("color_bytes", "depth_bytes")]
        return self._offset[frame] + _FRAME.itemsize + sum(sizes[:which]), sizes[which]

    def _damaged(self, frame: int, which: int, reason: str) -> DamagedFrame:
        return DamagedFrame(self.path, frame, self._extent(frame, which)[0], reason)


def write_sens(
    path: str | Path,
    header: SensHeader,
    frames: Iterable[SensFrame],
    imu: bytes | None = b"",
) -> None:
    """Write a scan; nothing appears at `path` unless all of it was written.

    frames: taken one at a time, payloads written as they are. imu: the records, 128 bytes each;
    None leaves the tail out, and version 3 never has one. What `SensFile` reads of a sound file
    (`header`, `frame(i)` for each i, `imu_bytes()`) writes the same bytes again.
    """
    if imu and len(imu) % _IMU_BYTES:
        raise ValueError(f"imu has {len(imu)} bytes, not a multiple of {_IMU_BYTES}")
    name = header.sensor.encode("utf-8", "surrogateescape")
    matrices = np.stack(
        [
            np.asarray(matrix, "<f4").reshape(4, 4)
            for matrix in (
                header.color_intrinsic,
                header.color_extrinsic,
                header.depth_intrinsic,
                header.depth_extrinsic,
            )
        ]
    )
    color_types = {name: number for number, name in COLOR_COMPRESSION.items()}
    depth_types = {name: number for number, name in DEPTH_COMPRESSION.items()}
    settings = struct.pack(
        "<iiIIIIf",
        color_types[header.color_compression],
        depth_types[header.depth_compression],
        *reversed(header.color_shape),
        *reversed(header.depth_shape),
        header.depth_shift,
    )
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<IQ", header.version, len(name)) + name)
        file.write(matrices.tobytes() + settings)
        count_offset, count = file.tell(), 0
        file.write(struct.pack("<Q", 0))
        for frame in frames:
            file.write(np.asarray(frame.world_from_camera, "<f4").reshape(4, 4).tobytes())
            sizes = len(frame.color), len(frame.depth)
            file.write(struct.pack("<QQQQ", frame.color_time, frame.depth_time, *sizes))
            file.write(frame.color)
            file.write(frame.depth)
            count += 1
        if header.version >= 4 and imu is not None:
            file.write(struct.pack("<Q", len(imu) // _IMU_BYTES) + imu)
        file.seek(count_offset)
        file.write(struct.pack("<Q", count))
