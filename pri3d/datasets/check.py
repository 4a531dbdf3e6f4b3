"""What a folder holds of a labelled data set: what is there, what is missing and what for."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pri3d.datasets import nyuv2, open_split, scannet_labels
from pri3d.datasets.scannet_scans import has_scans
from pri3d.errors import Pri3DError

SPLITS = ("train", "val")
MOST_PROBLEMS = 20


def check(root: str | Path, name: str | None = None) -> dict[str, Any]:
    """Look at every frame of both splits; name: data set, default told from the files.

    Returns a dictionary for JSON: dataset, layout, files (name, there, what for) and for each split
    frames, readable (of those, all of whose files can be), scenes, problems (one sentence each),
    classes (share of the annotated pixels), objects
    (number of each class) and annotated (share of all pixels). Raises Pri3DError when the folder
    holds nothing of a known data set.
    """
    root = Path(root)
    if not root.is_dir():
        raise Pri3DError(f"{root}: no such folder")
    name, layout = _recognise(root, name)
    told: dict[str, Any] = {
        "dataset": name,
        "layout": layout,
        "files": _files(root, layout),
        "splits": {},
    }
    for split in SPLITS:
        try:
            data = open_split(name, root, split)
        except Pri3DError as error:
            told["splits"][split] = {"frames": 0, "problems": [str(error)]}
            continue
        told["splits"][split] = _contents(data)
    return told


def _recognise(root: Path, name: str | None) -> tuple[str, str]:
    if name == "nyuv2" or (name is None and any((root / n).exists() for n in nyuv2.FILES)):
        return "nyuv2", "nyuv2"
    if has_scans(root):
        return "scannet", "scans"
    if name == "scannet" or any(root.glob("*/color")) or any(root.glob("scannetv2_*.txt")):
        return "scannet", "frames"
    raise Pri3DError(
        f"{root}: holds neither ScanNet (scannet_frames_25k, or scans with label images) nor NYU "
        f"Depth v2 ({nyuv2.LABELED}); give the folder of one of them"
    )


def _files(root: Path, layout: str) -> list[dict[str, Any]]:
    if layout == "nyuv2":
        wanted = nyuv2.FILES
    else:
        wanted = {
            f"scannetv2_{split}.txt": f"which scenes are of the {split} split" for split in SPLITS
        }
        if layout == "scans":
            wanted |= {scannet_labels.NAME: "which class each label of the images is"}
    above = (root, root.parent) if layout != "nyuv2" else (root,)
    return [
        {
            "name": file,
            "there": any((folder / file).is_file() for folder in above),
            "for": reason,
        }
        for file, reason in wanted.items()
    ]


def _contents(data) -> dict[str, Any]:
    pixels = np.zeros(len(data.classes.names) + 1, np.int64)
    objects = np.zeros(len(data.things.names) + 1, np.int64)
    problems, sizes, unknown = data.problems + data.without_objects, Counter(), Counter()
    readable = 0
    for i in tqdm(range(len(data.frames)), data.split, unit="frame", disable=None):
        failed = len(problems)
        for read in (data.color, data.labels, data.objects):
            if read == data.objects and not data.has_objects(i):
                continue
            try:
                found = read(i)
            except Pri3DError as error:
                problems.append(str(error))
                continue
            if read == data.color:
                sizes[f"{found.shape[1]}x{found.shape[0]}"] += 1
            elif read == data.labels:
                pixels += np.bincount(found.ravel(), minlength=len(pixels))
                unknown.update(data.unknown_ids(i))
            else:
                kinds = list(found.class_of.values())
                objects += np.bincount(kinds, minlength=len(objects))
        readable += len(problems) == failed
    for number, images in sorted(unknown.items()):
        problems.append(f"id {number}, in {images:,} images, is of no class; it counts as nothing")
    if readable and not objects.any() and len(data.without_objects) < len(data.frames):
        problems.append("no object in any image: are their numbers nyu40 id * 1000 + number?")
    annotated = max(int(pixels[1:].sum()), 1)
    return {
        "frames": len(data.frames),
        "readable": readable,
        "scenes": len({frame.scene for frame in data.frames}),
        "sizes": dict(sizes),
        "annotated": float(pixels[1:].sum() / max(pixels.sum(), 1)),
        "classes": {
            name: float(count / annotated) for name, count in zip(data.classes.names, pixels[1:])
        },
        "objects": dict(zip(data.things.names, objects[1:].tolist())),
        "problems": problems,
    }


def as_text(told: dict[str, Any]) -> str:
    """What `check` found, for people."""
    lines = [f"{told['dataset']} ({told['layout']})"]
    for file in told["files"]:
        lines.append(f"  {'there  ' if file['there'] else 'MISSING'} {file['name']}: {file['for']}")
    for split, found in told["splits"].items():
        lines.append(f"{split}: {found['frames']:,} frames")
        if found["frames"]:
            annotated = 100 * found["annotated"]
            lines[-1] += f" of {found['scenes']:,} scenes, {found['readable']:,} of them readable, "
            lines[-1] += f"{annotated:.1f} % annotated"
            lines.append("  " + ", ".join(f"{n:,} of {size}" for size, n in found["sizes"].items()))
            width = max(map(len, found["classes"]))
            for name, share in found["classes"].items():
                number = found["objects"].get(name)
                of = "" if number is None else f"{number:8,} objects"
                lines.append(f"  {name:<{width}} {100 * share:6.2f} % of the pixels {of}".rstrip())
        lines += [f"  problem: {problem}" for problem in found["problems"][:MOST_PROBLEMS]]
        more = len(found["problems"]) - MOST_PROBLEMS
        if more > 0:
            lines.append(f"  and {more:,} more problems; --json has them all")
    return "\n".join(lines)
