"""A finetuned network on any picture."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from pri3d import store
from pri3d.config import Semseg
from pri3d.datasets.frames import LARGEST
from pri3d.errors import Pri3DError
from pri3d.finetune import pictures
from pri3d.finetune.measure import classes_of, load_run, network_input, save_png
from pri3d.finetune.tasks import insseg, semseg
from pri3d.finetune.tasks.insseg import as_tensor
from pri3d.metrics import coco
from pri3d.run import processes


def run(
    trained: Path, images: list[Path], out: Path, device: str = "auto", threads: int = 0
) -> Iterator[str]:
    """Predict for each picture into the folder `out`; yields a line of what was found in each.

    Semantic segmentation: <name>_labels.png, u8, ids of the data set at the picture's size.
    Instance segmentation: <name>_objects.json, COCO's results. Both: <name>_predicted.jpg. A
    picture that cannot be read does not keep the others from being done; raises Pri3DError at the
    end then, and at once where the run is not finished.
    """
    if threads:
        torch.set_num_threads(threads)
    task, settings, nets = load_run(trained)
    classes = classes_of(task)
    place = processes.start(device).device
    nets.to(place, memory_format=torch.channels_last)
    failed, used = [], Counter()
    for path in images:
        try:
            rgb = _read(path)
        except Pri3DError as error:
            failed.append(str(error))
            continue
        used[path.stem] += 1  # two pictures of one name keep apart
        stem = path.stem if used[path.stem] == 1 else f"{path.stem}_{used[path.stem]}"
        if isinstance(settings, Semseg):
            image = network_input(rgb, settings)[None].to(place)
            with torch.no_grad():
                scores = semseg.logits(nets, image, settings)
            found = semseg.most_likely(scores, rgb.shape[:2])[0].cpu().numpy()
            save_png(out / f"{stem}_labels.png", classes.file_ids()[found])
            drawn = pictures.labels_over(rgb, found, classes)
            share = np.bincount(found.ravel(), minlength=len(classes.names) + 1)[1:] / found.size
            most = [i for i in np.argsort(-share) if share[i] >= 0.01]
            told = ", ".join(f"{classes.names[i]} {100 * share[i]:.0f} %" for i in most)
        else:
            (objects,) = insseg.predict(nets, [as_tensor(rgb).to(place)], settings)
            results = coco.results_of(1, objects)
            for entry in results:
                entry["category"] = classes.names[entry["category_id"] - 1]
            with store.atomic_path(out / f"{stem}_objects.json") as temporary:
                temporary.write_text(json.dumps(results))
            sure = objects["scores"] >= 0.5
            masks, labels = objects["masks"][sure], objects["labels"][sure]
            drawn = pictures.overlay(rgb, masks, labels, classes)
            count = Counter(classes.names[label - 1] for label in labels)
            told = ", ".join(f"{n} x {name}" for name, n in count.most_common())
            told = told or "nothing that is at least half certain"
        pictures.save(out / f"{stem}_predicted.jpg", drawn)
        yield f"{path}: {told}"
    if failed:
        raise Pri3DError("; ".join(failed))


def _read(path: Path) -> np.ndarray:
    """u8 [H, W, 3], turned as its camera says."""
    try:
        with Image.open(path, formats=["JPEG", "PNG"]) as image:
            if image.width * image.height > LARGEST:
                raise ValueError(f"it claims {image.width}x{image.height} pixels")
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # damaged files make Pillow raise half a dozen unrelated types
        raise Pri3DError(f"{path}: is no picture ({error}); give a JPEG or PNG") from None
