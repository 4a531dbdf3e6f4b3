"""Checks of `clouds/<scene>.h5`."""

from pathlib import Path

import numpy as np

from pri3d import geometry
from pri3d.artefacts import Clouds
from pri3d.scans import images
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
        offset, end = clouds.file["frames/color_offset"][()], len(clouds.file["frames/color"])
        check_offsets(path, "frames/color_offset", offset, end)
        colored = 0
        for row in range(len(clouds)):
            points = np.count_nonzero(clouds.raw_depth(row))
            what = f"is {clouds.points[row]}, the depth image has {points} points"
            check(path, f"frames/points row {row}", points == clouds.points[row] > 0, what)
            if jpeg := clouds.color_jpeg(row):
                try:
                    images.decode_color(jpeg, "jpeg", clouds.color_shape)
                except ValueError as error:
                    raise wrong(path, f"frames/color row {row}", str(error)) from None
                colored += 1
        return [
            frames_add_up,
            f"{len(clouds)} frames have rigid poses and the points that they claim",
            f"{colored} colour images decode",
        ]
