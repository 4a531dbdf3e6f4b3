"""The `.sens` container of RGB-D scans (ScanNet's format): versions 3 and 4, reader and writer.

After the header (see `sens_header`), little-endian and packed:

    each frame: f32[4, 4] world_from_camera; u64 color and depth time (microseconds); u64 color
    and depth bytes; the two payloads
    version 4 then has u64 number of IMU records and 128 bytes per record (or nothing)

The reader indexes a file by its frame headers and reads a payload only when it is requested. It
checks every size against the size of the file. A damaged frame becomes a problem record
``{"frame", "offset", "reason"}`` (frame number, or None for the file as a whole; byte offset; a
phrase), and all other frames stay readable.
"""

import os
import stat
import struct
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypedDict

import numpy as np

from pri3d.errors import Pri3DError
from pri3d.sources import images
from pri3d.sources.sens_header import (
    COUNT_BYTES,
    MAX_FRAMES,
    MAX_HEADER_BYTES,
    SensHeader,
    pack_header,
    parse_header,
)
from pri3d.store import atomic_path

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
_COLOR, _DEPTH = 0, 1  # the order of the payloads


@dataclass
class SensFrame:
    """One frame as stored: pose [4, 4], the two encoded images, times in microseconds."""

    world_from_camera: np.ndarray
    color: bytes
    depth: bytes
    color_time: int = 0
    depth_time: int = 0


def valid_depth(
    depth: np.ndarray, depth_shift: float, max_depth_m: float | None = None
) -> np.ndarray:
    """Stored depth u16 [H, W] with 0 for every pixel that gives no point.

    These are 0, 65535 (which some sources use for invalid pixels), and depths beyond max_depth_m.
    """
    invalid = depth == 65535
    if max_depth_m is not None:
        invalid |= depth / np.float64(depth_shift) > max_depth_m
    return np.where(invalid, np.uint16(0), depth)


class Problem(TypedDict):
    """What is damaged: frame number (None for the file as a whole), byte offset, and a phrase."""

    frame: int | None
    offset: int
    reason: str


class DamagedFrame(Pri3DError):
    """One frame cannot be used; the others can."""

    def __init__(self, path: Path, frame: int, offset: int, reason: str) -> None:
        super().__init__(
            f"{path}: frame {frame} at byte {offset}: {reason}; skip it or fetch the scan again"
        )
        self.problem: Problem = {"frame": frame, "offset": offset, "reason": reason}


class SensFile:
    """A `.sens` file opened for reading; a context manager.

    `len()` is the number of complete frames in the file, numbered from 0 without gaps.

    Attributes:
        header: properties that all frames share.
        frames: number of frames according to the header.
        problems: damage to the file's structure.
        lost: why frames from len() on are missing: "cut" (the file ends), "unreachable" (the
            payload sizes of frame len() are damaged, so that no later frame can be found), or None.
        imu_records: number of IMU records.

    Raises:
        Pri3DError: the file cannot be read, its header is damaged, or it has an encoding without a
            decoder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._descriptor = -1
        try:
            # Checked first: opening a pipe or a device could block.
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise Pri3DError(f"{path}: not a regular file; give a .sens file")
            self._descriptor = os.open(path, os.O_RDONLY)
            self._size = os.fstat(self._descriptor).st_size
            if hasattr(os, "posix_fadvise"):  # no read-ahead of the payloads between headers
                os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            data = os.pread(self._descriptor, MAX_HEADER_BYTES, 0)
            self.header, self.frames, length = parse_header(self.path, data, self._size)
            self.header_bytes = data[:length]
            self._index_frames()
        except OSError as error:
            self.close()
            raise Pri3DError(f"{path}: cannot be read ({error.strerror})") from None
        except Pri3DError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._offset)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    # --- structure ---------------------------------------------------------------------------

    def _index_frames(self) -> None:
        self._offset = array("Q")
        self.problems: list[Problem] = []
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
                len(self.header_bytes) - COUNT_BYTES,
                f"the header claims {self.frames} frames, which cannot be; {len(self)} are there",
            )
        elif self.lost:
            self._problem(len(self), offset, self._describe_loss(offset))

    def _describe_loss(self, offset: int) -> str:
        missing = f"{self.frames - len(self)} of {self.frames} frames are lost"
        if self.lost == "unreachable":
            return f"its payload sizes are damaged and nothing behind it can be found; {missing}"
        if self._imu_offset is not None:
            return f"the file ends in order before it, the header claims too many; {missing}"
        rest = self._size - offset
        where = f"{rest} bytes into it" if rest else "before it"
        return f"the file ends {where} (cut off?); {missing}"

    def _read_tail(self, offset: int) -> None:
        self.imu_records, self._imu_offset = 0, None
        rest = self._size - offset
        if self.header.version >= 4 and rest >= 8:
            records = struct.unpack("<Q", os.pread(self._descriptor, 8, offset))[0]
            if records * _IMU_BYTES == rest - 8:
                self.imu_records, self._imu_offset = records, offset + 8
                return
        if rest and not self.lost and self.frames <= MAX_FRAMES:
            what = "are not its IMU records" if self.header.version >= 4 else "do not belong there"
            self._problem(
                None,
                offset,
                f"the {rest} bytes after the last frame {what} (more frames than the header says?)",
            )

    def _problem(self, frame: int | None, offset: int, reason: str) -> None:
        self.problems.append({"frame": frame, "offset": offset, "reason": reason})

    def _payload_limits(self) -> tuple[int, int]:
        """More bytes than any encoder writes for one color and one depth image."""
        (color_h, color_w), (depth_h, depth_w) = self.header.color_shape, self.header.depth_shape
        return 6 * color_h * color_w + (1 << 16), 4 * depth_h * depth_w + (1 << 16)

    # --- frames ------------------------------------------------------------------------------

    def world_from_camera(self, frame: int) -> np.ndarray:
        """The pose as stored, float64 [4, 4]; -inf where tracking was lost."""
        with np.errstate(invalid="ignore"):  # a damaged pose can contain a signaling NaN
            return self._heads["world_from_camera"][frame].astype(np.float64)

    def times(self, frame: int) -> tuple[int, int]:
        """Color and depth time stamps in microseconds; often 0, and not always ascending."""
        return int(self._heads["color_time"][frame]), int(self._heads["depth_time"][frame])

    def color_bytes(self, frame: int) -> bytes:
        """The encoded color image; raises DamagedFrame if it cannot be read."""
        return self._payload(frame, _COLOR)

    def depth_bytes(self, frame: int) -> bytes:
        """The encoded depth image; raises DamagedFrame if it cannot be read."""
        return self._payload(frame, _DEPTH)

    def frame(self, frame: int) -> SensFrame:
        """A frame with encoded images, for `write_sens`; raises DamagedFrame."""
        return SensFrame(
            self._heads["world_from_camera"][frame],
            self.color_bytes(frame),
            self.depth_bytes(frame),
            *self.times(frame),
        )

    def color(self, frame: int, min_height: int | None = None) -> np.ndarray:
        """The color image, u8 [H, W, 3]; may be smaller with min_height (images.decode_color).

        Raises:
            DamagedFrame: the image cannot be read or decoded.
        """
        return self.decode_color(frame, self.color_bytes(frame), min_height)

    def depth(self, frame: int) -> np.ndarray:
        """The depth image as stored, u16 [H, W]; meters are value / depth_shift, 0 = no depth.

        Raises:
            DamagedFrame: the image cannot be read or decoded.
        """
        return self.decode_depth(frame, self.depth_bytes(frame))

    def decode_color(self, frame: int, data: bytes, min_height: int | None = None) -> np.ndarray:
        """`color` for a caller that has `color_bytes`; raises DamagedFrame."""
        try:
            return images.decode_color(
                data, self.header.color_compression, self.header.color_shape, min_height
            )
        except ValueError as error:
            raise self._damaged(frame, _COLOR, str(error)) from None

    def decode_depth(self, frame: int, data: bytes) -> np.ndarray:
        """`depth` for a caller that has `depth_bytes`; raises DamagedFrame."""
        try:
            return images.decode_depth(data, self.header.depth_compression, self.header.depth_shape)
        except ValueError as error:
            raise self._damaged(frame, _DEPTH, str(error)) from None

    def imu_bytes(self) -> bytes | None:
        """The IMU records as stored, 128 bytes per record; None if the file has none."""
        if self._imu_offset is None:
            return None
        return os.pread(self._descriptor, self.imu_records * _IMU_BYTES, self._imu_offset)

    def index_bytes(self) -> bytes:
        """The header and all frame headers, which were read to open the file."""
        return self.header_bytes + self._heads.tobytes()

    def _payload(self, frame: int, which: int) -> bytes:
        offset, size = self._extent(frame, which)
        if size > self._payload_limits()[which]:
            what = ("colour", "depth")[which]  # stored text
            raise self._damaged(frame, which, f"a {what} image of {size} bytes is not possible")
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

    Written again with the `header`, every `frame(i)` and the `imu_bytes()` of a `SensFile`, an
    undamaged file has the same bytes.

    Args:
        path: the file.
        header: properties that all frames share.
        frames: read one at a time; payloads are written as they are.
        imu: the IMU records, 128 bytes per record; None writes no number of records. Version 3
            has no IMU records.

    Raises:
        ValueError: `imu` is not a multiple of 128 bytes.
    """
    if imu and len(imu) % _IMU_BYTES:
        raise ValueError(f"imu has {len(imu)} bytes, not a multiple of {_IMU_BYTES}")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(pack_header(header, 0))
        count = 0
        for frame in frames:
            file.write(np.asarray(frame.world_from_camera, "<f4").reshape(4, 4).tobytes())
            sizes = len(frame.color), len(frame.depth)
            file.write(struct.pack("<QQQQ", frame.color_time, frame.depth_time, *sizes))
            file.write(frame.color)
            file.write(frame.depth)
            count += 1
        if header.version >= 4 and imu is not None:
            file.write(struct.pack("<Q", len(imu) // _IMU_BYTES) + imu)
        file.seek(0)
        file.write(pack_header(header, count))
