"""Few labels: the published lists by their rule, and drawn scenes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pri3d.datasets.frames import Frame
from pri3d.datasets.subsets import subset


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
