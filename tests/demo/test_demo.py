"""Demo scans: geometry against equations of the test's own, files read with others' readers."""

import functools
import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import plyfile
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from pri3d import demo, geometry
from pri3d.config import Demo
from pri3d.demo import cast, classes, layout, paths, render, scan, sensor, textures
from pri3d.demo.primitives import BOX, CYLINDER, RECTANGLE
from pri3d.demo.room import Room
from pri3d.errors import Pri3DError
from pri3d.sources import find, sens

SMALL = Demo(scans=2, frames=20, height=60, color_height=72)
LISTS = {"face": {"vertex_indices": 3}}  # lets plyfile map triangles instead of reading each
EXACT = SMALL.model_copy(update={"noise": False})
BENCHMARK = {
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    14,
    16,
    24,
    28,
    33,
    34,
    36,
    39,
}  # nyu40, no wall, floor


@pytest.fixture(scope="module")
def noisy(tmp_path_factory) -> Path:
    """Root of two scans, made in order."""
    root = tmp_path_factory.mktemp("demo")
    demo.make(root, SMALL)
    return root


@pytest.fixture(scope="module")
def exact(tmp_path_factory) -> Path:
    """Root of the first scan without noise."""
    root = tmp_path_factory.mktemp("exact")
    demo.make_scan(root, 0, EXACT)
    return root


def signed_distance(room: Room, points: np.ndarray) -> np.ndarray:
    """Distance [P, N] of points [N, 3] from every primitive, negative inside of solids."""
    local = np.einsum("pij,pnj->pni", room.axes, points[None] - room.center[:, None])
    half = room.half[:, None]
    gap = np.abs(local) - half
    solid = np.linalg.norm(np.maximum(gap, 0), axis=2) + np.minimum(gap.max(2), 0)
    ring = np.stack([np.hypot(local[..., 0], local[..., 1]) - half[..., 0], gap[..., 2]], 2)
    tube = np.linalg.norm(np.maximum(ring, 0), axis=2) + np.minimum(ring.max(2), 0)
    shape = room.shape[:, None]
    assert set(room.shape) <= {RECTANGLE, BOX, CYLINDER}
    return np.where(shape == CYLINDER, tube, solid)  # a rectangle is a box without thickness


def small_plan(number: int, **changes) -> scan.Plan:
    return scan.plan(number, EXACT.model_copy(update=changes))


# --- geometry ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(layout.KINDS)))
def test_exact_depth_is_the_first_point_on_the_analytic_surface(number):
    plan = small_plan(number, frames=4, height=48)
    K, pose = plan.rig.depth_intrinsic[:3, :3], plan.world_from_camera[2]
    depth, primitive = cast.trace(plan.room, plan.rig.depth_shape, K, pose)
    assert (depth > 0).all()  # rooms are closed

    points, _ = geometry.unproject(depth, K)
    hits = geometry.transform(pose, points).reshape(-1, 3)
    distance = signed_distance(plan.room, hits)
    own = distance[primitive.ravel(), np.arange(len(hits))]
    assert np.abs(own).max() < 1e-6
    assert distance.min() > -1e-6
    for share in np.linspace(0.05, 0.999, 12):  # nothing stands before it
        assert (
            signed_distance(
                plan.room, geometry.transform(pose, points * share)[::9].reshape(-1, 3)
            ).min()
            > 0
        )


def test_stored_depth_lies_on_the_surface_within_a_millimeter(exact):
    room = scan.plan(0, EXACT).room
    with sens.SensFile(exact / "scene0000_00" / "scene0000_00.sens") as file:
        K = file.header.depth_intrinsic[:3, :3].astype(float)
        for frame in range(0, len(file), 5):
            points, valid = geometry.unproject(file.depth(frame) / 1000.0, K)
            assert valid.all()
            world = geometry.transform(file.world_from_camera(frame), points[valid])
            nearest = np.abs(signed_distance(room, world)).min(0)
            assert nearest.max() < 1e-3
            assert nearest.max() > 1e-5  # it is quantized


def test_rays_and_cameras_see_the_same():
    plan = small_plan(2, frames=3)
    K, pose = plan.rig.color_intrinsic[:3, :3], plan.world_from_camera[1]
    frame = render.render_frame(plan.room, (60, 80), K, pose)
    rays = geometry.pixel_rays((60, 80), K).reshape(-1, 3) @ pose[:3, :3].T
    origins = np.broadcast_to(pose[:3, 3], rays.shape)
    distance, instance, normal = cast.cast(plan.room, origins, rays)
    np.testing.assert_allclose(distance, frame.depth.ravel(), rtol=0, atol=1e-9)
    assert (instance == frame.instance.ravel()).mean() > 0.999  # ties between touching faces
    assert (np.einsum("ni,ni->n", normal, rays) <= 0).all()
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-9)
    # The normal is the gradient of the distance to the object, here along a step of 1 mm.
    outside = origins + distance[:, None] * rays + 1e-3 * normal
    away = np.array(
        [signed_distance(plan.room, outside[i : i + 1]).min() for i in range(0, 4800, 97)]
    )
    assert (np.abs(away - 1e-3) < 1e-6).mean() > 0.9  # less only in corners


def test_rays_against_single_primitives_agree_with_their_distance():
    rng = np.random.default_rng(5)
    for shape in (RECTANGLE, BOX, CYLINDER):
        half = rng.uniform(0.2, 1.0, 3)
        if shape == CYLINDER:
            half[1] = half[0]
        if shape == RECTANGLE:
            half[2] = 0
        axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        axes *= np.linalg.det(axes)
        room = Room(
            kind="one primitive",
            size=(1, 1, 1),
            shape=np.array([shape]),
            center=rng.normal(size=(1, 3)),
            axes=axes[None],
            half=half[None],
            texture=textures.draw(rng)[None],
            instance=np.array([1], np.int32),
            names=("box",),
            lights=np.zeros((0, 4)),
            room_from_world=np.eye(4),
        )
        outwards = rng.normal(size=(400, 3))
        outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
        origins = room.center + 4 * outwards
        directions = room.center + rng.uniform(-1, 1, (400, 3)) - origins
        distance, instance, _ = cast.cast(room, origins, directions)
        hit = np.isfinite(distance)
        assert 50 < hit.sum() < 400
        np.testing.assert_array_equal(instance, hit)
        points = origins[hit] + distance[hit, None] * directions[hit]
        assert np.abs(signed_distance(room, points)).max() < 1e-9
        along = np.linspace(0, 2, 400)[:, None, None] * directions[~hit] + origins[~hit]
        assert signed_distance(room, along.reshape(-1, 3)).min() > 0


# --- sensor --------------------------------------------------------------------------------------


def test_noise_grows_with_distance_and_leaves_holes():
    rng = np.random.default_rng(0)
    spread = []
    for meters in (1.0, 2.0, 4.0):
        flat = np.full((120, 160), meters)
        measured = sensor.measure(flat, 145.0, rng)
        spread.append((measured - flat)[measured > 0].std())
        assert 0 < (measured == 0).mean() < 0.25
    assert 3 < (spread[2] - 0.0005) / (spread[1] - 0.0005) < 5  # with the square
    assert spread[0] < 0.003
    assert not sensor.measure(np.full((20, 30), sensor.MAX_DEPTH_M + 0.1), 100.0, rng).any()

    step = np.where(np.arange(160) < 80, 1.0, 2.0) * np.ones((120, 1))
    measured = sensor.measure(step, 145.0, rng)
    assert not measured[:, 79:81].any()  # an edge
    assert (measured[:, 20:60] > 0).mean() > 0.75


def test_lost_poses_are_minus_infinity_and_all_others_true(noisy):
    for number, scene in enumerate(demo.scene_ids(SMALL)):
        true = scan.plan(number, SMALL)
        assert 0 < true.lost.sum() < 0.2 * SMALL.frames
        with sens.SensFile(noisy / scene / f"{scene}.sens") as file:
            assert len(file) == SMALL.frames
            for frame in range(len(file)):
                pose = file.world_from_camera(frame)
                if true.lost[frame]:
                    assert (pose == -np.inf).all()
                else:
                    assert geometry.pose_problem(pose) is None
                    np.testing.assert_array_equal(pose, true.world_from_camera[frame])


def test_noise_changes_depth_and_nothing_else_that_counts(noisy, exact):
    name = "scene0000_00/scene0000_00"
    for part in ("_2d-label-filt.zip", "_2d-instance-filt.zip"):
        one, other = (zipfile.ZipFile(root / f"{name}{part}") for root in (noisy, exact))
        assert sum(one.read(n) == other.read(n) for n in one.namelist()) > 0.9 * SMALL.frames
    with (
        sens.SensFile(noisy / f"{name}.sens") as one,
        sens.SensFile(exact / f"{name}.sens") as other,
    ):
        one_depth, other_depth = one.depth(0).astype(float), other.depth(0).astype(float)
    both = one_depth > 0
    assert 0.75 < both.mean() < 1
    error = np.abs(one_depth - other_depth)[both]
    assert 1 < np.median(error) < 15  # millimeters


# --- camera --------------------------------------------------------------------------------------


def test_paths_keep_away_from_things_and_move_as_hands_do():
    for number in range(5):
        room = layout.build_room(1, number, lit=False)
        poses = paths.hand_held(room, 200, np.random.default_rng(number))
        eye = poses[:, :3, 3]
        assert signed_distance(room, eye[::4]).min() > 0.15
        assert np.linalg.norm(np.diff(eye, axis=0), axis=1).max() < 0.12
        turn = np.einsum("fij,fij->f", poses[1:, :3, :3], poses[:-1, :3, :3])
        degrees = np.rad2deg(np.arccos(np.clip((turn - 1) / 2, -1, 1)))
        assert 0.5 < np.median(degrees) < 3
        assert degrees.max() < 6
        sparse = paths.hand_held(room, 5, np.random.default_rng(number))
        np.testing.assert_allclose(sparse[[0, -1]], poses[[0, -1]], atol=1e-6)


def test_about_half_of_the_pairs_of_a_scan_overlap():
    shares = []
    for number in range(3):
        plan = small_plan(number, frames=9, height=240)
        clouds = []
        K = plan.rig.depth_intrinsic[:3, :3]
        for pose in plan.world_from_camera:
            depth, _ = cast.trace(plan.room, plan.rig.depth_shape, K, pose)
            points, valid = geometry.unproject(depth, K)
            clouds.append(geometry.transform(pose, points[valid]))
        trees = [cKDTree(cloud, leafsize=64, balanced_tree=False) for cloud in clouds]
        for a in range(9):
            for b in range(a):
                ab, ba = (
                    np.isfinite(
                        trees[i].query(clouds[j][::53], distance_upper_bound=0.02)[0]
                    ).mean()
                    for i, j in ((b, a), (a, b))
                )
                shares.append((ab + ba) / 2)
    assert 0.35 < (np.array(shares) >= 0.3).mean() < 0.75


# --- rooms ---------------------------------------------------------------------------------------


def test_classes_are_many_and_none_of_the_benchmark_is_rare():
    """On average a benchmark class has at least 2 % of the pixels; others are not evaluated."""
    K = np.array([[72.0, 0, 39.5], [0, 72.0, 29.5], [0, 0, 1]])
    shares = np.zeros((25, 41))
    for number in range(len(shares)):
        room = layout.build_room(0, number, lit=False)
        nyu40 = np.array([0] + [classes.CLASSES[name].nyu40 for name in room.names])
        for pose in paths.hand_held(room, 12, np.random.default_rng(number)):
            instance = render.instances(room, cast.trace(room, (60, 80), K, pose)[1])
            assert instance.all()
            shares[number] += np.bincount(nyu40[instance].ravel(), minlength=41)
    shares /= shares.sum(1, keepdims=True)
    evaluated = sorted(BENCHMARK & set(np.flatnonzero(shares.any(0))))
    assert len(evaluated) >= 12
    assert shares.mean(0)[evaluated].min() >= 0.02
    assert shares.mean(0)[[1, 2]].sum() < 0.5
    assert (shares[:5].mean(0)[evaluated] >= 0.02).sum() >= 8


def test_instances_of_a_class_look_different():
    room = layout.build_room(0, 2, lit=False)
    looks: dict[str, set] = {}
    for number, name in enumerate(room.names, 1):
        rows = room.texture[room.instance == number]
        assert len({row.tobytes() for row in rows}) <= len(rows)
        looks.setdefault(name, set()).add(rows[0].tobytes())
    for name in ("chair", "wall", "curtain"):
        assert len(looks[name]) == room.names.count(name) >= 2


def test_every_texture_family_is_drawn():
    rng = np.random.default_rng(0)
    drawn = np.array([textures.draw(rng) for _ in range(400)])
    assert set(drawn[:, 0]) == set(range(len(textures.FAMILIES)))
    assert len(textures.FAMILIES) == 8
    colors = drawn[:, 5:]
    assert colors.min() >= 0
    assert colors.max() <= 1


# --- files ---------------------------------------------------------------------------------------


@functools.cache
def read_scene(root: Path, scene: str) -> dict:
    stem = root / scene / scene
    tables = [
        line.split("\t")
        for line in (root / "scannetv2-labels.combined.tsv")
        .read_bytes()
        .decode()
        .split("\r\n")[1:-1]
    ]
    frames = {}
    for part in ("label", "instance"):
        with zipfile.ZipFile(f"{stem}_2d-{part}-filt.zip") as archive:
            assert archive.testzip() is None
            names = [f"{part}-filt/{n}.png" for n in range(len(archive.namelist()))]
            assert sorted(archive.namelist()) == sorted(names)
            opened = [Image.open(io.BytesIO(archive.read(name))) for name in names]
            assert {image.mode for image in opened} == {"I;16" if part == "label" else "L"}
            frames[part] = [np.asarray(image) for image in opened]
    info = (line.split(" = ") for line in Path(f"{stem}.txt").read_text().splitlines())
    return {
        "surface": plyfile.PlyData.read(f"{stem}_vh_clean_2.ply", known_list_len=LISTS),
        "labels": plyfile.PlyData.read(f"{stem}_vh_clean_2.labels.ply", known_list_len=LISTS),
        "segs": json.loads(Path(f"{stem}_vh_clean_2.0.010000.segs.json").read_text()),
        "aggregation": json.loads(Path(f"{stem}.aggregation.json").read_text()),
        "info": dict(info),
        "raw_to_id": {row[1]: int(row[0]) for row in tables},
        "raw_to_nyu40": {row[1]: int(row[4]) for row in tables},
        **frames,
    }


def test_headers_are_scannets(noisy):
    first = (noisy / "scene0000_00" / "scene0000_00_vh_clean_2.ply").read_bytes()
    header = first[: first.index(b"end_header\n")].decode().splitlines()
    assert header[:2] == ["ply", "format binary_little_endian 1.0"]
    properties = [line.split(" ", 1)[1] for line in header if line.startswith("property")]
    assert properties == [
        *(f"float {axis}" for axis in "xyz"),
        *(f"uchar {channel}" for channel in ("red", "green", "blue", "alpha")),
        "list uchar int vertex_indices",
    ]  # fmt: skip
    labels = read_scene(noisy, "scene0000_00")["labels"]
    assert labels["vertex"].data.dtype["label"] == np.dtype("<u2")
    table = (noisy / "scannetv2-labels.combined.tsv").read_bytes()
    lines = table.split(b"\r\n")
    assert lines[-1] == b""
    assert lines[0].split(b"\t")[:5] == [b"id", b"raw_category", b"category", b"count", b"nyu40id"]
    assert {line.count(b"\t") for line in lines[:-1]} == {16}


def test_mesh_segments_and_objects_agree(noisy):
    for scene in demo.scene_ids(SMALL):
        read = read_scene(noisy, scene)
        vertex, label = read["surface"]["vertex"], np.asarray(read["labels"]["vertex"]["label"])
        for axis in "xyz":
            np.testing.assert_array_equal(vertex[axis], read["labels"]["vertex"][axis])
        segment = np.array(read["segs"]["segIndices"])
        assert len(segment) == len(label) == len(vertex.data) > 10_000
        assert read["segs"]["sceneId"] == scene
        groups = read["aggregation"]["segGroups"]
        assert (
            [g["objectId"] for g in groups] == [g["id"] for g in groups] == list(range(len(groups)))
        )
        claimed = [s for group in groups for s in group["segments"]]
        assert sorted(claimed) == sorted(set(segment.tolist()))  # each segment has one object
        nyu40 = np.zeros(segment.max() + 1, int)
        for group in groups:
            nyu40[group["segments"]] = read["raw_to_nyu40"][group["label"]]
        np.testing.assert_array_equal(nyu40[segment], label)

        points = np.stack([vertex[axis] for axis in "xyz"], 1).astype(float)
        triangles = np.asarray(read["surface"]["face"]["vertex_indices"])
        assert triangles.min() == 0
        assert triangles.max() == len(points) - 1
        edges = np.linalg.norm(points[triangles] - points[np.roll(triangles, 1, axis=1)], axis=2)
        assert 0.01 < np.median(edges) < 0.025
        assert edges.max() < 0.06


def test_pixel_labels_and_instances_agree_with_the_objects(noisy):
    for scene in demo.scene_ids(SMALL):
        read = read_scene(noisy, scene)
        raw = [0] + [read["raw_to_id"][g["label"]] for g in read["aggregation"]["segGroups"]]
        assert len(read["label"]) == len(read["instance"]) == SMALL.frames
        seen = set()
        for label, instance in zip(read["label"], read["instance"]):
            assert label.shape == instance.shape == (72, 96)
            np.testing.assert_array_equal(np.array(raw)[instance], label)
            assert (label > 0).mean() > 0.98
            seen |= set(instance.ravel().tolist())
        assert len(seen) > 10


def test_header_and_info_file_describe_the_same_cameras(noisy):
    for scene in demo.scene_ids(SMALL):
        info = read_scene(noisy, scene)["info"]
        with sens.SensFile(noisy / scene / f"{scene}.sens") as file:
            header = file.header
        for which, shape, K in (
            ("color", header.color_shape, header.color_intrinsic),
            ("depth", header.depth_shape, header.depth_intrinsic),
        ):
            assert (int(info[f"{which}Height"]), int(info[f"{which}Width"])) == shape
            found = [float(info[f"{key}_{which}"]) for key in ("fx", "fy", "mx", "my")]
            np.testing.assert_allclose(found, K[[0, 1, 0, 1], [0, 1, 2, 2]], atol=1e-4)
            assert abs(K[0, 2] - (shape[1] - 1) / 2) < 1
        assert int(info["numColorFrames"]) == int(info["numDepthFrames"]) == SMALL.frames
        back = np.array(info["colorToDepthExtrinsics"].split(), float).reshape(4, 4)
        np.testing.assert_allclose(back @ header.depth_extrinsic, np.eye(4), atol=1e-6)
        np.testing.assert_array_equal(header.color_extrinsic, np.eye(4))
        assert 0.01 < np.linalg.norm(header.depth_extrinsic[:3, 3]) < 0.05
        assert header.depth_shift == 1000


def test_axis_alignment_levels_the_room(noisy):
    read = read_scene(noisy, "scene0001_00")
    align = np.array(read["info"]["axisAlignment"].split(), float).reshape(4, 4)
    vertex, label = read["labels"]["vertex"], np.asarray(read["labels"]["vertex"]["label"])
    points = geometry.transform(align, np.stack([vertex[axis] for axis in "xyz"], 1))
    assert np.abs(points[label == 2, 2]).max() < 1e-5
    walls = points[label == 1, :2]
    half = np.abs(walls).max(0)
    assert (np.abs(np.abs(walls) - half).min(1) < 1e-5).all()
    assert (np.abs(points[:, :2]) <= half + 1e-5).all()


def test_depth_color_labels_and_mesh_show_the_same_things(exact):
    """A depth point, moved by the header's extrinsics, meets its color and label in the color
    image, and the nearest vertex of the mesh carries the same label."""
    scene = "scene0000_00"
    read = read_scene(exact, scene)
    vertex = read["labels"]["vertex"]
    tree = cKDTree(np.stack([vertex[axis] for axis in "xyz"], 1))
    id_to_nyu40 = {read["raw_to_id"][n]: read["raw_to_nyu40"][n] for n in read["raw_to_id"]}
    agree, color_gap, shuffled_gap = [], [], []
    rng = np.random.default_rng(0)
    with sens.SensFile(exact / scene / f"{scene}.sens") as file:
        header = file.header
        for frame in range(0, len(file), 4):
            points, valid = geometry.unproject(
                file.depth(frame) / 1000.0, header.depth_intrinsic[:3, :3].astype(float)
            )
            points = points[valid]
            color_from_depth = np.linalg.inv(header.color_extrinsic) @ header.depth_extrinsic
            in_color = geometry.transform(color_from_depth, points)
            uv, inside = geometry.project(
                in_color, header.color_intrinsic[:3, :3].astype(float), header.color_shape
            )
            column, row = np.floor(uv[inside] + 0.5).astype(int).T
            label = read["label"][frame][row, column]
            world = geometry.transform(file.world_from_camera(frame), points[inside])
            distance, nearest = tree.query(world)
            assert np.quantile(distance, 0.95) < 0.03
            nyu40 = np.vectorize(lambda raw: id_to_nyu40.get(raw, 0))(label)
            agree.append(nyu40 == np.asarray(vertex["label"])[nearest])
            mesh = np.stack([vertex[c] for c in ("red", "green", "blue")], 1)[nearest].astype(float)
            color = file.color(frame)[row, column].astype(float)
            color_gap.append(np.abs(color - mesh))
            shuffled_gap.append(np.abs(color - rng.permutation(mesh)))
    assert np.concatenate(agree).mean() > 0.95
    assert np.concatenate(color_gap).mean() < 0.6 * np.concatenate(shuffled_gap).mean()


def test_found_as_any_other_scans(noisy):
    found = find.find_scans(noisy)
    assert sorted(found) == demo.scene_ids(SMALL) == ["scene0000_00", "scene0001_00"]
    assert all(entry.surface is not None for entry in found.values())


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_scan_has_the_same_bytes_whoever_makes_it(noisy, tmp_path):
    demo.make(tmp_path, SMALL.model_copy(update={"scans": 1}), scene="scene0001_00")
    again = digests(tmp_path / "scene0001_00")
    assert again == digests(noisy / "scene0001_00")
    assert len(again) == 8
    table = "scannetv2-labels.combined.tsv"
    assert (tmp_path / table).read_bytes() == (noisy / table).read_bytes()
    assert not set(again.values()) & set(digests(noisy / "scene0000_00").values())


def test_another_seed_is_another_room():
    one, other = (layout.build_room(seed, 0, lit=False) for seed in (0, 1))
    assert one.kind == other.kind
    assert one.size != other.size


def test_unknown_scene_is_refused(tmp_path):
    with pytest.raises(Pri3DError, match="scene0000_00"):
        demo.make(tmp_path, SMALL, scene="kitchen")
    assert not list(tmp_path.iterdir())


def test_contact_sheet_shows_frames_over_their_labels(noisy):
    sheet = demo.contact_sheet(noisy / "scene0000_00", 3)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * 72 + 4, 3 * 96 + 2 * 4, 3)
    labels = sheet[76:, :96].reshape(-1, 3)
    assert len(np.unique(labels, axis=0)) > 3
    assert len(np.unique(labels, axis=0)) < 20
