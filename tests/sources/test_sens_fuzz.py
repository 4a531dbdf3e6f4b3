"""Any damage to a `.sens` file: a Pri3DError or problem records, soon, within bounded memory."""

import functools
import struct
import time
import tracemalloc

import sens_bytes
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pri3d import artefacts, config
from pri3d.errors import Pri3DError
from pri3d.sources.export import info
from pri3d.sources.sens import SensFile
from pri3d.stages import clouds

FRAMES = 3
# The files have 2 to 9 kB, their images at most 3 kB; more memory would be a number believed.
MEMORY_BYTES = 4 << 20
SECONDS = 2

fuzz = functools.partial(
    settings, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@functools.cache
def sound(color: int, depth: int) -> bytes:
    """A sound file: color 0 raw, 1 png, 2 jpeg; depth 0 raw, 1 zlib; with IMU records."""
    encode = (lambda image: image.tobytes(), sens_bytes.png, sens_bytes.jpeg)[color]
    encode_depth = (lambda image: image.tobytes(), sens_bytes.zlib_depth)[depth]
    data = sens_bytes.header(FRAMES, color_compression=color, depth_compression=depth)
    for seed in range(FRAMES):
        image, depth_image = sens_bytes.rgb(seed), sens_bytes.depth_mm(seed)
        data += sens_bytes.frame(color=encode(image), depth=encode_depth(depth_image))
    return data + sens_bytes.tail(bytes(256))


def frame_starts(data: bytes) -> list[int]:
    starts = [len(sens_bytes.header(FRAMES))]
    while len(starts) < FRAMES:
        sizes = struct.unpack_from("<QQ", data, starts[-1] + 80)
        starts.append(starts[-1] + 96 + sum(sizes))
    return starts


def survives(data: bytes, folder) -> dict | None:
    """Read everything of the file; returns its info, or None where it ended in one clear line."""
    path = folder / "fuzz.sens"
    path.write_bytes(data)
    summary = line = None
    began = time.perf_counter()
    tracemalloc.start()
    try:
        summary = info(path)
        with SensFile(path) as scan:
            scan.imu_bytes()
    except Pri3DError as error:
        line = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY_BYTES
    assert time.perf_counter() - began < SECONDS
    if summary:
        readable = summary["frames_readable"]
        assert readable == summary["frames"] or summary["problems"]
    else:
        assert line.startswith(f"{path}: ")
        assert "\n" not in line
    return summary


encodings = st.tuples(st.integers(0, 2), st.integers(0, 1))


@fuzz(max_examples=300)
@given(encodings, st.integers(0, 20_000))
def test_cut_anywhere(tmp_path, encoding, size):
    data = sound(*encoding)
    cut = data[: size % len(data)]
    summary = survives(cut, tmp_path)
    header = len(sens_bytes.header(FRAMES))
    assert (summary is None) == (len(cut) < header)
    if summary:
        whole = [start for start in [*frame_starts(data)[1:], len(data) - 264] if start <= len(cut)]
        assert summary["frames_readable"] == summary["usable"] == len(whole)


@fuzz(max_examples=300)
@given(encodings, st.integers(0, 20_000), st.integers(1, 255))
def test_any_byte_changed(tmp_path, encoding, at, change):
    data = bytearray(sound(*encoding))
    data[at % len(data)] ^= change
    survives(bytes(data), tmp_path)


@fuzz(max_examples=300)
@given(encodings, st.integers(0, 20_000), st.binary(min_size=1, max_size=200))
def test_any_bytes_put_in_or_over(tmp_path, encoding, at, new):
    data = sound(*encoding)
    at %= len(data)
    survives(data[:at] + new + data[at:], tmp_path)
    survives(data[:at] + new + data[at + len(new) :], tmp_path)


FIELDS = sens_bytes.field_offsets()
numbers = (
    st.integers(0, 2**64 - 1) | st.integers(0, 5000) | st.sampled_from([2**31, 2**32 - 1, 2**63])
)


@fuzz(max_examples=600)
@given(encodings, st.sampled_from(sorted(FIELDS)), numbers, st.integers(0, 15))
@example((0, 0), "color_width", 16384, 0)
@example((2, 1), "frames", 2**64 - 1, 0)
@example((2, 1), "frames", 200_000, 0)
def test_any_header_field_of_any_value(tmp_path, encoding, field, value, element):
    offset, form = FIELDS[field]
    size = struct.calcsize(form)
    data = bytearray(sound(*encoding))
    if form == "<16f":
        offset, size = offset + 4 * element, 4
    data[offset : offset + size] = value.to_bytes(8, "little")[:size]
    survives(bytes(data), tmp_path)


@fuzz(max_examples=400)
@given(encodings, st.integers(0, FRAMES - 1), st.integers(0, 19), numbers)
def test_any_frame_field_of_any_value(tmp_path, encoding, frame, word, value):
    """Words 0 to 15 are the pose's; then two times and the two payload sizes."""
    data = bytearray(sound(*encoding))
    start = frame_starts(data)[frame]
    offset, size = (start + 4 * word, 4) if word < 16 else (start + 64 + 8 * (word - 16), 8)
    data[offset : offset + size] = value.to_bytes(8, "little")[:size]
    summary = survives(bytes(data), tmp_path)
    assert summary is not None
    if word < 18:
        assert summary["frames_readable"] == FRAMES
    else:
        assert summary["frames_readable"] >= frame  # those before it


@fuzz(max_examples=100)
@given(st.binary(max_size=600))
def test_any_bytes_at_all(tmp_path, data):
    survives(data, tmp_path)
    survives(sens_bytes.header(2**20) + data, tmp_path)


@fuzz(max_examples=100)
@given(encodings, st.integers(0, 20_000), st.integers(1, 255))
def test_clouds_of_damaged_files_account_for_every_frame(tmp_path, encoding, at, change):
    data = bytearray(sound(*encoding))
    data[at % len(data)] ^= change
    (tmp_path / "fuzz.sens").write_bytes(data)
    clouds.run(tmp_path / "fuzz.sens", tmp_path / "c.h5", config.Frames(every=1), keep_going=True)
    with artefacts.Clouds(tmp_path / "c.h5") as made:
        frames_in = int(made.file.attrs["frames_in"])
        assert len(made) + len(made.dropped) == frames_in
        if made.status.startswith("failed"):
            assert frames_in == 0
        else:
            assert len(made) == info(tmp_path / "fuzz.sens")["usable"]
