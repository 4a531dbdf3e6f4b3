"""Damaged `.sens` files: one clear line, or the good frames and a record of each bad one."""

import json
import os
import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import sens_bytes

from pri3d.errors import Pri3DError
from pri3d.sources.export import info
from pri3d.sources.sens import DamagedFrame, SensFile

OFFSETS = sens_bytes.field_offsets()


def written(folder, data: bytes):
    path = folder / "scan.sens"
    path.write_bytes(data)
    return path


def patched(field: str, *values) -> bytes:
    """A sound file of three frames with one header field overwritten."""
    data = bytearray(sens_bytes.good_file())
    offset, form = OFFSETS[field]
    struct.pack_into(form, data, offset, *values)
    return bytes(data)


NAN_MATRIX = [*np.ravel(sens_bytes.K_DEPTH)[:5], np.nan, *np.zeros(10)]


@pytest.mark.parametrize(
    ("field", "values", "says"),
    [
        ("version", [2], "version 2, only 3 and 4"),
        ("version", [2**32 - 1], "version 4294967295"),
        ("name_bytes", [2**62], f"a sensor name of {2**62} bytes"),
        ("name_bytes", [10**6], "a sensor name of 1000000 bytes"),
        ("color_intrinsic", NAN_MATRIX, "color_intrinsic holds values that are not finite"),
        ("depth_intrinsic", NAN_MATRIX, "depth_intrinsic holds values that are not finite"),
        ("color_extrinsic", NAN_MATRIX, "color_extrinsic holds values that are not finite"),
        ("depth_extrinsic", NAN_MATRIX, "depth_extrinsic holds values that are not finite"),
        ("color_compression", [-1], r"colour compression unknown \(-1\) has no decoder"),
        ("color_compression", [77], r"colour compression of an unknown type \(77\)"),
        ("depth_compression", [-1], r"depth compression unknown \(-1\)"),
        ("depth_compression", [2], r"depth compression occi \(2\) has no decoder"),
        ("depth_compression", [3], r"depth compression of an unknown type \(3\)"),
        ("color_width", [0], "colour images of 0x24 pixels"),
        ("color_height", [2**32 - 1], "colour images of 32x4294967295 pixels"),
        ("depth_width", [2**31], "depth images of 2147483648x12 pixels"),
        ("depth_height", [0], "depth images of 16x0 pixels"),
        ("depth_shift", [0.0], "the depth shift is 0.0"),
        ("depth_shift", [-1000.0], "the depth shift is -1000.0"),
        ("depth_shift", [np.nan], "the depth shift is nan"),
        ("depth_shift", [np.inf], "the depth shift is inf"),
    ],
)
def test_impossible_header_is_one_sentence_with_its_byte(tmp_path, field, values, says):
    path = written(tmp_path, patched(field, *values))
    with pytest.raises(Pri3DError, match=says) as raised:
        SensFile(path)
    text = str(raised.value)
    assert text.startswith(f"{path}: byte ")
    assert "\n" not in text
    # Width and height share a sentence, which names the place where the two begin.
    first = {"color_height": "color_width", "depth_height": "depth_width"}.get(field, field)
    assert f": byte {OFFSETS[first][0]}: " in text


def test_both_sides_allowed_but_too_many_pixels(tmp_path):
    data = bytearray(patched("color_width", 1 << 14))
    struct.pack_into("<I", data, OFFSETS["color_height"][0], 1 << 14)
    with pytest.raises(Pri3DError, match="16384x16384"):
        SensFile(written(tmp_path, bytes(data)))


@pytest.mark.parametrize("size", [0, 3, 11, 12, 100, 307])
def test_file_that_ends_in_its_header(tmp_path, size):
    with pytest.raises(Pri3DError, match=rf"byte {size}: .*header"):
        SensFile(written(tmp_path, sens_bytes.good_file()[:size]))


def test_what_is_no_file(tmp_path):
    with pytest.raises(Pri3DError, match="No such file"):
        SensFile(tmp_path / "missing.sens")
    with pytest.raises(Pri3DError, match="not a regular file"):
        SensFile(tmp_path)
    os.mkfifo(tmp_path / "pipe.sens")
    with pytest.raises(Pri3DError, match="not a regular file"):
        SensFile(tmp_path / "pipe.sens")


def frame_starts() -> list[int]:
    """Byte offsets of the three frames of `good_file`, and of its tail."""
    starts = [len(sens_bytes.header(3))]
    for seed in range(3):
        starts.append(starts[-1] + len(sens_bytes.good_frame(seed)))
    return starts


@pytest.mark.parametrize("into", [0, 50, 96, 200, -1])
def test_cut_file_keeps_the_frames_before(tmp_path, into):
    start, end = frame_starts()[1:3]
    size = start + into if into >= 0 else end + into
    with SensFile(written(tmp_path, sens_bytes.good_file()[:size])) as scan:
        assert (scan.frames, len(scan), scan.lost) == (3, 1, "cut")
        assert [(p["frame"], p["offset"]) for p in scan.problems] == [(1, start)]
        assert "2 of 3 frames are lost" in scan.problems[0]["reason"]
        assert np.array_equal(scan.depth(0), sens_bytes.depth_mm(0))
        with pytest.raises(IndexError):
            scan.depth(1)


@pytest.mark.parametrize("which", [80, 88])
@pytest.mark.parametrize("size", [2**30, 2**63, 2**64 - 1])
def test_impossible_payload_size(tmp_path, which, size):
    start = frame_starts()[1]
    data = bytearray(sens_bytes.good_file())
    struct.pack_into("<Q", data, start + which, size)
    with SensFile(written(tmp_path, bytes(data))) as scan:
        assert (len(scan), scan.lost) == (1, "unreachable")
        assert [(p["frame"], p["offset"]) for p in scan.problems] == [(1, start)]
        assert "sizes are damaged" in scan.problems[0]["reason"]


def test_payload_far_larger_than_its_image_is_not_read(tmp_path):
    big = bytes(1 << 20)
    data = sens_bytes.header(2) + sens_bytes.frame(color=b"", depth=big) + sens_bytes.good_frame(1)
    with SensFile(written(tmp_path, data + sens_bytes.tail())) as scan:
        assert len(scan) == 2
        with pytest.raises(DamagedFrame, match="depth image of 1048576 bytes is not possible"):
            scan.depth(0)
        assert np.array_equal(scan.depth(1), sens_bytes.depth_mm(1))


def test_frame_counts_that_do_not_fit(tmp_path):
    whole = sens_bytes.good_file()
    offset, form = OFFSETS["frames"]
    for count, frame, says in (
        (2, None, "bytes after the last frame are not its IMU records"),
        (4, 3, "the header claims too many; 1 of 4 frames are lost"),
        (2**64 - 1, None, f"claims {2**64 - 1} frames, which cannot be; 3 are there"),
    ):
        data = bytearray(whole)
        struct.pack_into(form, data, offset, count)
        with SensFile(written(tmp_path, bytes(data))) as scan:
            assert len(scan) == min(count, 3)
            assert scan.frames == count
            (problem,) = scan.problems
            assert problem["frame"] == frame
            assert says in problem["reason"]


@pytest.mark.parametrize("tail", [b"\x01", sens_bytes.tail(bytes(128))[:-1], b"\xff" * 8])
def test_damaged_tail_costs_no_frame(tmp_path, tail):
    data = sens_bytes.good_file()[:-8]
    with SensFile(written(tmp_path, data + tail)) as scan:
        assert (len(scan), scan.imu_records, scan.imu_bytes()) == (3, 0, None)
        (problem,) = scan.problems
        assert (problem["frame"], problem["offset"]) == (None, len(data))


def flipped(payload: bytes, at: int) -> bytes:
    return payload[:at] + bytes([payload[at] ^ 0x55]) + payload[at + 1 :]


SMALL = sens_bytes.rgb(shape=(12, 16))
DEPTH = sens_bytes.zlib_depth(sens_bytes.depth_mm(1))


@pytest.mark.parametrize(
    ("color", "depth", "says"),
    [
        (None, flipped(DEPTH, -1 % len(DEPTH)), "does not inflate"),
        (None, flipped(DEPTH, 0), "does not inflate"),
        (None, DEPTH[:-2], "has lost its checksum"),
        (None, zlib.compress(bytes(100)), "has 100 bytes instead of 384"),
        (None, zlib.compress(bytes(10**7)), "inflates to more than 384 bytes"),
        (None, b"", "has 0 bytes instead of 384"),
        (sens_bytes.jpeg(SMALL), None, "is 16x12 instead of 32x24 pixels"),
        (flipped(sens_bytes.jpeg(sens_bytes.rgb()), 0), None, "JPEG image does not decode"),
        (sens_bytes.jpeg(sens_bytes.rgb())[:-20], None, "JPEG image does not decode"),
        (b"", None, "JPEG image does not decode"),
    ],
)
def test_damaged_payload_costs_one_frame(tmp_path, color, depth, says):
    good = sens_bytes.jpeg(sens_bytes.rgb())
    middle = sens_bytes.frame(color=good if color is None else color, depth=depth or DEPTH)
    if depth == b"":
        middle = sens_bytes.frame(color=good)
    data = sens_bytes.header(3) + sens_bytes.good_frame(0) + middle + sens_bytes.good_frame(2)
    path = written(tmp_path, data + sens_bytes.tail())
    result = info(path)
    assert (result["frames_readable"], result["usable"]) == (2, 2)
    (problem,) = result["problems"]
    payload = frame_starts()[1] + 96 + (len(good) if color is None else 0)
    assert (problem["frame"], problem["offset"]) == (1, payload)
    assert says in problem["reason"]
    with SensFile(path) as scan:
        assert np.array_equal(scan.depth(2), sens_bytes.depth_mm(2))


@pytest.mark.parametrize("at", [3, 20, 45, 70, -20, -14])
def test_damaged_png_is_noticed_anywhere(tmp_path, at):
    png = sens_bytes.png(sens_bytes.rgb())
    data = sens_bytes.header(1, color_compression=1)
    data += sens_bytes.frame(color=flipped(png, at % len(png)), depth=DEPTH)
    with (
        SensFile(written(tmp_path, data)) as scan,
        pytest.raises(DamagedFrame, match="PNG image does not decode"),
    ):
        scan.color(0)


@pytest.mark.parametrize(("kind", "says"), [(0, "raw colour image has 5 bytes"), (1, "PNG")])
def test_raw_and_png_of_another_size(tmp_path, kind, says):
    payload = b"12345" if kind == 0 else sens_bytes.png(SMALL)
    data = sens_bytes.header(1, color_compression=kind) + sens_bytes.frame(color=payload)
    with (
        SensFile(written(tmp_path, data)) as scan,
        pytest.raises(DamagedFrame, match=says),
    ):
        scan.color(0)


# name -> words of the one line, or (readable frames, frames named in the problems)
BROKEN = {
    "bad_version_3": (5, [None]),
    "color_type_unknown": "colour compression unknown",
    "colorsize_huge_f1": (1, [1]),
    "depth_dims_wrong": (0, [0, 1, 2, 3, 4]),
    "depth_inflates_short_f1": (4, [1]),
    "empty_file": "has no .sens header",
    "jpeg_flip_soi_f1": (4, [1]),
    "numframes_huge": (5, [None]),
    "numframes_plus1": (5, [5]),
    "shift_zero": "the depth shift is 0.0",
    "strlen_huge": "a sensor name of 4611686018427387904 bytes",
    "trunc_at_frame_boundary_f3": (3, [3]),
    "trunc_mid_color_f2": (2, [2]),
    "trunc_mid_depth_f2": (2, [2]),
    "trunc_mid_fileheader": "the file ends inside its header",
    "trunc_no_imu_count": (5, []),
    "zlib_flip_f1": (4, [1]),
}
LIMIT_BYTES = 500_000_000
PROGRAM = """
import json, sys
from pathlib import Path
from pri3d import artefacts, config
from pri3d.errors import Pri3DError
from pri3d.sources.export import info
from pri3d.stages import clouds
result = {}
try:
    result["info"] = info(sys.argv[1])
except Pri3DError as error:
    result["error"] = str(error)
clouds.run(Path(sys.argv[1]), Path(sys.argv[2]), config.Frames(every=1), keep_going=True)
with artefacts.Clouds(sys.argv[2]) as made:
    result.update(kept=made.index.tolist(), dropped=made.dropped, status=made.status)
# Of this program alone: ru_maxrss would also count the process that started it.
status = Path("/proc/self/status").read_text()
result["peak"] = int(status.split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps(result))
"""


@pytest.mark.real
def test_every_broken_file_is_in_the_table(real_data):
    assert {path.stem for path in (real_data / "sens-broken").glob("*.sens")} == set(BROKEN)


@pytest.mark.real
@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_ends_soon_small_and_clear(real_data, tmp_path, name):
    """Information and clouds of the file, within 5 CPU-seconds and 500 MB of address space."""

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (5, 5))

    path = real_data / "sens-broken" / f"{name}.sens"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path, tmp_path / "clouds.h5"],
        capture_output=True,
        timeout=60,  # a hang; a busy machine stretches the clock
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        preexec_fn=limit,
    )
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout)
    assert result["peak"] < LIMIT_BYTES
    expected = BROKEN[name]
    if isinstance(expected, str):
        assert expected in result["error"]
        assert "\n" not in result["error"]
        assert result["error"].startswith(str(path))
        assert result["kept"] == []
        assert result["status"].startswith("failed: ")
        assert expected in result["status"]
    else:
        readable, frames = expected
        assert result["info"]["frames_readable"] == readable
        assert [problem["frame"] for problem in result["info"]["problems"]] == frames
        assert len(result["kept"]) == readable == result["info"]["usable"]
        assert (result["status"] == "ok") == (frames == [])


@pytest.mark.real
def test_good_frames_of_broken_files_are_the_original_ones(real_data):
    with SensFile(real_data / "sens-valid/base_5f.sens") as base:
        for name in ("trunc_mid_depth_f2", "colorsize_huge_f1", "zlib_flip_f1", "numframes_huge"):
            with SensFile(real_data / "sens-broken" / f"{name}.sens") as broken:
                for number in range(len(broken)):
                    if (name, number) != ("zlib_flip_f1", 1):
                        assert np.array_equal(broken.depth(number), base.depth(number))
                        assert broken.color_bytes(number) == base.color_bytes(number)
