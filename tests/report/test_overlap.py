"""The overlap section: matrices by both rules, the histogram, and the limit on matrices."""

import re

import h5py
import numpy as np
import pytest
from small_results import Page, make_page, make_stages
from small_scenes import look, make_clouds, poses

from pri3d import config, store
from pri3d.report.overlap import matrix
from pri3d.stages import overlap, pairs

NASTY = "a<b>&'c\"$x$"


@pytest.mark.parametrize(("rule", "expected"), [("paper", 16 / 30), ("official", 0.6)])
def test_matrices_by_both_rules(tmp_path, rule, expected):
    points, matches = np.array([10, 20, 0]), np.array([[0, 4, 0], [12, 0, 0], [0, 0, 0]])
    path = tmp_path / "overlap.h5"
    with store.publish(path, "pri3d-overlap", {"rule": rule}, {}) as writer:
        writer.attribute("scene", "x")
        writer.dataset("frames/index", np.array([0, 25, 50], np.uint32))
        writer.dataset("points", points.astype(np.uint32))
        writer.dataset("matches", matches.astype(np.uint32))
    shares, index = matrix(path)
    assert index.tolist() == [0, 25, 50]
    assert shares[0, 1] == shares[1, 0] == expected
    assert np.count_nonzero(shares) == 2


def test_histogram_gives_the_number_of_pairs_without_overlap(copy):
    away = [look((1.5, 1.2, 1.0), yaw) for yaw in (0.0, 0.05, np.pi)]
    make_stages(copy, "partly", cameras=away)
    text = Page(make_page(copy)).text("overlap")
    with h5py.File(copy / f"overlap/{NASTY}.h5") as file:
        none = np.count_nonzero(np.triu(file["matches"][()] == 0, 1))
    assert f"Overlap of the 13 tested pairs; {none + 2} of them share no point" in text


def test_at_most_twelve_matrices_and_the_others_by_name(tmp_path):
    clouds = make_clouds(tmp_path / "clouds.h5", poses(2), (12, 16), dropped=())
    files = []
    for number in range(15):
        scene = f"room{number:02d}"
        with h5py.File(clouds) as file, h5py.File(tmp_path / "one.h5", "w") as one:
            for name in file:
                file.copy(name, one)
            one.attrs.update({**file.attrs, "scene": scene})
        files.append(tmp_path / f"results/overlap/{scene}.h5")
        overlap.run(tmp_path / "one.h5", files[-1], config.Overlap())
    pairs.run(files, tmp_path / "results/pairs.h5", config.Pairs(min_overlap=0, max_pairs=4))
    page = make_page(tmp_path / "results")
    assert page.count('alt="Overlap matrix of') == 12
    text = Page(page).text("overlap")
    (others,) = re.findall(
        r"3 more scans are not shown: (room\d\d), (room\d\d), (room\d\d)\.", text
    )
    for scene in others:
        assert f'alt="Overlap matrix of {scene}"' not in page
    assert "4 of these were sampled at random" in page
    assert "pairs sampled" in page
