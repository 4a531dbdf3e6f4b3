"""Few labels: the published lists by their rule, and drawn scenes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pri3d.cli import app
from pri3d.datasets.frames import Frame
from pri3d.datasets.subsets import held_out_scans, split_training, subset
from pri3d.errors import Pri3DError


def frames_of(counts):
    return [
        Frame(f"scene{n:04d}_00/{i}", f"scene{n:04d}_00")
        for n, count in enumerate(counts)
        for i in range(count)
    ]


def published_by_the_script(counts, percent):
    """The rule as the script has it: go through the scenes, add up their images, write a scene's
    name after the total was looked at."""
    kept, seen, wanted = [], 0, sum(counts) * percent / 100
    for number, count in enumerate(counts):
        seen += count
        if seen >= wanted:
            break
        kept.append(number)
    return kept


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.sampled_from([1, 5, 10, 20, 40, 60, 80]),
)
def test_published_lists_are_the_first_scenes(counts, percent):
    frames = frames_of(counts)
    chosen = subset(frames, percent, "published", 0)
    expected = [f"scene{n:04d}_00" for n in published_by_the_script(counts, percent)]
    assert list(dict.fromkeys(frames[i].scene for i in chosen)) == expected
    assert len(chosen) == sum(counts[: len(expected)])


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.integers(0, 3),
    st.floats(0.5, 100),
)
def test_drawn_scenes_are_whole_and_nested(counts, seed, percent):
    frames = frames_of(counts)
    less, more = (subset(frames, p, "random", seed) for p in (percent / 2, percent))
    assert set(less) <= set(more)
    for chosen in (less, more):
        assert chosen == sorted(chosen)
        scenes = {frames[i].scene for i in chosen}
        assert len(chosen) == sum(frame.scene in scenes for frame in frames)
    wanted = len(counts) if percent >= 100 else max(1, round(len(counts) * percent / 100))
    assert len({frames[i].scene for i in more}) == wanted


def test_scannets_own_list_is_cut_as_published_whatever_is_there():
    frames = frames_of(np.random.default_rng(0).integers(1, 30, 1201).tolist())
    scenes = {1: 18, 5: 63, 10: 110, 20: 235, 40: 479, 60: 720, 80: 961}
    for percent, number in scenes.items():
        chosen = subset(frames, percent, "published", 0)
        assert {frames[i].scene for i in chosen} == {f"scene{n:04d}_00" for n in range(number)}


def test_seeds_draw_other_scenes_and_all_is_all():
    frames = frames_of([3] * 50)
    drawn = {tuple(subset(frames, 10, "random", seed)) for seed in range(5)}
    assert len(drawn) == 5
    for rule in ("published", "random"):
        assert subset(frames, 100, rule, 0) == list(range(len(frames)))
    np.testing.assert_array_equal(subset(frames, 10, "random", 1), subset(frames, 10, "random", 1))


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=60),
    st.floats(0, 100),
    st.integers(0, 2**32),
)
def test_spaces_are_held_out_whole(counts, percent, seed):
    scenes = [f"scene{n:04d}_{i:02d}" for n, count in enumerate(counts) for i in range(count)]
    found = held_out_scans(scenes, percent, seed)
    spaces = {scene[:9] for scene in found}
    assert found == [scene for scene in scenes if scene[:9] in spaces]
    assert found == held_out_scans(scenes, percent, seed)
    missing = round(len(scenes) * percent / 100) - len(found)
    assert missing >= 0
    others = [count for n, count in enumerate(counts) if f"scene{n:04d}" not in spaces]
    assert not others or missing < max(others)


def test_a_part_of_the_training_scans_can_stand_in_for_validation(tmp_path):
    root, out = tmp_path / "scans", tmp_path / "chosen"
    scenes = [f"scene{n:04d}_{i:02d}" for n in range(10) for i in range(2)]
    for scene in scenes:
        (root / scene).mkdir(parents=True)
        (root / scene / "x.txt").write_text(scene)
    (root / "table.tsv").write_text("a table")
    (root / "scannetv2_train.txt").write_text("\n".join(scenes))
    (root / "scannetv2_val.txt").write_text("scene0999_00\n")
    words = ["data", "split", str(root), str(out), "--percent", "30", "--seed", "1"]
    output = CliRunner().invoke(app, words).stdout
    assert "14 scans for training, 6 of other spaces" in output
    lists = [(out / f"scannetv2_{split}.txt").read_text().split() for split in ("train", "val")]
    assert sorted(lists[0] + lists[1]) == scenes
    assert {scene[:9] for scene in lists[0]}.isdisjoint(scene[:9] for scene in lists[1])
    assert (out / scenes[0] / "x.txt").read_text() == scenes[0]
    assert (out / "table.tsv").read_text() == "a table"
    with pytest.raises(Pri3DError, match="not empty"):
        split_training(root, out, 30, 1)
    with pytest.raises(Pri3DError, match="one split empty"):
        split_training(root, tmp_path / "none", 0, 1)
