"""PLY files are written here by hand, byte by byte, and the fused room is checked analytically."""

import os
import struct
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from small_scenes import ROOM, WALL_COLORS, look, make_clouds, poses, raycast

from pri3d.artefacts import Clouds
from pri3d.errors import Pri3DError
from pri3d.sources.surface import color_of_depth, fuse, read_ply

POINTS = [(0.5, -1.25, 2.0), (3.0, 4.0, -5.5), (0.0, 0.0, 1e-3), (7.75, 8.5, 9.0)]
COLORS = [(1, 2, 3), (255, 0, 128), (9, 8, 7), (60, 50, 40)]
FACES = [(0, 1, 2), (1, 2, 3)]


def header(encoding, vertex_properties, faces="element face 2", count=4):
    lines = ["ply", f"format {encoding} 1.0", "comment by hand", f"element vertex {count}"]
    lines += [f"property {prop}" for prop in vertex_properties]
    if faces:
        lines += [faces, "property list uchar int vertex_indices"]
    return "\n".join([*lines, "end_header\n"]).encode()


def binary(order="<", coordinate="f", points=POINTS, extra=True, faces=FACES):
    """Layout x y z, an extra double, r g b alpha; then the faces."""
    name = {"f": "float", "d": "double"}[coordinate]
    properties = [f"{name} {axis}" for axis in "xyz"]
    properties += ["double quality"] if extra else []
    properties += [f"uchar {channel}" for channel in ("red", "green", "blue", "alpha")]
    encoding = "binary_little_endian" if order == "<" else "binary_big_endian"
    data = header(encoding, properties, count=len(points))
    for point, color in zip(points, COLORS):
        data += struct.pack(f"{order}3{coordinate}", *point)
        data += struct.pack(f"{order}d", 0.25) if extra else b""
        data += struct.pack("4B", *color, 255)
    for face in faces:
        data += struct.pack(f"{order}B{len(face)}i", len(face), *face)
    return data


def read(tmp_path, data):
    path = tmp_path / "mesh.ply"
    path.write_bytes(data)
    return read_ply(path)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("coordinate", ["f", "d"])
def test_binary_files_of_both_byte_orders_and_precisions(tmp_path, order, coordinate):
    surface = read(tmp_path, binary(order, coordinate))
    expected = np.array(POINTS, {"f": np.float32, "d": np.float64}[coordinate])
    assert surface.points.dtype == np.float64
    np.testing.assert_array_equal(surface.points, expected)
    np.testing.assert_array_equal(surface.color, COLORS)
    assert surface.color.dtype == np.uint8
    assert surface.dropped == 0


def test_faces_that_are_no_triangles_do_not_matter(tmp_path):
    surface = read(tmp_path, binary(faces=[(0, 1, 2, 3), (1, 2, 3)]))
    np.testing.assert_array_equal(surface.points, np.array(POINTS, np.float32))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_ascii_file_with_faces(tmp_path, newline):
    properties = ["float x", "float y", "float z", "uchar red", "uchar green", "uchar blue"]
    rows = [" ".join(map(str, [*p, *c])) for p, c in zip(POINTS, COLORS)]
    rows += [" ".join(map(str, [3, *face])) for face in FACES]
    text = header("ascii", properties).decode() + "\n".join(rows) + "\n"
    surface = read(tmp_path, text.replace("\n", newline).encode())
    np.testing.assert_array_equal(surface.points, np.array(POINTS, np.float32))
    np.testing.assert_array_equal(surface.color, COLORS)


def test_without_colors_everything_is_gray(tmp_path):
    data = header("binary_little_endian", ["float x", "float y", "float z"], faces=None)
    surface = read(tmp_path, data + np.array(POINTS, "<f4").tobytes())
    assert (surface.color == 128).all()
    assert surface.color.shape == (4, 3)


def test_float_colors_run_from_zero_to_one(tmp_path):
    names = ["float x", "float y", "float z", "float red", "float green", "float blue"]
    data = header("binary_little_endian", names, faces=None, count=1)
    surface = read(tmp_path, data + np.array([1, 2, 3, 0.0, 0.5, 1.0], "<f4").tobytes())
    assert surface.color.tolist() == [[0, 128, 255]]


def test_vertices_that_are_not_finite_are_dropped_and_counted(tmp_path):
    points = [POINTS[0], (np.nan, 0, 0), POINTS[2], (0, np.inf, 0)]
    surface = read(tmp_path, binary(points=points))
    np.testing.assert_array_equal(surface.points, np.array([POINTS[0], POINTS[2]], np.float32))
    assert surface.color.tolist() == [list(COLORS[0]), list(COLORS[2])]
    assert surface.dropped == 2


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda data: b"", "header"),
        (lambda data: b"ply\n" + bytes(5000), "header"),
        (lambda data: b"solid stl file", "header"),
        (lambda data: data[:60], "header"),
        (lambda data: data[:-3], "early end"),
        (lambda data: data[:-40], "claims"),
        (lambda data: data.replace(b"vertex 4\n", b"vertex 4000000000\n"), "claims 4000000000"),
        (lambda data: data.replace(b"face 2\n", b"face 9999999999999\n"), "claims"),
        (lambda data: data.replace(b"vertex 4\n", b"vertex -4\n"), "vertex -4"),
        (lambda data: data.replace(b"property float x\n", b""), "mesh.ply"),
        (lambda data: data.replace(b"property float x\n", b"property quux x\n"), "quux"),
        (lambda data: data.replace(b"element vertex", b"element corner"), "vertices"),
        (lambda data: data.replace(b"binary_little", b"binary_sideways"), "mesh.ply"),
        (lambda data: header("ascii", ["float x"], count=2, faces=None) + b"abc\n1\n", "malformed"),
    ],
)
def test_damage_is_one_clear_error(tmp_path, damage, word):
    with pytest.raises(Pri3DError, match=word) as caught:
        read(tmp_path, damage(binary()))
    assert "mesh.ply" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_element_without_properties_cannot_be_claimed_in_any_number(tmp_path):
    data = binary().replace(b"element face 2\n", b"element ghost 999999999\nelement face 2\n")
    with pytest.raises(Pri3DError, match="ghost"):
        read(tmp_path, data)


def test_a_file_without_a_finite_vertex_says_what_to_do(tmp_path):
    with pytest.raises(Pri3DError, match=r"0 vertices.*fused"):
        read(tmp_path, binary(points=[]))
    with pytest.raises(Pri3DError, match="cannot be read"):
        read_ply(tmp_path / "absent.ply")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_change_of_bytes_is_read_or_refused_quickly(tmp_path, data):
    whole = bytearray(binary(data.draw(st.sampled_from("<>"))))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    start = time.monotonic()
    try:
        surface = read(tmp_path, bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except Pri3DError:
        pass
    else:
        assert np.isfinite(surface.points).all()
        assert len(surface.points) + surface.dropped <= len(whole)
    assert time.monotonic() - start < 2


@pytest.mark.real
def test_real_surface(real_data):
    surface = read_ply(real_data / "scans/redkitchen/redkitchen_vh_clean_2.ply")
    assert surface.points.shape == (99479, 3)
    assert surface.dropped == 0
    assert np.ptp(surface.points, axis=0).max() < 10
    assert len(np.unique(surface.color, axis=0)) > 1000


def distance_to_room(points):
    """Distance to the nearest wall of an axis-aligned box, for points near its walls."""
    return np.minimum(np.abs(points), np.abs(points - ROOM)).min(axis=1)


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    path = make_clouds(tmp_path_factory.mktemp("fuse") / "room.h5", shape=(96, 128))
    with Clouds(path) as clouds:
        return clouds.path, fuse(clouds, 0.02)


def test_fused_points_lie_on_the_walls_and_cover_them(fused):
    path, surface = fused
    assert len(surface.points) > 5000
    # Marching cubes rounds the room's edges; elsewhere millimeters of depth are all that is off.
    assert np.quantile(distance_to_room(surface.points), 0.95) < 0.005
    assert distance_to_room(surface.points).max() < 0.03
    with Clouds(path) as clouds:
        seen = np.concatenate([clouds.cloud(row) for row in range(len(clouds))])
    distance, _ = cKDTree(surface.points).query(seen)
    assert (distance < 0.02).mean() > 0.95


def test_fused_points_have_the_color_of_their_wall(fused):
    points, color = fused[1].points, fused[1].color.astype(int)
    to_walls = np.concatenate([np.abs(points), np.abs(points - ROOM)], axis=1)
    to_walls.sort(axis=1)
    clear = to_walls[:, 1] > 0.1  # away from the room's edges, where colors mix
    wall = np.concatenate([np.abs(points), np.abs(points - ROOM)], axis=1).argmin(axis=1)
    off = np.abs(color - WALL_COLORS[wall].astype(int)).max(axis=1)
    assert clear.sum() > 3000
    assert np.quantile(off[clear], 0.99) < 12


def test_colors_are_looked_up_through_the_transform_between_the_cameras(tmp_path):
    into_corner = look((1.2, 1.1, 1.0), np.arctan2(1.3, 1.8), 0.2)
    path = make_clouds(tmp_path / "room.h5", [into_corner, into_corner])
    aside = 0.2  # meters; to the color camera
    with h5py.File(path, "r+") as file:
        file.attrs["color_from_depth"] = [
            [1, 0, 0, aside],
            [0, 1, 0, 0],
            [0, 0, 1, 0],
            [0, 0, 0, 1],
        ]
    with Clouds(path) as clouds:
        depth = clouds.depth(1)
        color = color_of_depth(clouds, 1, depth)
        K, color_K, color_shape = clouds.K, clouds.color_K, clouds.color_shape
    # u = fx x / z + cx in both cameras, and only x changes between them.
    v, u = np.indices(depth.shape)
    color_u = color_K[0, 0] * ((u - K[0, 2]) / K[0, 0] + aside / depth) + color_K[0, 2]
    color_v = color_K[1, 1] * (v - K[1, 2]) / K[1, 1] + color_K[1, 2]
    column = np.clip(np.floor(color_u + 0.5), 0, color_shape[1] - 1).astype(int)
    line = np.clip(np.floor(color_v + 0.5), 0, color_shape[0] - 1).astype(int)
    walls = raycast(into_corner, color_K, color_shape)[1]

    def agreement(expected):
        return (np.abs(color - expected.astype(int)).max(axis=2) < 30).mean()

    assert agreement(WALL_COLORS[walls[line, column]]) > 0.98
    assert agreement(WALL_COLORS[raycast(into_corner, K, depth.shape)[1]]) < 0.9


def test_depth_without_a_surface_is_an_error(tmp_path):
    lonely = make_clouds(tmp_path / "room.h5", depth_change=lambda depth: depth * 0)
    with Clouds(lonely) as clouds, pytest.raises(Pri3DError, match="no surface"):
        fuse(clouds, 0.02)


SCRIPT = """
import hashlib, sys
from pri3d.artefacts import Clouds
from pri3d.matching.voxels import voxelize
from pri3d.sources.surface import fuse
with Clouds(sys.argv[1]) as clouds:
    surface = fuse(clouds, 0.02)
voxel, color = voxelize(surface.points, surface.color, 0.02)
print(len(voxel), hashlib.sha256(voxel.tobytes() + color.tobytes()).hexdigest())
"""


def test_the_same_voxels_with_one_and_two_threads(tmp_path):
    def off_by_rounding(k, pose):
        pose = pose.copy()
        pose[:3, :3] *= 1 + 4e-4 * (-1) ** k  # as poses printed with seven digits are
        return pose

    cameras = [off_by_rounding(k, pose) for k, pose in enumerate(poses(3))]
    path = make_clouds(tmp_path / "room.h5", cameras, shape=(96, 128))
    outputs = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(path)],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(outputs) == 1
    assert int(outputs.pop().split()[0]) > 2000


def test_a_value_that_its_type_cannot_hold_is_an_error(tmp_path):
    path = tmp_path / "color.ply"
    properties = [f"property float {axis}" for axis in "xyz"]
    properties += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    lines = ["ply", "format ascii 1.0", "element vertex 1", *properties, "end_header"]
    path.write_text("\n".join([*lines, "0 0 0 -1 0 0", ""]))
    with pytest.raises(Pri3DError, match="not a whole PLY file"):
        read_ply(path)
