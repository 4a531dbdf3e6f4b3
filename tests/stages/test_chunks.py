"""Chunks against plain loops over a room with a closed form."""

import json
import struct

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_scenes import ROOM, intrinsics, look, make_clouds, poses

from pri3d import config, geometry, store
from pri3d.artefacts import CHUNKS, Chunks, Clouds
from pri3d.errors import Pri3DError
from pri3d.stages import chunks
from pri3d.stages.chunks import frustum_box
from pri3d.verify import verify

SETTINGS = config.Chunks()


def write_ply(path, points, colors):
    names = ("red", "green", "blue")
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    lines += [f"property double {axis}" for axis in "xyz"]
    lines += [f"property uchar {name}" for name in names]
    data = "\n".join([*lines, "end_header\n"]).encode()
    for point, color in zip(points, colors):
        data += struct.pack("<3d3B", *point, *color)
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """Clouds, a surface of points on all walls (with some outside the views), and the chunks."""
    folder = tmp_path_factory.mktemp("chunks")
    facing_wall = look((1.2, 1.1, 1.0), 0.0)  # this box ends where the wall's voxels are
    clouds = make_clouds(folder / "clouds.h5", [*poses(4), facing_wall])
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (20_000, 3)) * ROOM
    axis = rng.integers(0, 3, len(points))
    points[np.arange(len(points)), axis] = rng.integers(0, 2, len(points)) * ROOM[axis]
    points += rng.uniform(-0.03, 0.03, points.shape)
    points[:100] += 5
    colors = rng.integers(0, 256, points.shape)
    surface = write_ply(folder / "surface.ply", points, colors)
    chunks.run(clouds, folder / "chunks.h5", SETTINGS, surface)
    return clouds, surface, folder / "chunks.h5", points, colors


def test_surface_voxels_are_floored_points_with_mean_colors(room):
    _, _, out, points, colors = room
    cells = {}
    for point, color in zip(points, colors):
        cells.setdefault(tuple(int(np.floor(c / 0.02)) for c in point), []).append(color)
    with Chunks(out) as made:
        assert [tuple(v) for v in made.voxel.tolist()] == sorted(cells)
        for voxel, color in zip(made.voxel.tolist(), made.color):
            assert (np.abs(color - np.mean(cells[tuple(voxel)], axis=0)) <= 0.5).all()


def test_chunks_are_all_surface_voxels_in_the_box_and_no_others(room):
    clouds, _, out, _, _ = room
    with Clouds(clouds) as scan, Chunks(out) as made:
        assert made.index.tolist() == scan.index.tolist()
        shares = []
        for frame in range(len(scan)):
            lowest, highest = made.box[frame]
            inside = [
                row
                for row, voxel in enumerate(made.voxel)
                if all(lowest[k] <= voxel[k] <= highest[k] for k in range(3))
            ]
            assert made.rows(frame).tolist() == inside
            assert made.rows(frame).dtype == np.uint32
            shares.append(len(inside) / len(made.voxel))
        assert min(shares) > 0.02
        assert max(shares) < 0.9
        assert (made.voxel[made.rows(4), 0] == made.box[4, 1, 0]).any()


def test_boxes_are_those_of_the_frusta_between_the_depths_of_each_frame(room):
    clouds, _, out, _, _ = room
    with Clouds(clouds) as scan, Chunks(out) as made:
        height, width = scan.shape
        for frame in range(len(scan)):
            depth = scan.depth(frame)
            corners = []
            for z in (depth[depth > 0].min(), depth.max()):
                for u in (-0.5, width - 0.5):
                    for v in (-0.5, height - 0.5):
                        x = (u - scan.K[0, 2]) / scan.K[0, 0] * z
                        y = (v - scan.K[1, 2]) / scan.K[1, 1] * z
                        corners.append((scan.world_from_camera[frame] @ [x, y, z, 1])[:3])
            corners = np.array(corners)
            np.testing.assert_array_equal(made.box[frame, 0], np.floor(corners.min(0) / 0.02))
            np.testing.assert_array_equal(made.box[frame, 1], np.floor(corners.max(0) / 0.02))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    quarter_turns=st.integers(0, 3),
    yaw=st.sampled_from([0.0, 0.3, 1e-9, -2.0]),
    voxel_m=st.sampled_from([0.02, 0.1, 0.25]),
    flat=st.booleans(),
)
def test_a_box_holds_the_voxel_of_every_depth_point(seed, quarter_turns, yaw, voxel_m, flat):
    """Also where axis-aligned cameras put whole images on the very face of a voxel."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 9)), int(rng.integers(1, 9)))
    depth = np.full(shape, 2.0) if flat else rng.integers(0, 4000, shape) / 1000
    pose = look(rng.integers(-20, 20, 3) / 4, yaw + quarter_turns * np.pi / 2)
    view = geometry.View(depth, intrinsics(shape), pose)
    lowest, highest = frustum_box(view, voxel_m)
    points, valid = geometry.unproject(depth, view.K)
    for points_in_world in (
        geometry.transform(pose, points)[valid],
        np.array([(pose @ [*p, 1])[:3] for p in points[valid]]).reshape(-1, 3),
    ):
        voxel = np.floor(points_in_world / voxel_m)
        assert (voxel >= lowest).all()
        assert (voxel <= highest).all()


def test_a_frame_without_depth_has_an_empty_box(tmp_path, room):
    def blind(depth):
        depth[1] = 0
        return depth

    clouds = make_clouds(tmp_path / "clouds.h5", depth_change=blind)
    chunks.run(clouds, tmp_path / "chunks.h5", SETTINGS, room[1])
    with Chunks(tmp_path / "chunks.h5") as made:
        assert (made.box[1, 0] > made.box[1, 1]).all()
        assert len(made.rows(1)) == 0
        assert len(made.rows(2)) > 0


def test_what_is_written(room):
    clouds, surface, out, _, _ = room
    store.check_content(out, CHUNKS)
    with h5py.File(out) as file:
        layout = {}
        file.visititems(
            lambda name, item: (
                layout.update({name: (item.dtype.str, item.ndim)})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
        assert layout == {
            "surface/voxel": ("<i4", 2),
            "surface/color": ("|u1", 2),
            "frames/index": ("<u4", 1),
            "frames/box": ("<i4", 3),
            "frames/offset": ("<u8", 1),
            "frames/rows": ("<u4", 1),
        }
        assert file.attrs["scene"] == "room"
        assert file.attrs["status"] == "ok"
        assert file.attrs["voxel_m"] == 0.02
        assert file.attrs["surface_source"] == "ply"
        assert json.loads(file.attrs["inputs"]) == {
            "clouds": store.artefact_digest(clouds),
            "surface": store.file_digest(surface),
        }


def test_without_a_surface_file_the_depth_is_fused(tmp_path):
    clouds = make_clouds(tmp_path / "clouds.h5", poses(2), shape=(96, 128))
    chunks.run(clouds, tmp_path / "chunks.h5", SETTINGS)
    chunks.run(clouds, tmp_path / "again.h5", SETTINGS)
    digests = {store.artefact_digest(tmp_path / name) for name in ("chunks.h5", "again.h5")}
    assert len(digests) == 1
    with Chunks(tmp_path / "chunks.h5") as made:
        assert made.file.attrs["surface_source"] == "fused"
        centre = (made.voxel + 0.5) * 0.02
        to_wall = np.minimum(np.abs(centre), np.abs(centre - ROOM)).min(axis=1)
        assert np.quantile(to_wall, 0.95) <= 0.02
        assert min(len(made.rows(frame)) for frame in range(2)) > 500


def test_a_scan_without_frames_gives_an_empty_artefact_that_says_why(tmp_path, room):
    status = "failed: every pose is lost"
    clouds = make_clouds(tmp_path / "clouds.h5", [], status=status)
    for surface in (None, room[1]):
        chunks.run(clouds, tmp_path / "chunks.h5", SETTINGS, surface)
        with Chunks(tmp_path / "chunks.h5") as made:
            assert made.file.attrs["status"] == status
            assert made.voxel.shape == made.color.shape == (0, 3)
            assert made.box.shape == (0, 2, 3)
            assert len(made.index) == 0


def test_bad_surfaces_are_one_clear_error_and_leave_nothing_behind(tmp_path, room):
    clouds = room[0]
    broken, far = tmp_path / "broken.ply", tmp_path / "far.ply"
    broken.write_bytes(room[1].read_bytes()[:-1])
    write_ply(far, [(0, 0, 0), (1e9, 0, 0)], [(0, 0, 0)] * 2)
    for surface, word in ((broken, "broken.ply"), (far, "far.ply.*metres")):
        with pytest.raises(Pri3DError, match=word):
            chunks.run(clouds, tmp_path / "chunks.h5", SETTINGS, surface)
    assert not (tmp_path / "chunks.h5").exists()


def test_kept_going_a_bad_surface_gives_chunks_without_voxels_that_say_why(tmp_path, room):
    broken = tmp_path / "broken.ply"
    broken.write_bytes(room[1].read_bytes()[:-1])
    chunks.run(room[0], tmp_path / "chunks.h5", SETTINGS, broken, keep_going=True)
    with Chunks(tmp_path / "chunks.h5") as made, Clouds(room[0]) as scan:
        assert made.file.attrs["status"].startswith("failed: broken.ply: ")
        assert made.index.tolist() == scan.index.tolist()
        assert [len(made.rows(frame)) for frame in range(len(scan))] == [0] * len(scan)
    assert verify(tmp_path / "chunks.h5")
