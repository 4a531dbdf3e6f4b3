"""Stage clouds: `<scene>.sens` -> `clouds/<scene>.h5`: depth, color, pose of every n-th frame.

A frame is kept if it has a rigid pose, depth, and a color image that decodes. Every other selected
frame is counted under the first of these reasons that applies:

    cut                 the file ends before or inside the frame
    unreachable         payload sizes of this or an earlier frame are damaged, so that the frame
                        cannot be found
    pose_not_finite     lost tracking; also pose_zero, pose_not_rigid (see geometry.pose_problem);
                        if the frame has depth and color, it is stored apart, for training on
                        single frames
    depth_unreadable    the depth image is damaged
    no_depth            no valid depth pixel
    color_unreadable    the color image is damaged: no training could use the frame

Frames are read, checked and stored one at a time; frames that are not selected are not read. The
digest of the input covers the bytes that were read: header, frame headers, and payloads of the
selected frames.
"""

import hashlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from pri3d import artefacts, config, geometry, store
from pri3d.errors import Pri3DError
from pri3d.sources import images
from pri3d.sources.sens import DamagedFrame, SensFile, valid_depth
from pri3d.sources.sens_header import MAX_FRAMES, SensHeader, camera_problem

_DAMAGE = ("cut", "unreachable", "depth_unreadable", "color_unreadable")
_COLOR_CHUNK_BYTES = 1 << 16


class Kept(NamedTuple):
    """A frame to be stored.

    Attributes:
        world_from_camera: pose.
        depth: u16 [H, W], 0 = no point.
        color: a JPEG file.
        pose_problem: reason why the pose cannot be used, or None.
    """

    world_from_camera: np.ndarray
    depth: np.ndarray
    color: bytes
    pose_problem: str | None


class Dropped(NamedTuple):
    """A frame that is not kept: its reason, and a description of the damage, or ""."""

    number: int
    reason: str
    damage: str


def run(scan: Path, out: Path, settings: config.Frames, keep_going: bool = False) -> None:
    """Write the `clouds` artefact of one scan.

    A scan without a single usable frame gives an artefact without frames.

    Args:
        scan: a `.sens` file.
        out: the artefact.
        settings: section `frames` of the settings.
        keep_going: for a scan that cannot be read, write an artefact without frames whose status
            has the reason, and raise nothing.

    Raises:
        Pri3DError: the scan cannot be read, or its cameras cannot be used.
    """
    scan = Path(scan)
    try:
        with SensFile(scan) as sens:
            if problem := camera_problem(sens.header):
                raise Pri3DError(f"{scan}: {problem}; leave the scan out")
            _write(sens, out, settings)
    except Pri3DError as error:
        if not keep_going:
            raise
        _write_failed(scan, out, settings, error)


def _write(sens: SensFile, out: Path, settings: config.Frames) -> None:
    header = sens.header
    # An impossible count is replaced; all other missing frames are counted in the ledger.
    count = sens.frames if sens.frames <= MAX_FRAMES else len(sens)
    selected = range(0, count, settings.every)
    color_shape = _stored_shape(header.color_shape, settings.color_height)
    digest = hashlib.sha256(sens.index_bytes())
    inputs: dict[str, str] = {}  # filled when all frames have been read
    poses: list[np.ndarray] = []
    dropped: list[Dropped] = []
    with store.publish(out, artefacts.CLOUDS, settings.model_dump(), inputs) as writer:
        frames = _Frames(writer, "frames", header.depth_shape)
        unposed: _Frames | None = None
        progress = tqdm(selected, desc=f"clouds {sens.path.stem}", unit="frame", disable=None)
        for number in progress:
            frame = _read_frame(sens, number, settings, color_shape, digest)
            if isinstance(frame, Dropped):
                dropped.append(frame)
            elif frame.pose_problem:
                dropped.append(Dropped(number, frame.pose_problem, ""))
                unposed = unposed or _Frames(writer, "unposed", header.depth_shape)
                unposed.add(number, frame)
            else:
                poses.append(frame.world_from_camera)
                frames.add(number, frame)
        frames.finish()
        if unposed:
            unposed.finish()
        _write_tables(writer, poses, dropped)
        _write_header(writer, sens.path.stem, header, color_shape)
        writer.attribute("frames_in_scan", np.uint64(sens.frames))
        writer.attribute("frames_in", len(selected))
        writer.attribute("status", _status(sens, len(selected), len(poses), dropped))
        inputs["scan"] = digest.hexdigest()


def _read_frame(
    sens: SensFile,
    number: int,
    settings: config.Frames,
    color_shape: tuple[int, int],
    digest: "hashlib._Hash",
) -> Kept | Dropped:
    """Read one selected frame and update `digest` with its payloads."""
    if number >= len(sens):
        return Dropped(number, sens.lost or "cut", "")
    pose = sens.world_from_camera(number)
    pose_problem = geometry.pose_problem(pose)
    try:
        data = sens.depth_bytes(number)
        digest.update(data)
        depth = sens.decode_depth(number, data)
    except DamagedFrame as error:
        return _damaged(number, pose_problem, "depth_unreadable", error)
    depth = valid_depth(depth, sens.header.depth_shift, settings.max_depth_m)
    if not depth.any():
        return Dropped(number, pose_problem or "no_depth", "")
    try:
        data = sens.color_bytes(number)
        digest.update(data)
        color = _stored_color(sens, number, data, color_shape)
    except DamagedFrame as error:
        return _damaged(number, pose_problem, "color_unreadable", error)
    return Kept(pose, depth, color, pose_problem)


def _damaged(number: int, pose_problem: str | None, reason: str, error: DamagedFrame) -> Dropped:
    """A frame with a damaged image; a problem of its pose is the first reason."""
    if pose_problem:
        return Dropped(number, pose_problem, "")
    return Dropped(number, reason, error.problem["reason"])


def _stored_shape(shape: tuple[int, int], color_height: int) -> tuple[int, int]:
    """(height, width) of the stored color images: the scan's own, unless it is taller."""
    height, width = shape
    if not color_height or height <= color_height:
        return shape
    return color_height, max(1, round(width * color_height / height))


def _stored_color(sens: SensFile, number: int, data: bytes, color_shape: tuple[int, int]) -> bytes:
    """The JPEG file to store: the scan's own bytes, or resized or encoded again if necessary.

    Raises:
        DamagedFrame: the image does not decode.
    """
    if color_shape == sens.header.color_shape:
        if sens.header.color_compression == "jpeg":
            sens.decode_color(number, data, min_height=1)  # cheap, and detects damage
            return data
        return images.encode_color(sens.decode_color(number, data))
    rgb = sens.decode_color(number, data, min_height=color_shape[0])
    return images.encode_color(images.area_resize(rgb, color_shape))


class _Frames:
    """Adds frames to a group of the artefact; the number of frames need not be known before."""

    def __init__(self, writer: store.ArtefactWriter, group: str, shape: tuple[int, int]) -> None:
        self.writer, self.group = writer, group
        self.depth = writer.empty(
            f"{group}/depth", (0, *shape), np.uint16, True, chunks=(1, *shape)
        )
        self.color = writer.empty(f"{group}/color", (0,), np.uint8, chunks=(_COLOR_CHUNK_BYTES,))
        self.index: list[int] = []
        self.points: list[int] = []
        self.offsets = [0]

    def add(self, number: int, frame: Kept) -> None:
        start, stop = self.offsets[-1], self.offsets[-1] + len(frame.color)
        self.depth.resize(len(self.index) + 1, axis=0)
        self.depth[len(self.index)] = frame.depth
        self.color.resize(stop, axis=0)
        self.color[start:stop] = np.frombuffer(frame.color, np.uint8)
        self.index.append(number)
        self.points.append(int(np.count_nonzero(frame.depth)))
        self.offsets.append(stop)

    def finish(self) -> None:
        """Write the small data sets, when all frames have been added."""
        self.writer.dataset(f"{self.group}/index", np.array(self.index, np.uint32))
        self.writer.dataset(f"{self.group}/points", np.array(self.points, np.uint32))
        self.writer.dataset(f"{self.group}/color_offset", np.array(self.offsets, np.uint64))


def _write_tables(
    writer: store.ArtefactWriter, poses: list[np.ndarray], dropped: list[Dropped]
) -> None:
    writer.dataset("frames/world_from_camera", np.array(poses, np.float64).reshape(-1, 4, 4))
    writer.dataset("dropped/index", np.array([frame.number for frame in dropped], np.uint32))
    writer.dataset("dropped/reason", np.array([frame.reason for frame in dropped], "S24"))


def _write_header(
    writer: store.ArtefactWriter, scene: str, header: SensHeader, color_shape: tuple[int, int]
) -> None:
    color_from_depth = np.linalg.inv(header.color_extrinsic.astype(np.float64)) @ (
        header.depth_extrinsic.astype(np.float64)
    )
    color_K = header.color_intrinsic.astype(np.float64)
    if color_shape != header.color_shape:
        color_K = geometry.scale_intrinsics(color_K, header.color_shape, color_shape)
    writer.attribute("scene", scene)
    writer.attribute("depth_shift", header.depth_shift)
    writer.attribute("depth_intrinsic", header.depth_intrinsic.astype(np.float64))
    writer.attribute("color_intrinsic", color_K)
    writer.attribute("color_shape", np.array(color_shape))
    writer.attribute("color_from_depth", color_from_depth)


def _status(sens: SensFile, frames_in: int, kept: int, dropped: list[Dropped]) -> str:
    damaged = [frame for frame in dropped if frame.reason in _DAMAGE]
    if damaged:
        first = damaged[0]
        reason = sens.problems[0]["reason"] if sens.problems else first.reason
        return (
            f"partial: {len(damaged)} of {frames_in} frames are damaged or missing, "
            f"the first is frame {first.number}: {first.damage or reason}"
        )
    if sens.problems:
        problem = sens.problems[0]
        return f"partial: byte {problem['offset']}: {problem['reason']}"
    if not kept:
        counts = Counter(frame.reason for frame in dropped)
        reasons = ", ".join(f"{counts[reason]} {reason}" for reason in sorted(counts))
        return f"partial: no frame is kept ({reasons or 'the scan has none'})"
    return "ok"


def _write_failed(scan: Path, out: Path, settings: config.Frames, error: Pri3DError) -> None:
    """Write the artefact of a scan that cannot be read: no frames, and the reason as status."""
    empty = SensHeader((0, 0), (0, 0), np.eye(4), np.eye(4))
    # Without the folder: the same file gives the same artefact, wherever it is stored.
    message = str(error).replace(str(scan), scan.name)
    with store.publish(out, artefacts.CLOUDS, settings.model_dump(), {"scan": "unread"}) as writer:
        writer.dataset("frames/depth", np.zeros((0, 0, 0), np.uint16))
        writer.dataset("frames/color", np.zeros(0, np.uint8))
        writer.dataset("frames/index", np.zeros(0, np.uint32))
        writer.dataset("frames/points", np.zeros(0, np.uint32))
        writer.dataset("frames/color_offset", np.zeros(1, np.uint64))
        _write_tables(writer, [], [])
        _write_header(writer, scan.stem, empty, (0, 0))
        writer.attribute("frames_in_scan", np.uint64(0))
        writer.attribute("frames_in", 0)
        writer.attribute("status", f"failed: {message}")
