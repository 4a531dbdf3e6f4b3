"""Artefacts are whole or not there, notice damage, and have a digest of what they hold."""

import os
import random
import signal
import stat
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from pri3d import store
from pri3d.errors import Pri3DError

FORMAT = "pri3d-clouds"


def write(
    path, values=None, *, format=FORMAT, settings=None, inputs=None, compress=False, names="ab"
):
    values = np.arange(600, dtype=np.uint16).reshape(20, 30) if values is None else values
    with store.publish(path, format, settings or {"every": 25}, inputs or {}) as artefact:
        artefact.attribute("scene", "s1")
        for name in names:
            artefact.dataset(f"frames/{name}", values, compress=compress)
    return store.artefact_digest(path)


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(".tmp"))


def test_round_trip(tmp_path):
    path = tmp_path / "new" / "a.h5"
    empty = np.zeros((0, 4, 4))
    with store.publish(path, FORMAT, {"every": 25}, {"scan": "12ab"}) as artefact:
        artefact.attribute("scene", "s1")
        artefact.dataset("frames/pose", empty)
        artefact.dataset("reason", np.array([b"no depth", b"lost"], "S"))
        artefact.empty("depth", (3, 2), np.uint16)[1] = (7, 8)
    with store.open_artefact(path, FORMAT) as file:
        assert file.attrs["scene"] == "s1"
        assert file.attrs["schema"] == 1
        assert file.attrs["settings"] == '{"every": 25}'
        assert file.attrs["inputs"] == '{"scan": "12ab"}'
        assert bool(file.attrs["complete"])
        assert file["frames/pose"].shape == (0, 4, 4)
        assert file["reason"][()].tolist() == [b"no depth", b"lost"]
        assert file["depth"][()].tolist() == [[0, 0], [7, 8], [0, 0]]
        found = []
        file.visititems(lambda _, item: found.append(item))
        assert all(item.fletcher32 for item in found if isinstance(item, h5py.Dataset))
    assert store.check_content(path, FORMAT) == store.artefact_digest(path)
    assert leftovers(path.parent) == []


def test_the_digest_is_of_the_content(tmp_path):
    path = tmp_path / "a.h5"
    digest = write(path)
    time.sleep(1.1)  # HDF5 time stamps count seconds
    same = {
        "another time": write(path),
        "other settings": write(path, settings={"every": 3}),
        "other inputs": write(path, inputs={"scan": "12ab"}),
        "compressed": write(path, compress=True),
        "another order": write(path, names="ba"),
    }
    assert {what: found for what, found in same.items() if found != digest} == {}
    values = np.arange(600, dtype=np.uint16).reshape(20, 30)
    changed = values.copy()
    changed[19, 29] += 1
    different = [
        write(path, changed),
        write(path, values.astype(np.uint32)),
        write(path, values.reshape(30, 20)),
        write(path, names="ac"),
        write(path, names="a"),
        write(path, format="pri3d-chunks"),
        digest,
    ]
    assert len(set(different)) == len(different)


def test_an_artefact_has_the_same_bytes_each_time(tmp_path):
    for name in ("a.h5", "b.h5"):
        write(tmp_path / name, compress=True)
        time.sleep(1.1)
    assert store.file_digest(tmp_path / "a.h5") == store.file_digest(tmp_path / "b.h5")


def test_artefacts_can_be_read_by_others(tmp_path):
    write(tmp_path / "a.h5")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "a.h5").stat().st_mode) == 0o666 & ~umask


def flipped(data, positions, count=500):
    rng = random.Random(0)
    for _ in range(count):
        damaged = bytearray(data)
        damaged[rng.choice(positions)] ^= 1 << rng.randrange(8)
        yield bytes(damaged)


def test_every_flipped_bit_is_found_when_asked_for(tmp_path):
    path = tmp_path / "a.h5"
    write(path)
    data = path.read_bytes()
    sealed = [n for n in range(len(data)) if not -40 <= n - len(data) < -32]  # all but its mark
    for damaged in flipped(data, sealed):
        path.write_bytes(damaged)
        with pytest.raises(Pri3DError, match="not as it was published"):
            store.check_content(path, FORMAT)


@pytest.mark.parametrize("compress", [False, True])
def test_a_flipped_bit_in_the_data_is_an_error_when_read(tmp_path, compress):
    path = tmp_path / "a.h5"
    write(path, compress=compress)
    with h5py.File(path) as file:
        chunk = file["frames/a"].id.get_chunk_info(0)
    data = path.read_bytes()
    for damaged in flipped(data, range(chunk.byte_offset, chunk.byte_offset + chunk.size)):
        path.write_bytes(damaged)
        with store.open_artefact(path, FORMAT) as file, pytest.raises(OSError, match="read data"):
            file["frames/a"][()]


def test_a_cut_file_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    write(path)
    data = path.read_bytes()
    for length in range(0, len(data) - 40, len(data) // 50):
        path.write_bytes(data[:length])
        for opens in (store.open_artefact, store.check_content):
            with pytest.raises(Pri3DError, match="run again"):
                opens(path, FORMAT)


def test_what_is_no_artefact_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(Pri3DError, match="no such file"):
        store.open_artefact(path, FORMAT)
    path.write_text("hello")
    with pytest.raises(Pri3DError, match="not a readable HDF5"):
        store.open_artefact(path, FORMAT)
    write(path, format="pri3d-chunks")
    with pytest.raises(Pri3DError, match="holds 'pri3d-chunks', expected 'pri3d-clouds'"):
        store.open_artefact(path, FORMAT)
    for attribute, value in {"complete": False, "schema": 2}.items():
        write(path)
        with h5py.File(path, "r+") as file:
            file.attrs[attribute] = value
        with pytest.raises(Pri3DError, match="run again"):
            store.open_artefact(path, FORMAT)


def test_an_edited_artefact_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    write(path)
    with h5py.File(path, "r+") as file:
        file["frames/a"][3, 4] = 0
    with pytest.raises(Pri3DError, match="does not match its digest"):
        store.check_content(path, FORMAT)


def fail_while_writing(path):
    with store.publish(path, FORMAT, {}, {}) as artefact:
        artefact.dataset("a", np.zeros(3))
        raise ValueError("broken")


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(ValueError, match="broken"):
        fail_while_writing(path)
    assert list(tmp_path.iterdir()) == []
    digest = write(path)
    with pytest.raises(ValueError, match="broken"):
        fail_while_writing(path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]
    assert store.check_content(path, FORMAT) == digest


WRITER = """
import sys, numpy as np
from pri3d import store
path, values = sys.argv[1], np.random.default_rng(0).integers(0, 9, (400, 1000), np.uint16)
print("ready", flush=True)
for round in range(10_000):
    with store.publish(path, "pri3d-clouds", {}, {}) as artefact:
        artefact.attribute("round", round)
        artefact.dataset("a", values, compress=True)
        artefact.dataset("b", values + round)
"""


def test_a_killed_writer_leaves_a_whole_artefact_and_its_litter_is_removed(tmp_path):
    path = tmp_path / "a.h5"
    rng = random.Random(0)
    littered = 0
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(0.1 + rng.random() * 0.2)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        if path.exists():
            store.check_content(path, FORMAT)
        assert len(leftovers(tmp_path)) <= 1  # a writer removes what the one before it left
        littered += len(leftovers(tmp_path))
    assert littered > 0
    write(path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]


def test_a_living_writer_keeps_its_file(tmp_path):
    path, other = tmp_path / "a.h5", tmp_path / ".a.h5.somebody.else.tmp"
    other.touch()
    with store.atomic_path(path) as first:
        with store.atomic_path(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
        first.write_text("first")
    assert path.read_text() == "first"
    assert other.exists()


def test_one_writer_at_a_time_in_a_folder(tmp_path):
    code = """
import sys, time
from pri3d import store
with store.sole_writer(sys.argv[1]):
    print("in", flush=True)
    time.sleep(60)
"""
    folder = tmp_path / "run"
    first = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE)
    assert first.stdout.readline() == b"in\n"
    with pytest.raises(Pri3DError, match="another process is writing"), store.sole_writer(folder):
        pytest.fail("two writers")
    first.kill()
    first.communicate()
    with store.sole_writer(folder):
        assert folder.is_dir()
