"""Pairs against plain loops over made-up counts."""

import itertools
import json
import time
from fractions import Fraction

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pri3d import config, store
from pri3d.artefacts import PAIRS, Pairs
from pri3d.errors import Pri3DError
from pri3d.stages import pairs


def write_overlap(
    path,
    scene,
    points,
    matches,
    dropped=(),
    status="ok",
    rule="paper",
    radius_m=0.02,
    frames_in=None,
):
    """An overlap artefact; frames are numbered 0, 3, 6 ..."""
    points = np.asarray(points, np.uint32)
    settings = {"rule": rule, "radius_m": radius_m}
    with store.publish(path, "pri3d-overlap", settings, {"clouds": "0" * 64}) as writer:
        writer.attribute("scene", scene)
        writer.attribute("status", status)
        writer.attribute("frames_in_scan", 3 * len(points) + 50)
        frames = len(points) + len(dropped) if frames_in is None else frames_in
        writer.attribute("frames_in", frames)
        writer.dataset("frames/index", np.arange(len(points), dtype=np.uint32) * 3)
        writer.dataset("points", points)
        writer.dataset("matches", np.asarray(matches, np.uint32).reshape(2 * points.shape))
        writer.dataset("dropped/index", np.arange(len(dropped), dtype=np.uint32) * 3 + 1)
        writer.dataset("dropped/reason", np.array(list(dropped), "S20"))
    return path


def random_counts(rng, frames):
    points = rng.integers(0, 40, frames)
    matches = rng.integers(0, points[:, None] + 1, (frames, frames)) * (
        1 - np.eye(frames, dtype=int)
    )
    return points, matches


def read(path):
    with Pairs(path) as result:
        return result


def expected_pairs(scans, share):
    """(row a, row b, ab, ba, overlap) by the definition, exactly, over scans sorted by name."""
    start, rows = 0, []
    for _, (points, matches) in sorted(scans.items()):
        for a, b in itertools.combinations(range(len(points)), 2):
            rows.append(
                (
                    start + a,
                    start + b,
                    matches[a][b],
                    matches[b][a],
                    share(*map(int, (points[a], points[b], matches[a][b], matches[b][a]))),
                )
            )
        start += len(points)
    return rows


def paper(points_a, points_b, ab, ba):
    return Fraction(ab + ba, max(points_a + points_b, 1))


def official(points_a, points_b, ab, ba):
    return max(Fraction(ab, max(points_a, 1)), Fraction(ba, max(points_b, 1)))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rule=st.sampled_from(["paper", "official"]),
    minimum=st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.7, 1.0]),
)
def test_kept_pairs_are_those_of_the_definition(tmp_path_factory, seed, rule, minimum):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("pairs")
    scans = {name: random_counts(rng, int(rng.integers(0, 9))) for name in ("b", "a", "c")}
    files = [
        write_overlap(folder / f"{name}.h5", name, *counts, rule=rule)
        for name, counts in scans.items()
    ]
    pairs.run(files, folder / "pairs.h5", config.Pairs(min_overlap=minimum))
    # 0.3 is a little less than 3/10 as a float; a share of exactly 3/10 counts as 0.3.
    share = {"paper": paper, "official": official}[rule]
    expected = [row for row in expected_pairs(scans, share) if float(row[4]) >= minimum]
    result = read(folder / "pairs.h5")
    table = zip(result.a, result.b, result.matches_ab, result.matches_ba)
    assert [tuple(map(int, row)) for row in table] == [row[:4] for row in expected]
    exact = np.array([float(row[4]) for row in expected])
    np.testing.assert_allclose(result.overlap, exact, rtol=1.2e-7)
    assert (result.overlap.astype(np.float64) >= minimum).all()
    assert result.frame_points.tolist() == [n for _, (p, _) in sorted(scans.items()) for n in p]


@pytest.mark.parametrize("tenths", range(1, 10))
def test_an_overlap_of_exactly_the_threshold_is_kept_and_not_stored_below_it(tmp_path, tenths):
    """float32(0.7) is less than 0.7, float32(0.3) more than 0.3."""
    minimum = tenths / 10
    matches = [[0, tenths], [tenths, 0]]
    source = write_overlap(tmp_path / "o.h5", "s", [10, 10], matches)
    pairs.run([source], tmp_path / "p.h5", config.Pairs(min_overlap=minimum))
    result = read(tmp_path / "p.h5")
    assert len(result.a) == 1
    assert np.float64(result.overlap[0]) >= minimum
    assert np.float64(result.overlap[0]) == pytest.approx(minimum, rel=1e-7)
    matches = [[0, tenths * 100], [tenths * 100 - 1, 0]]
    source = write_overlap(tmp_path / "o.h5", "s", [1000, 1000], matches)
    pairs.run([source], tmp_path / "p.h5", config.Pairs(min_overlap=minimum))
    assert len(read(tmp_path / "p.h5").a) == 0


@pytest.fixture
def three(tmp_path):
    """Scans given out of order: with drops, without frames, and one more."""
    rng = np.random.default_rng(1)
    return [
        write_overlap(tmp_path / "k.h5", "kitchen", *random_counts(rng, 6), dropped=[b"lost"]),
        write_overlap(
            tmp_path / "h.h5",
            "hall",
            [],
            [],
            dropped=[b"lost", b"no_depth", b"lost"],
            status="failed: no frame of 3 is usable",
        ),
        write_overlap(
            tmp_path / "b.h5",
            "bath",
            *random_counts(rng, 5),
            dropped=[b"no_depth"],
            status="partial: the file is cut at frame 40",
        ),
    ]


def test_the_ledger_accounts_for_every_frame_and_pair(three, tmp_path):
    out = tmp_path / "pairs.h5"
    pairs.run(three, out, config.Pairs(min_overlap=0.3), missing=["attic", "zoo"])
    result = read(out)
    assert result.scenes == ["attic", "bath", "hall", "kitchen", "zoo"]
    with h5py.File(out) as file:
        ledger = {name: item[()].tolist() for name, item in file["ledger"].items()}
    assert ledger["reason"] == [b"lost", b"no_depth"]
    assert ledger["dropped"] == [[0, 0], [0, 1], [2, 1], [1, 0], [0, 0]]
    assert ledger["frames_in_scan"] == [0, 65, 50, 68, 0]
    assert ledger["frames_in"] == [0, 6, 3, 7, 0]
    assert ledger["kept"] == [0, 5, 0, 6, 0]
    assert ledger["pairs_tested"] == [0, 10, 0, 15, 0]
    per_scene = np.bincount(result.frame_scene[result.a], minlength=5).tolist()
    assert 0 < len(result.a) < 25
    assert ledger["pairs_kept"] == ledger["pairs_drawn"] == per_scene
    assert ledger["status"] == [
        b"missing",
        b"partial: the file is cut at frame 40",
        b"failed: no frame of 3 is usable",
        b"ok",
        b"missing",
    ]
    assert result.frame_scene.tolist() == [1] * 5 + [3] * 6
    assert result.frame_index.tolist() == [0, 3, 6, 9, 12, 0, 3, 6, 9, 12, 15]


def test_the_order_of_the_files_does_not_matter(three, tmp_path):
    settings = config.Pairs(min_overlap=0.2, max_pairs=7)
    pairs.run(three, tmp_path / "one.h5", settings)
    pairs.run(three[::-1], tmp_path / "two.h5", settings)
    assert store.artefact_digest(tmp_path / "one.h5") == store.artefact_digest(tmp_path / "two.h5")


def test_frames_keep_their_rows_whatever_is_kept(three, tmp_path):
    for minimum in (0.0, 1.0):
        pairs.run(three, tmp_path / f"{minimum}.h5", config.Pairs(min_overlap=minimum))
    all_pairs, few = read(tmp_path / "0.0.h5"), read(tmp_path / "1.0.h5")
    assert len(all_pairs.a) == 25
    assert len(few.a) < 3
    np.testing.assert_array_equal(all_pairs.frame_scene, few.frame_scene)
    np.testing.assert_array_equal(all_pairs.frame_index, few.frame_index)


def test_a_limit_draws_evenly_and_by_its_seed(tmp_path):
    frames = 60
    matches = np.full((frames, frames), 50) * (1 - np.eye(frames, dtype=int))
    files = [
        write_overlap(tmp_path / f"{n}.h5", f"s{n}", [100] * frames, matches) for n in range(3)
    ]
    chosen = {}
    for seed in (0, 1):
        settings = config.Pairs(max_pairs=1000, seed=seed)
        pairs.run(files, tmp_path / "p.h5", settings)
        result = read(tmp_path / "p.h5")
        chosen[seed] = list(zip(result.a.tolist(), result.b.tolist()))
        assert len(set(chosen[seed])) == 1000
        assert chosen[seed] == sorted(chosen[seed])
        with h5py.File(tmp_path / "p.h5") as file:
            assert file["ledger/pairs_kept"][()].tolist() == [1770] * 3
            counts = file["ledger/pairs_drawn"][()]
        assert counts.sum() == 1000
        assert (np.abs(counts.astype(int) - 333) < 70).all()  # 5 standard deviations
        first_half = sum(a % frames < 18 for a, _ in chosen[seed])  # about half of all pairs
        assert abs(first_half - 1000 * sum(frames - 1 - a for a in range(18)) / 1770) < 80
    assert chosen[0] != chosen[1]
    pairs.run(files, tmp_path / "p.h5", config.Pairs(max_pairs=5310))
    assert len(read(tmp_path / "p.h5").a) == 5310


@pytest.mark.parametrize(
    ("second", "word"),
    [
        ({"rule": "official"}, "official"),
        ({"radius_m": 0.03}, r"0\.03"),
        ({"scene": "one"}, "scan one"),
        ({"frames_in": 9}, "add up"),
    ],
)
def test_inputs_that_do_not_go_together_are_named(tmp_path, second, word):
    one = write_overlap(tmp_path / "one.h5", "one", [5, 5], [[0, 5], [5, 0]])
    options = {"scene": "two", "points": [5], "matches": [[0]], **second}
    two = write_overlap(tmp_path / "two.h5", **options)
    with pytest.raises(Pri3DError, match=word) as caught:
        pairs.run([one, two], tmp_path / "p.h5", config.Pairs())
    assert "two.h5" in str(caught.value)
    assert ("one.h5" in str(caught.value)) == ("frames_in" not in second)
    assert not (tmp_path / "p.h5").exists()


def test_nothing_given_and_contradictions(three, tmp_path):
    with pytest.raises(Pri3DError, match="no overlap file"):
        pairs.run([], tmp_path / "p.h5", config.Pairs(), missing=["attic"])
    with pytest.raises(Pri3DError, match="missing"):
        pairs.run(three, tmp_path / "p.h5", config.Pairs(), missing=["hall"])


def test_what_is_written(three, tmp_path):
    out = tmp_path / "pairs.h5"
    pairs.run(three, out, config.Pairs())
    store.check_content(out, PAIRS)
    with h5py.File(out) as file:
        layout = {}
        for group in ("scenes", "frames", "pairs", "ledger"):
            for name, item in file[group].items():
                layout[f"{group}/{name}"] = item.dtype.kind + str(item.ndim)
        inputs = json.loads(file.attrs["inputs"])
        made_with = json.loads(file.attrs["settings"])
    assert layout == {
        "scenes/name": "S1",
        "frames/scene": "u1",
        "frames/index": "u1",
        "frames/points": "u1",
        "pairs/a": "u1",
        "pairs/b": "u1",
        "pairs/matches_ab": "u1",
        "pairs/matches_ba": "u1",
        "pairs/overlap": "f1",
        "ledger/frames_in_scan": "u1",
        "ledger/frames_in": "u1",
        "ledger/kept": "u1",
        "ledger/pairs_tested": "u1",
        "ledger/pairs_kept": "u1",
        "ledger/pairs_drawn": "u1",
        "ledger/reason": "S1",
        "ledger/dropped": "u2",
        "ledger/status": "S1",
    }
    assert inputs == {
        name: store.artefact_digest(path) for name, path in zip(("kitchen", "hall", "bath"), three)
    }
    assert made_with == {"min_overlap": 0.3, "max_pairs": None, "seed": 0}


def test_many_scans_are_merged_in_seconds(tmp_path):
    rng = np.random.default_rng(0)
    source = write_overlap(tmp_path / "s.h5", "0000", *random_counts(rng, 66))
    files = []
    for number in range(820):
        path = tmp_path / f"{number}.h5"
        path.write_bytes(source.read_bytes())
        with h5py.File(path, "r+") as file:
            file.attrs["scene"] = f"scene{number:04d}_00"
        files.append(path)
    missing = [f"gone{number:04d}_00" for number in range(1300)]
    start = time.process_time()
    pairs.run(files, tmp_path / "pairs.h5", config.Pairs(), missing=missing)
    assert time.process_time() - start < 10
    result = read(tmp_path / "pairs.h5")
    assert len(result.scenes) == 2120
    assert len(result.frame_scene) == 820 * 66
    assert len(result.a) % 820 == 0
    assert len(result.inputs) == 820  # more than the 64 KiB of an ordinary attribute
