"""Checks of `clouds/<scene>.h5`."""

from pathlib import Path

import h5py
import numpy as np

from pri3d import geometry
from pri3d.artefacts import Clouds, Unposed
from pri3d.sources import images
from pri3d.verify.checks import check, check_ledger, check_offsets, wrong


def check_clouds(path: Path, beside: Path, deep: bool) -> list[str]:
    """Check that frames add up, cameras and poses are valid, and depth and color images decode.

    Raises:
        Pri3DError: a check failed.
    """
    with Clouds(path) as clouds:
        frames_add_up = check_ledger(path, clouds.file)
        if len(clouds):
            good = np.isfinite(clouds.depth_shift) and clouds.depth_shift > 0
            check(path, "depth_shift", good, "is not a valid scale")
            good = np.isfinite(clouds.K).all() and clouds.K[0, 0] > 0 and clouds.K[1, 1] > 0
            check(path, "depth_intrinsic", good, "is not a valid camera")
        problems = [geometry.pose_problem(pose) for pose in clouds.world_from_camera]
        good = np.array([problem is None for problem in problems], bool)
        check(path, "frames/world_from_camera", good, "is not a rigid pose")
        decoded = _check_images(path, clouds.file["frames"], clouds)
        if "unposed" in clouds.file:
            lost = {frame for frame, reason in clouds.dropped if reason.startswith("pose_")}
            good = np.isin(clouds.unposed.index, list(lost))
            check(path, "unposed/index", good, "is not a frame that was dropped for its pose")
            decoded += _check_images(path, clouds.file["unposed"], clouds.unposed)
        return [
            frames_add_up,
            f"{len(clouds)} frames have rigid poses and the points that they claim",
            *_unposed_summary(clouds.unposed),
            f"{decoded} color images decode",
        ]


def _check_images(path: Path, stored: h5py.Group, frames: Clouds | Unposed) -> int:
    """Check depth and color images; returns the number of color images."""
    group = stored.name.strip("/")
    offset, end = stored["color_offset"][()], len(stored["color"])
    check_offsets(path, f"{group}/color_offset", offset, end)
    decoded = 0
    for row in range(len(frames)):
        points = np.count_nonzero(frames.raw_depth(row))
        what = f"is {frames.points[row]}, the depth image has {points} points"
        check(path, f"{group}/points row {row}", points == frames.points[row] > 0, what)
        if jpeg := frames.color_jpeg(row):
            try:
                images.decode_color(jpeg, "jpeg", frames.color_shape)
            except ValueError as error:
                raise wrong(path, f"{group}/color row {row}", str(error)) from None
            decoded += 1
    return decoded


def _unposed_summary(unposed: Unposed) -> list[str]:
    n = len(unposed)
    return [f"{n} frames without a pose have the points that they claim"] if n else []
