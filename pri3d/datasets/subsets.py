"""Subsets of a training split: few labels, and a validation split of one's own."""

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np

from pri3d.datasets.frames import Frame
from pri3d.datasets.scannet import scene_list
from pri3d.errors import Pri3DError

Rule = Literal["published", "random"]

# Percent -> number of scenes in the published lists, of the 1,201 training scenes of ScanNet v2.
SCANNET_SCENES = 1201
PUBLISHED = {1: 18, 5: 63, 10: 110, 20: 235, 40: 479, 60: 720, 80: 961}


def subset(
    frames: list[Frame], percent: float, rule: Rule, seed: int, whole: bool = False
) -> list[int]:
    """Positions of the frames in a subset of whole scenes, in their order.

    Args:
        frames: of the split.
        percent: share of the labels.
        rule: "published": the lists of Pri3D (Hou et al., ICCV 2021), which have the first scenes
            of the split up to, and without, the scene at which the images reach the share. Of
            ScanNet's 1,201 training scenes, the same number as in the lists. "random": scenes in
            an order drawn from the seed, at least one; the number of scenes is the share of all
            scenes. With the same seed a smaller subset is part of a larger one.
        seed: of the rule "random".
        whole: each frame is a scene, for which no lists are published. The rule "published" then
            takes the first scenes, at least one.
    """
    if percent >= 100:
        return list(range(len(frames)))
    images = Counter(frame.scene for frame in frames)  # in the order of the split
    scenes = list(images)
    if rule == "random":
        order = np.random.default_rng([seed, 5]).permutation(len(scenes))
        chosen = {scenes[i] for i in order[: max(1, round(len(scenes) * percent / 100))]}
    elif whole:
        chosen = set(scenes[: max(1, round(len(scenes) * percent / 100))])
    elif len(scenes) == SCANNET_SCENES and percent in PUBLISHED:
        chosen = set(scenes[: PUBLISHED[int(percent)]])
    else:
        total = np.cumsum([images[scene] for scene in scenes])
        chosen = set(scenes[: int(np.searchsorted(total, len(frames) * percent / 100))])
    return [i for i, frame in enumerate(frames) if frame.scene in chosen]


def held_out_scans(scans: list[str], percent: float, seed: int) -> list[str]:
    """Scans of randomly drawn spaces, in their order.

    At most `percent` of all scans, and as close to it as whole spaces allow when they are taken
    greedily. A space may have several scans (scene0000_00, scene0000_01).
    """
    spaces = list(dict.fromkeys(map(_space, scans)))
    size, remaining = Counter(map(_space, scans)), round(len(scans) * percent / 100)
    chosen: set[str] = set()
    for i in np.random.default_rng([seed, 6]).permutation(len(spaces)):
        if size[spaces[i]] <= remaining:
            remaining -= size[spaces[i]]
            chosen.add(spaces[i])
    return [scan for scan in scans if _space(scan) in chosen]


def _space(scan: str) -> str:
    return scan.rpartition("_")[0]


def split_training(root: Path, out: Path, percent: float, seed: int) -> tuple[int, int]:
    """Make a ScanNet folder whose validation split is part of the training split of another.

    Everything but the two lists is linked, not copied.

    Args:
        root: folder of ScanNet.
        out: folder to make.
        percent: share of the training scans to hold out; see `held_out_scans`.
        seed: of the choice of spaces.

    Returns:
        The numbers of scans for training and for validation.

    Raises:
        Pri3DError: `out` is not empty, `root` has no list of training scans, or one of the two
            splits would be empty.
    """
    scans = scene_list(root, "train")
    held_out = held_out_scans(scans, percent, seed)
    kept = [scan for scan in scans if scan not in set(held_out)]
    if not held_out or not kept:
        raise Pri3DError(
            f"{root}: {percent:g} % of {len(scans)} scans leaves one split empty; choose another "
            "percentage"
        )
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise Pri3DError(f"{out}: not empty; choose another folder, or remove it")
    # Lists and tables may be in the folder above, too.
    above = [path for path in root.parent.glob("scannetv2*") if not (root / path.name).exists()]
    for path in sorted([*root.iterdir(), *above]):
        if path.name not in ("scannetv2_train.txt", "scannetv2_val.txt"):
            (out / path.name).symlink_to(path.resolve())
    for split, chosen in (("train", kept), ("val", held_out)):
        (out / f"scannetv2_{split}.txt").write_text("".join(f"{scan}\n" for scan in chosen))
    return len(kept), len(held_out)
