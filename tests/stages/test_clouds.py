"""The clouds stage: world points, the ledger of dropped frames, stored color, same bytes."""

import io

import numpy as np
import pytest
import sens_bytes
from PIL import Image

from pri3d import artefacts, config, store
from pri3d.errors import Pri3DError
from pri3d.sources.export import info
from pri3d.stages import clouds

EVERY = config.Frames(every=1)
LOST = np.full((4, 4), -np.inf)
DEPTH = sens_bytes.zlib_depth(sens_bytes.depth_mm())
COLOR = sens_bytes.jpeg(sens_bytes.rgb())


def written(folder, data: bytes, name: str = "scan.sens"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(data)
    return path


def scan_of(*frames: bytes, **header) -> bytes:
    return sens_bytes.header(len(frames), **header) + b"".join(frames) + sens_bytes.tail()


def made(folder, data: bytes, settings=EVERY) -> artefacts.Clouds:
    clouds.run(written(folder, data), folder / "clouds.h5", settings)
    store.check_content(folder / "clouds.h5", artefacts.CLOUDS)
    return artefacts.Clouds(folder / "clouds.h5")


def rigid(seed: int) -> np.ndarray:
    """A random camera pose: rotation about a random axis (Rodrigues), up to 5 m away."""
    rng = np.random.default_rng(seed)
    x, y, z = axis = rng.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = rng.uniform(0, np.pi)
    pose = np.eye(4)
    pose[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    pose[:3, 3] = rng.uniform(-5, 5, 3)
    return pose.astype(np.float32).astype(np.float64)  # as a file can hold it


def closed_form(depth, K, pose, shift):
    """World points one by one: x = (u - cx) z / fx, y = (v - cy) z / fy, then R p + t."""
    points = []
    for v in range(depth.shape[0]):
        for u in range(depth.shape[1]):
            if depth[v, u]:
                z = float(depth[v, u]) / shift
                x = (u - float(K[0][2])) * z / float(K[0][0])
                y = (v - float(K[1][2])) * z / float(K[1][1])
                points.append([row[0] * x + row[1] * y + row[2] * z + row[3] for row in pose[:3]])
    return np.array(points)


def test_world_points_are_the_closed_form(tmp_path):
    poses = [rigid(seed) for seed in range(4)]
    frames = [sens_bytes.good_frame(seed, pose) for seed, pose in enumerate(poses)]
    with made(tmp_path, scan_of(*frames, depth_shift=2000)) as artefact:
        assert artefact.index.tolist() == [0, 1, 2, 3]
        assert artefact.status == "ok"
        assert artefact.scene == "scan"
        for row, pose in enumerate(poses):
            depth = sens_bytes.depth_mm(row)
            expected = closed_form(depth, sens_bytes.K_DEPTH, pose, 2000)
            cloud = artefact.cloud(row)
            assert len(cloud) == artefact.points[row] == np.count_nonzero(depth)
            assert np.abs(cloud - expected).max() < 1e-4


@pytest.mark.real
@pytest.mark.parametrize("name", ["base_5f", "shift5000_5f"])
def test_world_points_of_a_real_scan(real_data, tmp_path, name):
    clouds.run(real_data / f"sens-valid/{name}.sens", tmp_path / "c.h5", EVERY)
    data = (real_data / f"sens-valid/{name}.sens").read_bytes()
    K, shift = ((585, 0, 320), (0, 585, 240)), 5000 if name.startswith("shift") else 1000
    start = 304 + int.from_bytes(data[4:12], "little")
    with artefacts.Clouds(tmp_path / "c.h5") as artefact:
        for row in range(2):
            pose = np.frombuffer(data, "<f4", 16, start).reshape(4, 4).astype(float)
            sizes = np.frombuffer(data, "<u8", 2, start + 80)
            payload = data[start + 96 + int(sizes[0]) :][: int(sizes[1])]
            depth = np.frombuffer(sens_bytes.zlib.decompress(payload), "<u2").reshape(480, 640)
            start += 96 + int(sizes.sum())
            expected = closed_form(np.where(depth == 65535, 0, depth), K, pose, shift)
            assert np.abs(artefact.cloud(row) - expected).max() < 1e-4


def test_every_reason_to_drop_a_frame_is_counted(tmp_path):
    scaled, mirrored, nan = np.eye(4), np.eye(4), np.eye(4)
    scaled[:3, :3] *= 1.1
    mirrored[0, 0] = -1
    nan[1, 3] = np.nan
    empty = sens_bytes.zlib_depth(np.zeros(sens_bytes.DEPTH_SHAPE))
    invalid = sens_bytes.zlib_depth(np.full(sens_bytes.DEPTH_SHAPE, 65535))
    frames = [
        sens_bytes.frame(np.eye(4), COLOR, DEPTH),
        sens_bytes.frame(LOST, COLOR, DEPTH),
        sens_bytes.frame(nan, COLOR, DEPTH),
        sens_bytes.frame(np.zeros((4, 4)), COLOR, DEPTH),
        sens_bytes.frame(scaled, COLOR, DEPTH),
        sens_bytes.frame(mirrored, COLOR, DEPTH),
        sens_bytes.frame(np.eye(4), COLOR, empty),
        sens_bytes.frame(np.eye(4), COLOR, invalid),
        sens_bytes.frame(np.eye(4), COLOR, b"damaged"),
        sens_bytes.frame(np.eye(4), b"damaged", DEPTH),
        sens_bytes.frame(np.eye(4), COLOR, DEPTH),
        sens_bytes.frame(np.eye(4), COLOR, DEPTH),
        sens_bytes.frame(np.eye(4), COLOR, DEPTH),
    ]
    data = sens_bytes.header(len(frames)) + b"".join(frames)
    with made(tmp_path, data[: -len(frames[-1]) - 10]) as artefact:  # cut inside frame 11
        assert artefact.index.tolist() == [0, 10]
        assert artefact.dropped == [
            (1, "pose_not_finite"),
            (2, "pose_not_finite"),
            (3, "pose_zero"),
            (4, "pose_not_rigid"),
            (5, "pose_not_rigid"),
            (6, "no_depth"),
            (7, "no_depth"),
            (8, "depth_unreadable"),
            (9, "color_unreadable"),
            (11, "cut"),
            (12, "cut"),
        ]
        assert artefact.status.startswith(
            "partial: 4 of 13 frames are damaged or missing, the first is frame 8: "
        )
        attrs = artefact.file.attrs
        assert (attrs["frames_in_scan"], attrs["frames_in"]) == (13, 13)


def test_frames_that_lack_a_pose_alone_are_stored_apart(tmp_path):
    other = sens_bytes.zlib_depth(sens_bytes.depth_mm(seed=3))
    frames = [
        sens_bytes.frame(LOST, COLOR, DEPTH),
        sens_bytes.frame(np.eye(4), COLOR, DEPTH),
        sens_bytes.frame(LOST, COLOR, b"damaged"),
        sens_bytes.frame(LOST, b"damaged", DEPTH),
        sens_bytes.frame(np.zeros((4, 4)), COLOR, other),
    ]
    with made(tmp_path, scan_of(*frames)) as artefact:
        assert artefact.index.tolist() == [1]
        lost = "pose_not_finite"
        assert artefact.dropped == [(0, lost), (2, lost), (3, lost), (4, "pose_zero")]
        apart = artefact.unposed
        assert apart.index.tolist() == [0, 4]
        assert np.array_equal(apart.raw_depth(0), artefact.raw_depth(0))
        assert not np.array_equal(apart.raw_depth(1), artefact.raw_depth(0))
        assert apart.points.tolist() == [np.count_nonzero(apart.raw_depth(row)) for row in (0, 1)]
        assert apart.color_jpeg(1) == artefact.color_jpeg(0)
        assert artefact.status == "ok"
    with made(tmp_path / "whole", scan_of(sens_bytes.good_frame())) as artefact:
        assert "unposed" not in artefact.file
        assert len(artefact.unposed) == 0


def test_frames_behind_a_damaged_size_are_unreachable(tmp_path):
    good = sens_bytes.good_frame()
    bad = sens_bytes.frame(np.eye(4), COLOR, DEPTH, sizes=(2**50, 10))
    with made(tmp_path, scan_of(good, bad, good)) as artefact:
        assert artefact.index.tolist() == [0]
        assert artefact.dropped == [(1, "unreachable"), (2, "unreachable")]


def test_damage_outside_the_selected_frames_makes_the_scan_partial(tmp_path):
    data = scan_of(*[sens_bytes.good_frame()] * 6)
    with made(tmp_path, data[:-20], config.Frames(every=3)) as artefact:
        assert artefact.index.tolist() == [0, 3]
        assert artefact.dropped == []
        assert "1 of 6 frames are lost" in artefact.status


def test_impossible_count_is_not_believed(tmp_path):
    data = sens_bytes.header(2**60) + sens_bytes.good_frame() * 3 + sens_bytes.tail()
    with made(tmp_path, data, config.Frames(every=2)) as artefact:
        assert artefact.index.tolist() == [0, 2]
        assert artefact.dropped == []
        assert artefact.status.startswith("partial: ")
        attrs = artefact.file.attrs
        assert (int(attrs["frames_in_scan"]), attrs["frames_in"]) == (2**60, 2)


def test_every_nth_frame(tmp_path):
    frames = [sens_bytes.good_frame(seed) for seed in range(8)]
    with made(tmp_path, scan_of(*frames), config.Frames(every=3)) as artefact:
        assert artefact.index.tolist() == [0, 3, 6]
        assert int(artefact.file.attrs["frames_in_scan"]) == 8
        assert np.array_equal(artefact.raw_depth(1), sens_bytes.depth_mm(3))
        assert artefact.color_jpeg(2) == sens_bytes.jpeg(sens_bytes.rgb(6))


def test_a_pose_slightly_off_is_kept_as_it_is(tmp_path):
    pose = rigid(5)
    pose[:3, :3] *= 1 + 3e-4
    pose = pose.astype(np.float32)
    with made(tmp_path, scan_of(sens_bytes.good_frame(0, pose))) as artefact:
        assert np.array_equal(artefact.world_from_camera[0], pose.astype(np.float64))


def test_pixels_that_are_no_points(tmp_path):
    depth = np.full(sens_bytes.DEPTH_SHAPE, 1000, np.uint16)
    depth[0, :4] = 0, 65535, 3000, 3001
    data = scan_of(sens_bytes.frame(np.eye(4), COLOR, sens_bytes.zlib_depth(depth)))
    with made(tmp_path, data, config.Frames(every=1, max_depth_m=3.0)) as artefact:
        assert artefact.raw_depth(0)[0, :5].tolist() == [0, 0, 3000, 0, 1000]
        assert artefact.points[0] == depth.size - 3
    with made(tmp_path, data, config.Frames(every=1, max_depth_m=0.9)) as artefact:
        assert artefact.dropped == [(0, "no_depth")]
        assert artefact.status == "partial: no frame is kept (1 no_depth)"


def test_taller_color_is_shrunk_with_its_intrinsics(tmp_path):
    image = np.array(Image.fromarray(sens_bytes.rgb()).resize((160, 121), Image.BICUBIC))
    K = np.array([[150, 0, 79.5, 0], [0, 151, 60.0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    header = {"color_width": 160, "color_height": 121, "color_intrinsic": K}
    frame = sens_bytes.frame(np.eye(4), sens_bytes.jpeg(image), DEPTH)
    settings = config.Frames(every=1, color_height=50)
    with made(tmp_path, scan_of(frame, **header), settings) as artefact:
        assert artefact.color_shape == (50, 66)
        stored = Image.open(io.BytesIO(artefact.color_jpeg(0)))
        assert (stored.height, stored.width) == (50, 66)
        reference = np.array(Image.fromarray(image).resize((66, 50), Image.Resampling.HAMMING))
        assert np.abs(np.array(stored).astype(int) - reference).mean() < 3
        # A ray through a pixel hits the same share of the image's extent before and after.
        for axis, (before, after) in enumerate([(160, 66), (121, 50)]):
            for slope in (-0.3, 0.0, 0.2):
                u = K[axis, axis] * slope + K[axis, 2]
                v = artefact.color_K[axis, axis] * slope + artefact.color_K[axis, 2]
                assert (u + 0.5) / before == pytest.approx((v + 0.5) / after)
    kept = config.Frames(every=1, color_height=0)
    with made(tmp_path / "kept", scan_of(frame, **header), kept) as artefact:
        assert artefact.color_jpeg(0) == sens_bytes.jpeg(image)
        assert artefact.color_shape == (121, 160)
        assert np.allclose(artefact.color_K, K[:3, :3], atol=1e-5)


@pytest.mark.parametrize(("kind", "encode"), [(0, np.ndarray.tobytes), (1, sens_bytes.png)])
def test_raw_and_png_color_become_jpeg(tmp_path, kind, encode):
    frame = sens_bytes.frame(np.eye(4), encode(sens_bytes.rgb()), DEPTH)
    with made(tmp_path, scan_of(frame, color_compression=kind)) as artefact:
        stored = np.array(Image.open(io.BytesIO(artefact.color_jpeg(0))))
        assert np.abs(stored.astype(int) - sens_bytes.rgb()).mean() < 3


def test_extrinsics_take_depth_points_to_the_color_camera(tmp_path):
    color, depth = rigid(1), rigid(2)
    data = scan_of(sens_bytes.good_frame(), color_extrinsic=color, depth_extrinsic=depth)
    with made(tmp_path, data) as artefact:
        assert np.allclose(color @ artefact.color_from_depth, depth, atol=1e-6)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"depth_compression": 2}, "occi"),
        ({"version": 1}, "version 1"),
        ({"depth_intrinsic": np.zeros((4, 4))}, "depth camera has focal lengths of 0 and 0"),
        ({"color_intrinsic": np.ones((4, 4)) * 99}, "colour camera's intrinsics have a skew"),
        ({"color_extrinsic": np.zeros((4, 4))}, "colour camera's extrinsic is no rigid transform"),
    ],
)
def test_scan_that_cannot_be_read(tmp_path, header, says):
    data = scan_of(sens_bytes.good_frame(), **header)
    scan, out = written(tmp_path, data), tmp_path / "c.h5"
    with pytest.raises(Pri3DError, match=says):
        clouds.run(scan, out, EVERY)
    assert not out.exists()
    clouds.run(scan, out, EVERY, keep_going=True)
    store.check_content(out, artefacts.CLOUDS)
    with artefacts.Clouds(out) as artefact:
        assert len(artefact) == 0
        assert artefact.dropped == []
        assert artefact.status.startswith("failed: scan.sens: ")
        assert says in artefact.status
        assert artefact.file.attrs["frames_in"] == 0


def test_missing_scan(tmp_path):
    with pytest.raises(Pri3DError, match="No such file"):
        clouds.run(tmp_path / "a.sens", tmp_path / "c.h5", EVERY)
    clouds.run(tmp_path / "a.sens", tmp_path / "c.h5", EVERY, keep_going=True)
    with artefacts.Clouds(tmp_path / "c.h5") as artefact:
        assert "No such file" in artefact.status


@pytest.mark.parametrize("frames", [0, 2])
def test_scan_without_a_usable_frame_is_an_artefact(tmp_path, frames):
    data = scan_of(*[sens_bytes.frame(LOST, COLOR, DEPTH)] * frames)
    with made(tmp_path, data) as artefact:
        assert len(artefact) == 0
        assert len(artefact.dropped) == frames
        assert artefact.status.startswith("partial: no frame is kept (")
        assert artefact.shape == sens_bytes.DEPTH_SHAPE


def test_same_bytes_wherever_and_whenever(tmp_path):
    data = scan_of(*[sens_bytes.good_frame(seed, rigid(seed)) for seed in range(3)])
    one, two = written(tmp_path / "one", data), written(tmp_path / "two/deeper", data)
    clouds.run(one, tmp_path / "a.h5", EVERY)
    clouds.run(two, tmp_path / "other.h5", EVERY)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "other.h5").read_bytes()


def test_input_digest_covers_what_was_read(tmp_path):
    def inputs(frames):
        with made(tmp_path, scan_of(*frames), config.Frames(every=2)) as artefact:
            return artefact.inputs

    frames = [sens_bytes.good_frame(seed) for seed in range(3)]
    before = inputs(frames)
    assert before == inputs(frames)
    for changed in (0, 2):
        other = list(frames)
        other[changed] = sens_bytes.good_frame(9)
        assert inputs(other) != before
    moved = list(frames)
    moved[1] = sens_bytes.good_frame(1, rigid(3))  # its header is read, its images are not
    assert inputs(moved) != before
    unread = list(frames)
    color = sens_bytes.jpeg(sens_bytes.rgb(1))
    unread[1] = sens_bytes.frame(
        np.eye(4), color[::-1], sens_bytes.zlib_depth(sens_bytes.depth_mm(1))
    )
    assert inputs(unread) == before


@pytest.mark.real
def test_info_and_clouds_agree_on_every_file(real_data, tmp_path):
    paths = sorted(real_data.glob("sens-*/*.sens"))
    assert len(paths) > 20
    for path in paths:
        clouds.run(path, tmp_path / "c.h5", EVERY, keep_going=True)
        with artefacts.Clouds(tmp_path / "c.h5") as artefact:
            assert len(artefact) + len(artefact.dropped) == artefact.file.attrs["frames_in"]
            if not artefact.status.startswith("failed"):
                summary = info(path)
                assert len(artefact) == summary["usable"]
                assert int(artefact.file.attrs["frames_in_scan"]) == summary["frames"]
