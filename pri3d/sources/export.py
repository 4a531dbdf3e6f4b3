"""The output of `pri3d sens info`, and the files that `pri3d sens export` writes."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pri3d import geometry
from pri3d.sources import images
from pri3d.sources.sens import DamagedFrame, Problem, SensFile, valid_depth
from pri3d.sources.sens_header import SensHeader, camera_problem


def info(path: str | Path) -> dict[str, Any]:
    """Summarize a scan as JSON-able values; decodes every frame, so that `problems` is complete.

    Returns:
        Properties of the header, and `frames_readable`, the number of frames whose two images
        decode; `usable`, the number of frames that `pri3d clouds --every 1` keeps; `unusable`,
        reason -> number of the other readable frames; `problems`, the damage in the file.

    Raises:
        Pri3DError: the header cannot be read.
    """
    with SensFile(path) as sens:
        header = sens.header
        problems = list(sens.problems)
        readable, unusable = 0, Counter[str]()
        for frame in tqdm(range(len(sens)), desc="reading frames", unit="frame", disable=None):
            depth, damage = _decode(sens, frame)
            problems += damage
            if depth is None or damage:
                continue
            readable += 1
            reason = geometry.pose_problem(sens.world_from_camera(frame))
            if reason is None and not valid_depth(depth, header.depth_shift).any():
                reason = "no_depth"
            if reason:
                unusable[reason] += 1
        usable = readable - unusable.total()
        if reason := camera_problem(header):
            problems.append({"frame": None, "offset": 0, "reason": reason})
            usable = 0
        return {
            "version": header.version,
            "sensor": header.sensor.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
            "frames": sens.frames,
            "frames_readable": readable,
            "color": _camera(header, "color"),
            "depth": {**_camera(header, "depth"), "shift": header.depth_shift},
            "imu_records": sens.imu_records,
            "usable": usable,
            "unusable": dict(sorted(unusable.items())),
            "problems": sorted(problems, key=_position),
        }


def _decode(sens: SensFile, frame: int) -> tuple[np.ndarray | None, list[Problem]]:
    """The depth image, and the problems of both images."""
    depth: np.ndarray | None = None
    problems: list[Problem] = []
    try:
        sens.color(frame, min_height=1)  # the cheapest decoding that notices damage
    except DamagedFrame as error:
        problems.append(error.problem)
    try:
        depth = sens.depth(frame)
    except DamagedFrame as error:
        problems.append(error.problem)
    return depth, problems


def _camera(header: SensHeader, which: str) -> dict[str, Any]:
    height, width = getattr(header, f"{which}_shape")
    return {
        "compression": getattr(header, f"{which}_compression"),
        "width": width,
        "height": height,
        "intrinsic": getattr(header, f"{which}_intrinsic").tolist(),
        "extrinsic": getattr(header, f"{which}_extrinsic").tolist(),
    }


def _position(problem: Problem) -> tuple[int, int]:
    return (-1 if problem["frame"] is None else problem["frame"], problem["offset"])


def format_info(summary: dict[str, Any]) -> str:
    """The result of `info` as text, a few lines."""
    lines = [
        f"sensor    {summary['sensor'] or '(no name)'}, format version {summary['version']}",
        f"frames    {summary['frames']}, readable {summary['frames_readable']}, "
        f"usable {summary['usable']}" + _listed(summary["unusable"]),
    ]
    for which in ("color", "depth"):
        camera = summary[which]
        K = camera["intrinsic"]
        line = (
            f"{which}     {camera['width']}x{camera['height']} {camera['compression']}, "
            f"fx {K[0][0]:.2f} fy {K[1][1]:.2f} cx {K[0][2]:.2f} cy {K[1][2]:.2f} pixels"
        )
        if which == "depth":
            line += f", meters = value / {camera['shift']:g}"
        if not np.array_equal(camera["extrinsic"], np.eye(4)):
            line += ", with an extrinsic"
        lines.append(line)
    lines.append(f"IMU       {summary['imu_records']} records")
    lines.append(f"problems  {len(summary['problems']) or 'none'}")
    lines += ["          " + format_problem(problem) for problem in summary["problems"]]
    return "\n".join(lines)


def format_problem(problem: Problem) -> str:
    """A problem record as a phrase."""
    frame = "file" if problem["frame"] is None else f"frame {problem['frame']}"
    return f"{frame}, byte {problem['offset']}: {problem['reason']}"


def _listed(counts: dict[str, int]) -> str:
    text = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return f" (not: {text})" if text else ""


def export(path: str | Path, out_dir: str | Path, every: int = 1) -> list[Problem]:
    """Write every n-th frame as files, in the layout of ScanNet's exporter.

    color/<i>.jpg (the scan's own bytes if it stores JPEG), depth/<i>.png (16 bit, as stored),
    pose/<i>.txt (world_from_camera, -inf where tracking was lost), and intrinsic/ with
    intrinsic_color.txt, extrinsic_color.txt, intrinsic_depth.txt, extrinsic_depth.txt. Damaged
    images are left out.

    Returns:
        The problems of the file and of the exported frames.

    Raises:
        Pri3DError: the header cannot be read.
    """
    out_dir = Path(out_dir)
    with SensFile(path) as sens:
        for name in ("color", "depth", "pose", "intrinsic"):
            (out_dir / name).mkdir(parents=True, exist_ok=True)
        for kind in ("intrinsic", "extrinsic"):
            for which in ("color", "depth"):
                matrix = getattr(sens.header, f"{which}_{kind}")
                _write_matrix(out_dir / "intrinsic" / f"{kind}_{which}.txt", matrix)
        problems = list(sens.problems)
        frames = range(0, len(sens), every)
        for frame in tqdm(frames, desc="exporting", unit="frame", disable=None):
            _write_matrix(out_dir / "pose" / f"{frame}.txt", sens.world_from_camera(frame))
            for write in (_write_color, _write_depth):
                try:
                    write(sens, frame, out_dir)
                except DamagedFrame as error:
                    problems.append(error.problem)
    return problems


def _write_color(sens: SensFile, frame: int, out_dir: Path) -> None:
    data = sens.color_bytes(frame)
    if sens.header.color_compression == "jpeg":
        sens.decode_color(frame, data, min_height=1)  # raises if it is damaged
    else:
        data = images.encode_color(sens.decode_color(frame, data))
    (out_dir / "color" / f"{frame}.jpg").write_bytes(data)


def _write_depth(sens: SensFile, frame: int, out_dir: Path) -> None:
    (out_dir / "depth" / f"{frame}.png").write_bytes(images.encode_png(sens.depth(frame)))


def _write_matrix(path: Path, matrix: np.ndarray) -> None:
    """Nine digits preserve every float32 exactly."""
    np.savetxt(path, matrix, fmt="%.9g")
