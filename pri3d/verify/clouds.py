"""Checks of `clouds/<scene>.h5`."""

from pathlib import Path

import h5py
import numpy as np

from pri3d import geometry
from pri3d.artefacts import Clouds, Unposed
from pri3d.sources import images
from pri3d.verify.checks import check, check_ledger, check_offsets, wrong


def check_clouds(path: Path, beside: Path, deep: bool) -> list[str]:
    """Frames add up, cameras and poses are some, depth has the points it claims, colour decodes."""
    with Clouds(path) as clouds:
        frames_add_up = check_ledger(path, clouds.file)
        if len(clouds):
            good = np.isfinite(clouds.depth_shift) and clouds.depth_shift > 0
            check(path, "depth_shift", good, "is no scale")
            good = np.isfinite(clouds.K).all() and clouds.K[0, 0] > 0 and clouds.K[1, 1] > 0
            check(path, "depth_intrinsic", good, "is no camera")
        problems = [geometry.pose_problem(pose) for pose in clouds.world_from_camera]
        good = np.array([problem is None for problem in problems], bool)
        check(path, "frames/world_from_camera", good, "is no rigid pose")
        colored = _images(path, clouds.file["frames"], clouds)
        if "unposed" in clouds.file:
            lost = {frame for frame, reason in clouds.dropped if reason.startswith("pose_")}
            good = np.isin(clouds.unposed.index, list(lost))
            check(path, "unposed/index", good, "is no frame that was dropped for its pose")
            colored += _images(path, clouds.file["unposed"], clouds.unposed)
        return [
            frames_add_up,
            f"{len(clouds)} frames have rigid poses and the points that they claim",
            *_told(clouds.unposed),
            f"{colored} colour images decode",
        ]


def _images(path: Path, stored: h5py.Group, frames: Clouds | Unposed) -> int:
    """How many colour images there are; raises Pri3DError where depth or colour is wrong."""
    group = stored.name.strip("/")
    offset, end = stored["color_offset"][()], len(stored["color"])
    check_offsets(path, f"{group}/color_offset", offset, end)
    colored = 0
    for row in range(len(frames)):
        points = np.count_nonzero(frames.raw_depth(row))
        what = f"is {frames.points[row]}, the depth image has {points} points"
        check(path, f"{group}/points row {row}", points == frames.points[row] > 0, what)
        if jpeg := frames.color_jpeg(row):
            try:
                images.decode_color(jpeg, "jpeg", frames.color_shape)
            except ValueError as error:
                raise wrong(path, f"{group}/color row {row}", str(error)) from None
            colored += 1
    return colored


def _told(unposed: Unposed) -> list[str]:
    n = len(unposed)
    return [f"{n} frames without a pose have the points that they claim"] if n else []
