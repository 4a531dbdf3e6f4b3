"""Part of a training split, for learning from few labels."""

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np

from pri3d.datasets.frames import Frame
from pri3d.datasets.scannet import scene_list
from pri3d.errors import Pri3DError

Rule = Literal["published", "random"]

# How many scenes the published lists have, of the 1,201 training scenes of ScanNet v2.
SCANNET_SCENES = 1201
PUBLISHED = {1: 18, 5: 63, 10: 110, 20: 235, 40: 479, 60: 720, 80: 961}


def spread(items: list[int], most: int | None) -> list[int]:
    """At most so many of a list, evenly spread over it, in its order; None: all."""
    if most is None or len(items) <= most:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]


def subset(
    frames: list[Frame], percent: float, rule: Rule, seed: int, whole: bool = False
) -> list[int]:
    """Positions of the frames that `percent` of the labels are, in their order; whole scenes.

    published: the lists of Pri3D (Hou et al., ICCV 2021), which are the first scenes of the split
    up to, and without, the one with which the images reach that share of all; of ScanNet's 1,201
    scenes as many as the lists have, however many images are there. random: scenes in an
    order drawn by `seed`, as many as are that share of the scenes, at least one; fewer labels are a
    part of more labels of the same seed. whole: each frame is a scene, and no lists are published:
    the first scenes, as many as are that share, at least one.
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
        reached = np.cumsum([images[scene] for scene in scenes])
        chosen = set(scenes[: int(np.searchsorted(reached, len(frames) * percent / 100))])
    return [i for i, frame in enumerate(frames) if frame.scene in chosen]


def held_out_spaces(scenes: list[str], percent: float, seed: int) -> list[str]:
    """The scans of some spaces, in their order: as near to `percent` of all scans as whole spaces,
    in an order drawn by `seed`, come from below. A space has several scans (scene0000_00, _01).
    """
    spaces = list(dict.fromkeys(map(_space, scenes)))
    scans, wanted = Counter(map(_space, scenes)), round(len(scenes) * percent / 100)
    chosen: set[str] = set()
    for i in np.random.default_rng([seed, 6]).permutation(len(spaces)):
        if scans[spaces[i]] <= wanted:
            wanted -= scans[spaces[i]]
            chosen.add(spaces[i])
    return [scene for scene in scenes if _space(scene) in chosen]


def _space(scene: str) -> str:
    return scene.rpartition("_")[0]


def split_training(root: Path, out: Path, percent: float, seed: int) -> tuple[int, int]:
    """Make the folder `out` of ScanNet's data in `root`, whose validation split is a part of the
    training split (`held_out_spaces`). Everything but the two lists is linked.

    Returns how many scans remain for training, and how many are held out. Raises Pri3DError where
    `out` holds something, `root` has no list of training scans, or one side would be empty.
    """
    scenes = scene_list(root, "train")
    held_out = held_out_spaces(scenes, percent, seed)
    kept = [scene for scene in scenes if scene not in set(held_out)]
    if not held_out or not kept:
        raise Pri3DError(f"{root}: {percent:g} % of {len(scenes)} scans leaves one side empty")
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise Pri3DError(f"{out}: holds something already; choose another folder, or remove it")
    # Lists and tables may lie in the folder above, too.
    above = [path for path in root.parent.glob("scannetv2*") if not (root / path.name).exists()]
    for path in sorted([*root.iterdir(), *above]):
        if path.name not in ("scannetv2_train.txt", "scannetv2_val.txt"):
            (out / path.name).symlink_to(path.resolve())
    for split, chosen in (("train", kept), ("val", held_out)):
        (out / f"scannetv2_{split}.txt").write_text("".join(f"{scene}\n" for scene in chosen))
    return len(kept), len(held_out)
