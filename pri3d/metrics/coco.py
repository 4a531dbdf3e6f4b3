"""Objects in COCO's format, and the figures of pycocotools.

Differences from the published conversion: masks are run lengths instead of polygons, which keeps
holes; images are in the order of the split; and objects are separated before classes are merged.
"""

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

FIGURES = ("ap", "ap50", "ap75")


def image_of(number: int, name: str, shape: tuple[int, int]) -> dict[str, Any]:
    """An entry of `images`; numbers are counted from 1."""
    return {"id": number, "file_name": name, "height": shape[0], "width": shape[1]}


def annotations_of(
    image: int, masks: np.ndarray, labels: np.ndarray, first: int
) -> list[dict[str, Any]]:
    """Entries of `annotations` for masks bool [N, H, W] of classes 1..K, with ids from `first`."""
    entries = []
    for i, (mask, label) in enumerate(zip(masks, labels)):
        code = _encoded(mask)
        entries.append(
            {
                "id": first + i,
                "image_id": image,
                "category_id": int(label),
                "iscrowd": 0,
                "area": int(rle.area(code)),
                "bbox": [float(value) for value in rle.toBbox(code)],
                "segmentation": _as_text(code),
            }
        )
    return entries


def results_of(image: int, predictions: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The predictions for an image (boxes, labels, scores and masks) as COCO's results."""
    entries = []
    parts = (predictions[name] for name in ("boxes", "labels", "scores", "masks"))
    for box, label, score, mask in zip(*parts):
        x1, y1, x2, y2 = map(float, box)
        entries.append(
            {
                "image_id": image,
                "category_id": int(label),
                "score": float(score),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "segmentation": _as_text(_encoded(mask)),
            }
        )
    return entries


def truth_of(images: list[dict], annotations: list[dict], names: tuple[str, ...]) -> dict[str, Any]:
    """A whole annotation file."""
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def evaluate(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """COCO's average precision of boxes and of masks.

    Args:
        truth: made by `truth_of`.
        results: of all images, made by `results_of`.

    Returns:
        For `boxes` and for `masks`: ap (mean over IoU 0.50 to 0.95), ap50 and ap75 in 0..1, nan if
        no class occurs, and `classes`, the ap of each class that occurs.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints to stdout
        objects = COCO()
        objects.dataset = truth
        objects.createIndex()
        # With a mask, pycocotools uses its area for a result, which is wrong for boxes.
        return {
            "boxes": _evaluate(
                objects,
                [{k: v for k, v in r.items() if k != "segmentation"} for r in results],
                "bbox",
            ),
            "masks": _evaluate(
                objects, [{k: v for k, v in r.items() if k != "bbox"} for r in results], "segm"
            ),
        }


def _evaluate(objects: COCO, results: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    predictions = objects.loadRes(results) if results else COCO()
    if not results:
        predictions.dataset = {"images": objects.dataset["images"], "annotations": []}
        predictions.createIndex()
    evaluation = COCOeval(objects, predictions, kind)
    evaluation.evaluate()
    evaluation.accumulate()
    # Thresholds, recalls, classes, areas (all first), detections (100 last).
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    names = {entry["id"]: entry["name"] for entry in objects.dataset["categories"]}
    per_class = {
        names[number]: _mean(precision[:, :, i])
        for i, number in enumerate(evaluation.params.catIds)
        if (precision[:, :, i] > -1).any()
    }
    means = (_mean(precision), _mean(precision[0]), _mean(precision[5]))
    return dict(zip(FIGURES, means)) | {"classes": per_class}


def _mean(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else float("nan")


def _encoded(mask: np.ndarray) -> dict[str, Any]:
    return rle.encode(np.asfortranarray(mask, np.uint8))


def _as_text(code: dict[str, Any]) -> dict[str, Any]:
    return {"size": list(map(int, code["size"])), "counts": code["counts"].decode()}
