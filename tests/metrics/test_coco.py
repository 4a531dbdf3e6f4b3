"""COCO's format and figures: perfect predictions, and pycocotools run on files as a user would."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pri3d.metrics import coco

SHAPE = 80, 100


def scene(seed, images=4):
    """Truth and noisy predictions of some images."""
    rng = np.random.default_rng(seed)
    entries, annotations, results = [], [], []
    for number in range(1, images + 1):
        masks = np.zeros((3, *SHAPE), bool)
        for mask in masks:
            height, width = rng.integers(10, 50, 2)
            top, left = rng.integers(0, SHAPE[0] - height), rng.integers(0, SHAPE[1] - width)
            mask[top : top + height, left : left + width] = True
            mask[top + 3 : top + 6, left + 3 : left + 6] = False  # a hole
        labels = rng.integers(1, 4, 3)
        entries.append(coco.image_of(number, f"image {number}", SHAPE))
        annotations += coco.annotations_of(number, masks, labels, len(annotations) + 1)
        shifted = np.array([np.roll(mask, rng.integers(-5, 6, 2), axis=(0, 1)) for mask in masks])
        boxes = [
            [
                m.any(0).argmax(),
                m.any(1).argmax(),
                SHAPE[1] - m.any(0)[::-1].argmax(),
                SHAPE[0] - m.any(1)[::-1].argmax(),
            ]
            for m in shifted
        ]
        found = {
            "boxes": np.array(boxes, np.float32),
            "labels": np.where(rng.random(3) < 0.8, labels, 1),
            "scores": rng.random(3).astype(np.float32),
            "masks": shifted,
        }
        results += coco.results_of(number, found)
    return coco.truth_of(entries, annotations, ("bed", "chair", "sofa")), results


def test_masks_survive_with_their_holes():
    mask = np.random.default_rng(0).random((1, 50, 70)) < 0.5
    (entry,) = coco.annotations_of(1, mask, np.array([2]), 7)
    np.testing.assert_array_equal(rle.decode(entry["segmentation"]).astype(bool), mask[0])
    assert (entry["id"], entry["image_id"], entry["category_id"]) == (7, 1, 2)
    assert entry["area"] == mask.sum()
    json.dumps(entry)


@pytest.mark.parametrize("seed", [0, 1])
def test_figures_are_pycocotools_own(seed, tmp_path):
    truth, results = scene(seed)
    figures = coco.evaluate(truth, results)
    for kind, ours in (("bbox", "boxes"), ("segm", "masks")):
        (tmp_path / "truth.json").write_text(json.dumps(truth))
        left_out = "segmentation" if kind == "bbox" else "bbox"
        given = [{k: v for k, v in entry.items() if k != left_out} for entry in results]
        (tmp_path / "results.json").write_text(json.dumps(given))
        with contextlib.redirect_stdout(io.StringIO()):
            objects = COCO(tmp_path / "truth.json")
            evaluation = COCOeval(objects, objects.loadRes(str(tmp_path / "results.json")), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        assert [figures[ours][name] for name in coco.FIGURES] == pytest.approx(
            evaluation.stats[:3].tolist()
        )
        assert 0 < figures[ours]["ap"] < 1


def test_the_truth_as_prediction_is_perfect():
    truth, _ = scene(2)
    results = []
    for entry in truth["annotations"]:
        kept = {k: entry[k] for k in ("image_id", "category_id", "bbox", "segmentation")}
        results.append(kept | {"score": 0.9})
    figures = coco.evaluate(truth, results)
    assert figures["masks"]["ap"] == figures["boxes"]["ap"] == pytest.approx(1)
    assert all(value == pytest.approx(1) for value in figures["masks"]["classes"].values())


def test_no_prediction_is_zero_and_no_object_is_no_figure():
    truth, results = scene(3)
    assert coco.evaluate(truth, [])["masks"]["ap"] == 0
    nothing = truth | {"annotations": []}
    assert np.isnan(coco.evaluate(nothing, results)["boxes"]["ap"])
