"""Pictures of predictions: the image, the truth, the prediction and where they differ."""

from pathlib import Path

import numpy as np
from PIL import Image

from pri3d import store
from pri3d.classes import ClassSet
from pri3d.datasets import at_size

HEIGHT = 240
GAP = 4
RIGHT, WRONG, NOTHING = (0, 158, 115), (213, 94, 0), (32, 32, 32)


def semantic(
    color: np.ndarray, truth: np.ndarray, predicted: np.ndarray, classes: ClassSet
) -> np.ndarray:
    """Four panels side by side, u8 [H, W, 3]; labels of one size, of `classes`."""
    palette = classes.palette()
    error = np.full((*truth.shape, 3), NOTHING, np.uint8)
    error[(truth > 0) & (truth == predicted)] = RIGHT
    error[(truth > 0) & (truth != predicted)] = WRONG
    return _side_by_side([color, palette[truth], palette[predicted], error])


def instances(
    color: np.ndarray,
    masks: np.ndarray,
    labels: np.ndarray,
    found: dict[str, np.ndarray],
    classes: ClassSet,
    least_score: float = 0.5,
) -> np.ndarray:
    """Image, true objects, and predictions that are at least so certain, side by side."""
    sure = found["scores"] >= least_score
    return _side_by_side(
        [
            color,
            overlay(color, masks, labels, classes),
            overlay(color, found["masks"][sure], found["labels"][sure], classes),
        ]
    )


def overlay(
    color: np.ndarray, masks: np.ndarray, labels: np.ndarray, classes: ClassSet
) -> np.ndarray:
    """Objects in the colours of their classes over a paler image, with their outlines."""
    picture = color.astype(np.float32) * 0.5 + 96
    palette = classes.palette().astype(np.float32)
    for mask, label in zip(masks, labels):
        picture[mask] = 0.4 * picture[mask] + 0.6 * palette[label]
    for mask in masks:
        inner = mask.copy()
        inner[1:] &= mask[:-1]
        inner[:-1] &= mask[1:]
        inner[:, 1:] &= mask[:, :-1]
        inner[:, :-1] &= mask[:, 1:]
        picture[mask & ~inner] = 255
    return picture.clip(0, 255).astype(np.uint8)


def labels_over(color: np.ndarray, predicted: np.ndarray, classes: ClassSet) -> np.ndarray:
    """Labels in the colours of their classes over the image that they are of."""
    drawn = classes.palette()[at_size(predicted, color.shape[:2])]
    return (0.4 * color + 0.6 * drawn).astype(np.uint8)


def _side_by_side(panels: list[np.ndarray]) -> np.ndarray:
    scaled = []
    for panel in panels:
        width = round(panel.shape[1] * HEIGHT / panel.shape[0])
        rows, columns = ((np.arange(n) + 0.5) / n for n in (HEIGHT, width))
        rows, columns = (rows * panel.shape[0]).astype(int), (columns * panel.shape[1]).astype(int)
        scaled += [panel[rows[:, None], columns], np.full((HEIGHT, GAP, 3), 255, np.uint8)]
    return np.concatenate(scaled[:-1], axis=1)


def save(path: Path, picture: np.ndarray) -> None:
    """u8 [H, W, 3] as a JPEG, labels with sharp edges."""
    with store.atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, "JPEG", quality=90, subsampling=0)
