"""Pretraining: figures and curves of runs, variants side by side, and long runs."""

import base64
import re
import shutil

import numpy as np
import pytest
from small_results import Page, make_page, make_run

from pri3d.config import MODES
from pri3d.report import names
from pri3d.report.metrics import mean_curve, thinned
from pri3d.run.folder import RANDOM, InitialWeights


def test_recall_stands_beside_loss_and_skipped_samples_are_counted(copy):
    with open(copy / "runs/joint/metrics.jsonl", "a") as file:
        file.write('{"step": 40, "lo')  # a line that is being written
    reader = Page(make_page(copy))
    assert reader.row("view")[1] == [
        "view",
        "30",
        "3.500",
        "6.931",
        "30.00 %",
        "0.10 %",
        "307.2 times",
    ]
    assert reader.row("geo: no voxel is near")[1][1] == "9"
    text = reader.text("training")
    assert "60 pairs in 12 s" in text
    assert "1,234 MB" in text
    assert "30 of 30 steps" in text
    assert "other pairs" not in text


def test_a_run_on_other_pairs_is_reported(copy):
    shutil.rmtree(copy / "runs/joint")
    make_run(copy / "runs/joint", "0" * 64)
    assert "trained on other pairs" in Page(make_page(copy)).text("training")


def test_training_of_3d_networks(copy):
    make_run(copy / "runs/ppkt", "", mode="ppkt", teacher="timm:convnext_atto", batch=7)
    make_run(copy / "runs/gupta", "", mode="gupta", batch=3)
    page = make_page(copy)
    reader = Page(page)
    assert reader.row("ppkt", "30")[1] == [
        "ppkt",
        "30",
        "4.000",
        "6.931",
        "25.00 %",
        "0.10 %",
        "256.0 times",
    ]
    assert reader.row("gupta", "30")[1][1:5] == ["30", "4.000", "6.931", "–"]
    text = reader.text("training")
    assert f"Mode ppkt ({MODES['ppkt'].summary})." in text
    assert "3D network: on clouds in voxels of 2.5 cm" in text
    assert "Teacher: timm:convnext_atto on images of 320 x 240 pixels, with random weights." in text
    assert "7 frames per step, with up to 1,024 matches each. 30 of 30 steps." in text
    assert "3 frames per step. 30 of 30 steps." in text
    assert page.count('alt="Match recall over steps"') == 2  # of joint and of ppkt
    assert page.count('alt="Loss over steps"') == 3


def test_initial_weights_are_named(copy):
    imagenet = InitialWeights("imagenet", "imagenet", "ImageNet (torchvision)")
    make_run(copy / "runs/view", "", mode="view", initial_weights={"backbone": imagenet})
    assert "initialized with ImageNet weights" in Page(make_page(copy)).text("training")


def test_variants_are_side_by_side_with_means_over_seeds(copy):
    make_run(copy / "runs/view", "", mode="view")
    for seed, recall in enumerate((0.1, 0.2, 0.4)):
        folder = copy / f"runs/small-{seed}"
        make_run(folder, "", mode="view", variant="small", recall=recall, seed=seed, crop=0.5)
    page = make_page(copy)
    reader = Page(page)
    ends = 100 * np.array([0.4, 0.5, 0.7])
    mean = f"{ends.mean():.2f} ± {ends.std(ddof=1) / np.sqrt(3):.2f} %"
    cells = reader.row("small", "3")[1]
    assert cells[2:6] == ["view", "30", "3.500 ± 0.000", "6.931 ± 0.000"]
    assert cells[6] == mean
    assert reader.row("joint", "–")[1][2] == "view"
    # One chart of the term view, of joint, view and small; none of geo, which one run has.
    assert page.count('alt="Match recall, term view over steps"') == 1
    assert "term geo" not in page
    text = reader.text("training")
    assert "A variant of view, with crop = 0.5." in text
    assert [text.index(f"Run {name}") for name in ("view", "joint", "small-0", "small-2")]
    assert text.index("Run view") < text.index("Run small") < text.index("Run joint")


def test_mean_curve_is_over_the_steps_that_all_runs_have():
    runs = [
        [{"step": 10, "x": 1.0}, {"step": 20, "x": 2.0}, {"step": 30, "x": None}],
        [{"step": 10, "x": 3.0}, {"step": 20, "x": 6.0}],
    ]
    curve = mean_curve("a", runs, "x", "red")
    assert curve.steps.tolist() == [10, 20]
    assert curve.values.tolist() == [2, 4]
    assert curve.spread == pytest.approx([np.std([1, 3], ddof=1), np.std([2, 6], ddof=1)])
    assert mean_curve("a", runs[:1], "x", "red").spread is None


def test_long_runs_are_thinned_without_bias(copy):
    shutil.rmtree(copy / "runs/joint")
    make_run(copy / "runs/joint", "0" * 64, steps=7000)
    page = make_page(copy)
    assert "metrics.jsonl has 700 lines" in page
    drawn = [base64.b64decode(data) for data in re.findall(r"svg\+xml;base64,([^\"]+)", page)]
    assert max(map(len, drawn)) < 150_000
    values = np.random.default_rng(0).normal(size=60_000)
    assert thinned(values).mean() == pytest.approx(values.mean())


def test_colors_of_modes_are_fixed_and_variants_differ():
    variants = [f"variant{n}" for n in range(6)]
    color = names.colors([*MODES, *variants, "scratch", "imagenet"])
    assert len(set(color.values())) == len(color)
    assert names.colors(["geo", "variant3"])["geo"] == color["geo"]
    assert all(names.colors([name]) == names.colors([name]) for name in variants)
    alone = [names.colors([name])[name] for name in variants]
    assert alone[0] == color[variants[0]]  # the first by name keeps the color that it prefers


def test_initial_weights_are_ordered():
    def run(name, mode):
        return InitialWeights("run", name, "", mode=mode)

    file = InitialWeights("file", "a_file", "")
    imagenet = InitialWeights("imagenet", "imagenet", "")
    expected = [RANDOM, imagenet, run("view", "view"), run("a", "view"), run("geo", "geo"), file]
    assert sorted(reversed(expected), key=names.weights_sort_key) == expected
