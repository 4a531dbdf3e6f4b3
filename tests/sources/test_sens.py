"""Sound `.sens` files: what is read, and that it is written again byte for byte."""

import os

import numpy as np
import pytest
import sens_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from pri3d.sources import images, sens
from pri3d.sources.export import export, format_info, info
from pri3d.sources.sens import SensFile, SensFrame, SensHeader, write_sens


def written(folder, data: bytes):
    path = folder / "scan.sens"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("color", ["raw", "png", "jpeg"])
@pytest.mark.parametrize("depth", ["raw", "zlib"])
def test_reads_what_another_writer_wrote(tmp_path, version, color, depth):
    encode_color = {"raw": np.ndarray.tobytes, "png": sens_bytes.png, "jpeg": sens_bytes.jpeg}
    encode_depth = {"raw": np.ndarray.tobytes, "zlib": sens_bytes.zlib_depth}
    rng = np.random.default_rng(1)
    poses = rng.normal(size=(3, 4, 4)).astype(np.float32)
    data = sens_bytes.header(
        3,
        version=version,
        name=b"\xff sensor",
        color_compression={"raw": 0, "png": 1, "jpeg": 2}[color],
        depth_compression={"raw": 0, "zlib": 1}[depth],
        depth_shift=5000,
        depth_extrinsic=poses[2],
    )
    for number in range(3):
        data += sens_bytes.frame(
            poses[number],
            encode_color[color](sens_bytes.rgb(number)),
            encode_depth[depth](sens_bytes.depth_mm(number)),
            times=(number, 7),
        )
    imu = bytes(range(128)) * 2
    if version == 4:
        data += sens_bytes.tail(imu)
    with SensFile(written(tmp_path, data)) as scan:
        assert (scan.frames, len(scan), scan.problems, scan.lost) == (3, 3, [], None)
        assert scan.header.sensor.encode("utf-8", "surrogateescape") == b"\xff sensor"
        assert scan.header.color_shape == sens_bytes.COLOR_SHAPE
        assert scan.header.depth_shape == sens_bytes.DEPTH_SHAPE
        assert scan.header.depth_shift == 5000
        assert np.array_equal(scan.header.color_intrinsic, np.float32(sens_bytes.K_COLOR))
        assert np.array_equal(scan.header.depth_intrinsic, np.float32(sens_bytes.K_DEPTH))
        assert np.array_equal(scan.header.depth_extrinsic, poses[2])
        assert scan.imu_records == (2 if version == 4 else 0)
        assert scan.imu_bytes() == (imu if version == 4 else None)
        for number in (2, 0, 1):
            assert np.array_equal(scan.world_from_camera(number), poses[number].astype(float))
            assert scan.times(number) == (number, 7)
            assert np.array_equal(scan.depth(number), sens_bytes.depth_mm(number))
            off = scan.color(number).astype(int) - sens_bytes.rgb(number)
            assert np.abs(off).max() <= (25 if color == "jpeg" else 0)
            assert np.abs(off).mean() < 3


def test_missing_tail_is_no_imu_records_and_no_problem(tmp_path):
    data = sens_bytes.header(1) + sens_bytes.good_frame()
    with SensFile(written(tmp_path, data)) as scan:
        assert (scan.imu_records, scan.imu_bytes(), scan.problems) == (0, None, [])


def test_opening_reads_headers_only(tmp_path, monkeypatch):
    big = bytes(3 * 24 * 32)
    frames = b"".join(sens_bytes.frame(color=big, depth=bytes(2 * 12 * 16)) for _ in range(200))
    data = sens_bytes.header(200, color_compression=0, depth_compression=0) + frames
    path = written(tmp_path, data + sens_bytes.tail())
    read = []
    pread = os.pread

    def counting(descriptor, length, offset):
        block = pread(descriptor, length, offset)
        read.append(len(block))
        return block

    monkeypatch.setattr(sens.os, "pread", counting)
    with SensFile(path) as scan:
        assert sum(read[1:]) == 200 * 96 + 8  # after the header
        read.clear()
        scan.color(100)
        scan.depth(3)
        assert read == [len(big), 2 * 12 * 16]


matrices = arrays(np.float32, (4, 4), elements=st.floats(-1e6, 1e6, width=32))
any_pose = arrays(np.float32, (4, 4), elements=st.floats(width=32))
u64 = st.integers(0, 2**64 - 1)
frames = st.lists(
    st.builds(SensFrame, any_pose, st.binary(max_size=40), st.binary(max_size=40), u64, u64),
    max_size=4,
)
headers = st.builds(
    SensHeader,
    color_shape=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    depth_shape=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    color_intrinsic=matrices,
    depth_intrinsic=matrices,
    color_extrinsic=matrices,
    depth_extrinsic=matrices,
    color_compression=st.sampled_from(["raw", "png", "jpeg"]),
    depth_compression=st.sampled_from(["raw", "zlib"]),
    depth_shift=st.floats(0.0009765625, 65536, width=32),
    sensor=st.binary(max_size=20).map(lambda b: b.decode("utf-8", "surrogateescape")),
    version=st.sampled_from([3, 4]),
)


@settings(deadline=None, max_examples=150)
@given(headers, frames, st.none() | st.integers(0, 3).map(lambda n: bytes(range(128)) * n))
def test_write_read_write_gives_the_same_bytes(tmp_path_factory, header, frames, imu):
    folder = tmp_path_factory.mktemp("round", numbered=True)
    write_sens(folder / "a.sens", header, frames, imu)
    with SensFile(folder / "a.sens") as scan:
        assert scan.problems == []
        assert len(scan) == len(frames)
        for number, frame in enumerate(frames):
            again = scan.frame(number)
            assert again.world_from_camera.tobytes() == frame.world_from_camera.tobytes()
            assert (again.color, again.depth) == (frame.color, frame.depth)
        kept = (scan.frame(number) for number in range(len(scan)))
        write_sens(folder / "b.sens", scan.header, kept, scan.imu_bytes())
    assert (folder / "a.sens").read_bytes() == (folder / "b.sens").read_bytes()


def test_encoders_come_back(tmp_path):
    header = SensHeader((24, 32), (12, 16), np.eye(4), np.eye(4))
    rgb, depth = sens_bytes.rgb(), sens_bytes.depth_mm()
    frame = SensFrame(np.eye(4), images.encode_color(rgb), images.encode_depth(depth))
    write_sens(tmp_path / "a.sens", header, iter([frame]))
    with SensFile(tmp_path / "a.sens") as scan:
        assert np.array_equal(scan.depth(0), depth)
        assert np.abs(scan.color(0).astype(int) - rgb).mean() < 3


def test_half_written_file_does_not_appear(tmp_path):
    def frames():
        yield SensFrame(np.eye(4), b"", b"")
        raise RuntimeError("the camera is gone")

    with pytest.raises(RuntimeError):
        write_sens(tmp_path / "a.sens", SensHeader((1, 1), (1, 1), np.eye(4), np.eye(4)), frames())
    assert list(tmp_path.iterdir()) == []


def test_jpeg_can_be_decoded_small(tmp_path):
    image = sens_bytes.rgb(shape=(96, 128))
    data = sens_bytes.header(1, color_width=128, color_height=96)
    data += sens_bytes.frame(color=sens_bytes.jpeg(image))
    with SensFile(written(tmp_path, data)) as scan:
        small = scan.color(0, min_height=40)
        assert 40 <= small.shape[0] < 96
        mean = images.area_resize(image, small.shape[:2])
        assert np.abs(small.astype(int) - mean).mean() < 3


@pytest.mark.parametrize("shape", [(7, 5), (12, 16), (11, 3), (1, 1), (24, 31)])
def test_area_resize_is_the_mean_over_the_covered_area(shape):
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    # On a grid that both sizes divide, the area mean is a mean of whole cells.
    fine = image.repeat(shape[0], axis=0).repeat(shape[1], axis=1).astype(float)
    mean = fine.reshape(shape[0], 24, shape[1], 32, 3).mean(axis=(1, 3))
    assert np.abs(images.area_resize(image, shape) - mean).max() <= 0.5 + 1e-3


def test_info_and_export(tmp_path):
    poses = [np.eye(4), np.full((4, 4), -np.inf), np.diag([1.0, 1, 1, 1])]
    poses[2][:3, 3] = 0.1, -1 / 3, 2
    frames = b"".join(sens_bytes.good_frame(seed, pose) for seed, pose in enumerate(poses))
    frames += sens_bytes.frame(np.eye(4), sens_bytes.jpeg(sens_bytes.rgb()), b"damaged")
    frames += sens_bytes.frame(np.eye(4), b"damaged", sens_bytes.zlib_depth(sens_bytes.depth_mm()))
    path = written(tmp_path, sens_bytes.header(5, name=b"\xe9") + frames + sens_bytes.tail())

    summary = info(path)
    assert summary["version"] == 4
    assert summary["sensor"] == "\N{REPLACEMENT CHARACTER}"
    assert (summary["frames"], summary["frames_readable"], summary["usable"]) == (5, 3, 2)
    assert summary["unusable"] == {"pose_not_finite": 1}
    assert [problem["frame"] for problem in summary["problems"]] == [3, 4]
    assert summary["color"]["width"] == 32
    assert summary["color"]["compression"] == "jpeg"
    assert summary["depth"]["height"] == 12
    assert summary["depth"]["shift"] == 1000
    assert summary["depth"]["intrinsic"] == [list(row) for row in sens_bytes.K_DEPTH]
    assert "usable 2 (not: 1 pose_not_finite)" in format_info(summary)
    assert "frame 3, byte" in format_info(summary)

    problems = export(path, tmp_path / "out", every=2)
    assert [problem["frame"] for problem in problems] == [4]
    names = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert names == {
        *("color/0.jpg", "color/2.jpg", "depth/0.png", "depth/2.png", "depth/4.png"),
        *("pose/0.txt", "pose/2.txt", "pose/4.txt"),
        *("intrinsic/intrinsic_color.txt", "intrinsic/extrinsic_color.txt"),
        *("intrinsic/intrinsic_depth.txt", "intrinsic/extrinsic_depth.txt"),
    }
    out = tmp_path / "out"
    assert (out / "color/2.jpg").read_bytes() == sens_bytes.jpeg(sens_bytes.rgb(2))
    assert np.array_equal(np.array(Image.open(out / "depth/2.png")), sens_bytes.depth_mm(2))
    assert np.array_equal(np.float32(np.loadtxt(out / "pose/2.txt")), np.float32(poses[2]))
    depth_K = np.loadtxt(out / "intrinsic/intrinsic_depth.txt")
    assert np.array_equal(depth_K, sens_bytes.K_DEPTH)


def test_export_of_lost_pose_and_raw_color(tmp_path):
    pose = np.full((4, 4), -np.inf)
    image = sens_bytes.rgb()
    data = sens_bytes.header(1, color_compression=0)
    data += sens_bytes.frame(pose, image.tobytes(), sens_bytes.zlib_depth(sens_bytes.depth_mm()))
    assert export(written(tmp_path, data), tmp_path / "out") == []
    assert np.isneginf(np.loadtxt(tmp_path / "out/pose/0.txt")).all()
    off = np.array(Image.open(tmp_path / "out/color/0.jpg")).astype(int) - image
    assert np.abs(off).mean() < 3


# name -> (frames, usable, what the file is there for: a check of its info)
VALID = {
    "all_pose_ninf_5f": (5, 0, lambda i: i["unusable"] == {"pose_not_finite": 5}),
    "base_5f": (5, 5, lambda i: (i["color"]["compression"], i["version"]) == ("jpeg", 4)),
    "color1296_20f": (20, 20, lambda i: (i["color"]["width"], i["color"]["height"]) == (1296, 968)),
    "color_png_5f": (5, 5, lambda i: i["color"]["compression"] == "png"),
    "color_raw_5f": (5, 5, lambda i: i["color"]["compression"] == "raw"),
    "depth_allzero_5f": (5, 3, lambda i: i["unusable"] == {"no_depth": 2}),
    "depth_raw_5f": (5, 5, lambda i: i["depth"]["compression"] == "raw"),
    "imu_5f": (5, 5, lambda i: i["imu_records"] == 20),
    "name_empty_5f": (5, 5, lambda i: i["sensor"] in ("", "Unknown")),
    "pose_ninf_10f": (10, 6, lambda i: i["unusable"] == {"pose_not_finite": 4}),
    "shift5000_5f": (5, 5, lambda i: i["depth"]["shift"] == 5000),
    "zero_frames": (0, 0, lambda i: i["frames"] == 0),
}


@pytest.mark.real
def test_every_valid_file_is_in_the_table(real_data):
    assert {path.stem for path in (real_data / "sens-valid").glob("*.sens")} == set(VALID)


@pytest.mark.real
@pytest.mark.parametrize("name", VALID)
def test_valid_file_reads_and_is_written_again(real_data, tmp_path, name):
    path = real_data / "sens-valid" / f"{name}.sens"
    count, usable, check = VALID[name]
    summary = info(path)
    assert (summary["frames"], summary["frames_readable"], summary["usable"]) == (
        count,
        count,
        usable,
    )
    assert summary["problems"] == []
    assert check(summary)
    with SensFile(path) as scan:
        stored = (scan.frame(number) for number in range(len(scan)))
        write_sens(tmp_path / "again.sens", scan.header, stored, scan.imu_bytes())
    assert (tmp_path / "again.sens").read_bytes() == path.read_bytes()


@pytest.mark.real
def test_encodings_of_the_same_frames_agree(real_data):
    folder = real_data / "sens-valid"
    with SensFile(folder / "base_5f.sens") as base:
        for name in ("color_png_5f", "color_raw_5f", "depth_raw_5f"):
            with SensFile(folder / f"{name}.sens") as other:
                for number in range(5):
                    assert np.array_equal(other.depth(number), base.depth(number))
                    off = other.color(number).astype(int) - base.color(number)
                    assert np.abs(off).mean() < 3


@pytest.mark.real
def test_lost_poses_are_the_ones_the_data_set_names(real_data):
    with SensFile(real_data / "sens-valid/pose_ninf_10f.sens") as scan:
        lost = [n for n in range(10) if np.isneginf(scan.world_from_camera(n)).all()]
    assert lost == [0, 3, 4, 9]
