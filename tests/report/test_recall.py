"""Matching in held-out scans: before, after, by guessing, and over several seeds."""

import re

import numpy as np
from small_results import Page, make_evaluation, make_page, make_run

NASTY = "a<b>&'c\"$x$"


def test_recall_before_after_and_by_guessing(page):
    reader = Page(page)
    text = reader.text("recall")
    row = reader.row("two images (cells)", "recall within 1")[1]
    assert row[2:] == ["1.23", "45.67", "0.09"]
    assert "first of 200 candidates" in text
    assert "7 pairs of" in text
    assert "Left out: 4 x view: fewer than 2 matches." in text
    assert "Before pretraining" in text
    assert "1 of 3 shown, 31 % of all matches" in text
    assert "2 of 3 shown, 62 % of all matches" in text
    assert "have changed" not in text
    assert "All runs" not in text  # there is only one


def test_an_evaluation_of_other_weights_is_reported(copy):
    (copy / "runs/joint/model.safetensors").write_bytes(b"trained again")
    text = Page(make_page(copy)).text("recall")
    assert "The weights of joint have changed since this evaluation" in text


def test_evaluations_of_version_0_1_look_the_same(copy, page):
    make_evaluation(copy / "evaluation/joint.json", NASTY)
    assert Page(make_page(copy)).text("recall") == Page(page).text("recall")


def test_seeds_of_a_variant_are_one_row_with_their_standard_error(copy):
    recalls = (0.30, 0.34, 0.41)
    for seed, recall in enumerate(recalls):
        name = f"small-{seed}"
        make_run(copy / f"runs/{name}", "", mode="joint", variant="small", seed=seed)
        header = {"name": name, "mode": "joint", "variant": "small", "seed": seed}
        make_evaluation(copy / f"evaluation/{name}.json", NASTY, header, recall)
    reader = Page(make_page(copy))
    error = 100 * np.std(recalls, ddof=1) / np.sqrt(3)
    after = f"{100 * np.mean(recalls):.2f} ± {error:.2f}"
    assert reader.row("small", "two images (cells)")[1][2:4] == ["3", after]
    assert reader.row("joint", "two images (cells)")[1][2:4] == ["1", "45.67"]
    text = reader.text("recall")
    assert "Means of 3 seeds" in text
    assert re.findall(r"Run ([\w-]+)", text) == ["joint", "small"]
