"""Objects in COCO's format, and the figures of pycocotools.

Unlike the published conversion: masks are run lengths and not polygons (holes stay holes), images
come in the order of the split, and objects are told apart before classes are merged (`datasets`).
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
    """An entry of `images`; numbers count from 1."""
    return {"id": number, "file_name": name, "height": shape[0], "width": shape[1]}


def annotations_of(
    image: int, masks: np.ndarray, labels: np.ndarray, first: int
) -> list[dict[str, Any]]:
    """Entries of `annotations` for masks bool [N, H, W] of classes 1..K; ids count from `first`."""
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


def results_of(image: int, found: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Predictions of an image (`insseg.predict`) as COCO's results."""
    entries = []
    for box, label, score, mask in zip(*(found[k] for k in ("boxes", "labels", "scores", "masks"))):
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
    """For `boxes` and `masks`: ap (mean over IoU 0.50 to 0.95), ap50, ap75, as shares, and
    `classes` (ap of each class that occurs). nan where no class occurs.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # it reports to stdout
        objects = COCO()
        objects.dataset = truth
        objects.createIndex()
        # Its area of a result with a mask is the mask's, which is not what boxes are judged by.
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
    found = objects.loadRes(results) if results else COCO()
    if not results:
        found.dataset = {"images": objects.dataset["images"], "annotations": []}
        found.createIndex()
    evaluation = COCOeval(objects, found, kind)
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
