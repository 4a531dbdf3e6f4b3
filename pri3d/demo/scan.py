"""Makes one demo scan, from its seed to its files."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from pri3d.config import Demo
from pri3d.demo import cast, classes, layout, mesh, paths, render, sensor, shading, write
from pri3d.demo.room import Room
from pri3d.sources import images
from pri3d.sources.sens import SensFrame, write_sens
from pri3d.sources.sens_header import SensHeader


class Plan(NamedTuple):
    """A scan before anything is rendered.

    rig: both cameras; world_from_camera: float64 [F, 4, 4], the true poses of the depth camera;
    lost: bool [F], frames without a pose, for which -inf is stored.
    """

    room: Room
    rig: sensor.Rig
    world_from_camera: np.ndarray
    lost: np.ndarray


def plan(number: int, settings: Demo) -> Plan:
    """Room, cameras and path of a scan, determined by its number and the settings alone."""
    room = layout.build_room(settings.seed, number)
    rng = np.random.default_rng([settings.seed, number, 1])
    rig = sensor.make_rig(settings.height, settings.color_height, rng)
    poses = paths.hand_held(room, settings.frames, rng)
    lost = sensor.lost_frames(settings.frames, rng)
    return Plan(room=room, rig=rig, world_from_camera=poses, lost=lost & settings.noise)


def scan_files(root: Path, scene: str, number: int, settings: Demo) -> None:
    """Write all files of scan `number` into `root/scene`, the `.sens` last."""
    room, rig, poses, lost = plan(number, settings)
    surface = mesh.full_mesh(room)
    seen = np.zeros(len(surface.points), bool)
    instance_images: list[np.ndarray] = []

    def frames() -> Iterator[SensFrame]:
        color_K, depth_K = rig.color_intrinsic[:3, :3], rig.depth_intrinsic[:3, :3]
        depth_from_color = np.linalg.inv(rig.color_from_depth)
        for i in tqdm(range(settings.frames), desc=scene, unit="frame", disable=None):
            rng = np.random.default_rng([settings.seed, number, 2, i])
            true_depth, _ = cast.trace(room, rig.depth_shape, depth_K, poses[i])
            if not lost[i]:
                mesh.mark_seen(surface, true_depth, depth_K, poses[i], seen)
            noise = rng if settings.noise else None
            depth = true_depth
            if noise is not None:
                depth = sensor.measure(true_depth, depth_K[0, 0], noise)

            color_pose = poses[i] @ depth_from_color
            distance, primitive = cast.trace(room, rig.color_shape, color_K, color_pose)
            points = cast.camera_points(distance, color_K, color_pose)
            radiance = shading.shade(room, primitive, points, color_pose[:3, 3])
            instance_images.append(render.instances(room, primitive))
            time_us = round(i * 1e6 * paths.SECONDS / settings.frames)
            yield SensFrame(
                np.full((4, 4), -np.inf) if lost[i] else poses[i],
                images.encode_color(sensor.develop(radiance, noise)),
                images.encode_depth(sensor.quantize(depth)),
                time_us,
                time_us,
            )

    header = SensHeader(
        color_shape=rig.color_shape,
        depth_shape=rig.depth_shape,
        color_intrinsic=rig.color_intrinsic,
        depth_intrinsic=rig.depth_intrinsic,
        depth_extrinsic=rig.color_from_depth,
        sensor="pri3d demo",
    )
    stored = list(frames())
    surface = mesh.keep(surface, seen)

    # Objects are numbered from 1 without gaps; an object without vertices is not annotated.
    present = np.unique(room.instance[surface.primitive])
    number_of = np.zeros(len(room.names) + 1, np.uint8)
    number_of[present] = np.arange(1, len(present) + 1)
    label_of = np.where(number_of > 0, render.raw_ids(room), 0).astype(np.uint16)
    write.surface(root, scene, room, surface, number_of[room.instance[surface.primitive]])
    write.info(root, scene, room, rig, settings.frames)
    for part, folder, table in (
        ("label_images", "label-filt", label_of),
        ("instance_images", "instance-filt", number_of),
    ):
        labels = (table[image] for image in instance_images)
        write.images(write.file(root, scene, part), folder, labels)
    classes.write_table(Path(root) / "scannetv2-labels.combined.tsv")
    write_sens(write.file(root, scene, "sens"), header, stored)
