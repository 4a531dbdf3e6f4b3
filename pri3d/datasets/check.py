"""Checks the folder of a labeled data set: its files, and every frame of both splits."""

from collections import Counter
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
from tqdm import tqdm

from pri3d.datasets import LabeledImages, nyuv2, open_split, scannet_labels
from pri3d.datasets.scannet_scans import has_scans
from pri3d.errors import Pri3DError

SPLITS = ("train", "val")
MAX_PROBLEMS = 20  # in the text


# A keyword of Python is among the keys, so it has no class body.
FileReport = TypedDict("FileReport", {"name": str, "exists": bool, "for": str})


class SplitReport(TypedDict):
    """The content of a split; only frames and problems if it cannot be opened."""

    frames: int
    problems: list[str]
    readable: NotRequired[int]
    scenes: NotRequired[int]
    sizes: NotRequired[dict[str, int]]
    annotated: NotRequired[float]
    classes: NotRequired[dict[str, float]]
    objects: NotRequired[dict[str, int]]


class Report(TypedDict):
    """What `check` returns, ready for JSON."""

    dataset: str
    layout: str
    files: list[FileReport]
    splits: dict[str, SplitReport]


def check(root: str | Path, name: str | None = None) -> Report:
    """Read every frame of both splits of a labeled data set.

    Args:
        root: folder of the data set.
        name: "scannet" or "nyuv2"; default: inferred from the files.

    Returns:
        A dictionary for JSON: dataset, layout, files (name, whether it exists, what it is for), and
        for each split: frames, readable (frames all of whose files can be read), scenes, problems
        (one sentence each), sizes of the images, annotated (share of all pixels), classes (shares
        of the annotated pixels) and objects (number per class).

    Raises:
        Pri3DError: the folder does not exist or contains no known data set.
    """
    root = Path(root)
    if not root.is_dir():
        raise Pri3DError(f"{root}: no such folder; give the folder of a data set")
    name, layout = _recognize(root, name)
    splits: dict[str, SplitReport] = {}
    for split in SPLITS:
        try:
            data = open_split(name, root, split)
        except Pri3DError as error:
            splits[split] = {"frames": 0, "problems": [str(error)]}
            continue
        splits[split] = _content(data)
    return {"dataset": name, "layout": layout, "files": _files(root, layout), "splits": splits}


def _recognize(root: Path, name: str | None) -> tuple[str, str]:
    """The name and the layout of the data set in a folder."""
    if name == "nyuv2" or (name is None and any((root / n).exists() for n in nyuv2.FILES)):
        return "nyuv2", "nyuv2"
    if has_scans(root):
        return "scannet", "scans"
    if name == "scannet" or any(root.glob("*/color")) or any(root.glob("scannetv2_*.txt")):
        return "scannet", "frames"
    raise Pri3DError(
        f"{root}: contains neither ScanNet (scannet_frames_25k, or scans with label images) nor "
        f"NYU Depth v2 ({nyuv2.LABELED}); give the folder of one of them"
    )


def _files(root: Path, layout: str) -> list[FileReport]:
    if layout == "nyuv2":
        needed = nyuv2.FILES
    else:
        needed = {f"scannetv2_{split}.txt": f"the scenes of the {split} split" for split in SPLITS}
        if layout == "scans":
            needed |= {scannet_labels.NAME: "the class of each id in the label images"}
    folders = (root,) if layout == "nyuv2" else (root, root.parent)
    return [
        {
            "name": file,
            "exists": any((folder / file).is_file() for folder in folders),
            "for": purpose,
        }
        for file, purpose in needed.items()
    ]


def _content(data: LabeledImages) -> SplitReport:
    pixels = np.zeros(len(data.classes.names) + 1, np.int64)
    objects = np.zeros(len(data.things.names) + 1, np.int64)
    problems = data.problems + data.without_objects
    sizes: Counter[str] = Counter()
    unknown: Counter[int] = Counter()
    readable = 0
    for i in tqdm(range(len(data.frames)), data.split, unit="frame", disable=None):
        before = len(problems)
        try:
            height, width, _ = data.color(i).shape
            sizes[f"{width}x{height}"] += 1
        except Pri3DError as error:
            problems.append(str(error))
        try:
            pixels += np.bincount(data.labels(i).ravel(), minlength=len(pixels))
            unknown.update(data.unknown_ids(i))
        except Pri3DError as error:
            problems.append(str(error))
        if data.has_objects(i):
            try:
                kinds = list(data.objects(i).class_of.values())
                objects += np.bincount(kinds, minlength=len(objects))
            except Pri3DError as error:
                problems.append(str(error))
        readable += len(problems) == before
    for number, images in sorted(unknown.items()):
        problems.append(f"id {number}, in {images:,} images, belongs to no class; it is ignored")
    if readable and not objects.any() and len(data.without_objects) < len(data.frames):
        problems.append("no object in any image: are their numbers NYU-40 id * 1000 + number?")
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


def as_text(report: Report) -> str:
    """The result of `check` as text for the terminal."""
    lines = [f"{report['dataset']} ({report['layout']})"]
    for file in report["files"]:
        state = "exists " if file["exists"] else "MISSING"
        lines.append(f"  {state} {file['name']}: {file['for']}")
    for name, split in report["splits"].items():
        lines += _split_lines(name, split)
    return "\n".join(lines)


def _split_lines(name: str, split: SplitReport) -> list[str]:
    lines = [f"{name}: {split['frames']:,} frames"]
    if split["frames"]:
        annotated = 100 * split["annotated"]
        lines[-1] += f" of {split['scenes']:,} scenes, {split['readable']:,} of them readable, "
        lines[-1] += f"{annotated:.1f} % annotated"
        lines.append("  " + ", ".join(f"{n:,} of {size}" for size, n in split["sizes"].items()))
        width = max(map(len, split["classes"]))
        for kind, share in split["classes"].items():
            count = split["objects"].get(kind)
            objects = "" if count is None else f"{count:8,} objects"
            lines.append(f"  {kind:<{width}} {100 * share:6.2f} % of the pixels {objects}".rstrip())
    lines += [f"  problem: {problem}" for problem in split["problems"][:MAX_PROBLEMS]]
    more = len(split["problems"]) - MAX_PROBLEMS
    if more > 0:
        lines.append(f"  and {more:,} more problems; --json lists all")
    return lines
