"""Predictions of a finetuned network for any picture."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from pri3d.config import TASKS, kind_of
from pri3d.datasets import IMAGE_SETS
from pri3d.datasets.frames import MAX_PIXELS
from pri3d.errors import Pri3DError
from pri3d.finetune import pictures
from pri3d.finetune.tasks import image_module
from pri3d.finetune.trained import load_trained, read_finetuned, to_device
from pri3d.run import processes


def run(
    folder: Path, images: list[Path], out: Path, device: str = "auto", threads: int = 0
) -> Iterator[str]:
    """Predict for each picture; yields one line per picture.

    Args:
        folder: of a finetuning run on images.
        images: JPEG or PNG files. One that cannot be read does not stop the others.
        out: folder for the predictions: <name>_labels.png (u8, ids of the data set, at the
            picture's size) or <name>_objects.json (results in COCO's format), and
            <name>_predicted.jpg.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads; 0: torch's default.

    Raises:
        Pri3DError: at once where the run cannot be used; at the end where a picture cannot be read.
    """
    if threads:
        torch.set_num_threads(threads)
    trained, task, _ = read_finetuned(folder)
    if not kind_of(task).pictures:
        raise Pri3DError(f"{folder}: was finetuned on clouds, not on images; give another run")
    module = image_module(TASKS[task].kind)
    classes = module.class_set(IMAGE_SETS[TASKS[task].dataset])
    nets = module.build(len(classes.names), trained.settings)
    load_trained(trained, nets)
    target = processes.start(device).device
    to_device(nets, target)
    failed, used = [], Counter[str]()
    for path in images:
        try:
            rgb = _read(path)
        except Pri3DError as error:
            failed.append(str(error))
            continue
        used[path.stem] += 1  # keeps two pictures of one name apart
        name = path.stem if used[path.stem] == 1 else f"{path.stem}_{used[path.stem]}"
        picture, line = module.predict_image(
            nets, rgb, classes, trained.settings, target, out / name
        )
        pictures.save_jpeg(out / f"{name}_predicted.jpg", picture)
        yield f"{path}: {line}"
    if failed:
        raise Pri3DError("; ".join(failed))


def _read(path: Path) -> np.ndarray:
    """u8 [H, W, 3], rotated as the camera recorded."""
    try:
        with Image.open(path, formats=["JPEG", "PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it claims {image.width}x{image.height} pixels")
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # damaged files make Pillow raise half a dozen unrelated types
        raise Pri3DError(f"{path}: is no picture ({error}); give a JPEG or PNG") from None
