"""Pictures of predictions, beside the image, its labels and their differences."""

from pathlib import Path

import numpy as np
from PIL import Image

from pri3d import store
from pri3d.classes import ClassSet
from pri3d.datasets import at_size

HEIGHT = 240  # of a panel, in pixels
GAP = 4
RIGHT, WRONG, UNLABELED = (0, 158, 115), (213, 94, 0), (32, 32, 32)


def semantic(
    color: np.ndarray, labels: np.ndarray, predicted: np.ndarray, classes: ClassSet
) -> np.ndarray:
    """Image, labels, prediction and errors side by side, u8 [H, W, 3]; labels of one size."""
    palette = classes.palette()
    errors = np.full((*labels.shape, 3), UNLABELED, np.uint8)
    errors[(labels > 0) & (labels == predicted)] = RIGHT
    errors[(labels > 0) & (labels != predicted)] = WRONG
    return _side_by_side([color, palette[labels], palette[predicted], errors])


def instances(
    color: np.ndarray,
    masks: np.ndarray,
    labels: np.ndarray,
    predicted_masks: np.ndarray,
    predicted_labels: np.ndarray,
    classes: ClassSet,
) -> np.ndarray:
    """Image, true objects and predicted objects side by side, u8 [H, W, 3]."""
    return _side_by_side(
        [
            color,
            overlay(color, masks, labels, classes),
            overlay(color, predicted_masks, predicted_labels, classes),
        ]
    )


def overlay(
    color: np.ndarray, masks: np.ndarray, labels: np.ndarray, classes: ClassSet
) -> np.ndarray:
    """Objects in the colors of their classes over a paler image, with their outlines."""
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
    """Labels in the colors of their classes over their image."""
    palette_color = classes.palette()[at_size(predicted, color.shape[:2])]
    return (0.4 * color + 0.6 * palette_color).astype(np.uint8)


def _side_by_side(panels: list[np.ndarray]) -> np.ndarray:
    scaled = []
    for panel in panels:
        width = round(panel.shape[1] * HEIGHT / panel.shape[0])
        rows = ((np.arange(HEIGHT) + 0.5) / HEIGHT * panel.shape[0]).astype(int)
        columns = ((np.arange(width) + 0.5) / width * panel.shape[1]).astype(int)
        scaled += [panel[rows[:, None], columns], np.full((HEIGHT, GAP, 3), 255, np.uint8)]
    return np.concatenate(scaled[:-1], axis=1)


def file_name(name: str, suffix: str) -> str:
    """The name of a file for a frame."""
    return name.replace("/", "_") + suffix


def save_jpeg(path: Path, picture: np.ndarray) -> None:
    """u8 [H, W, 3] as a JPEG, without chroma subsampling so that labels keep sharp edges."""
    with store.atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, "JPEG", quality=90, subsampling=0)


def save_png(path: Path, image: np.ndarray) -> None:
    """u8 [H, W] as a PNG."""
    with store.atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, "PNG")
