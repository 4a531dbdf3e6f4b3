"""Part of a training split, for learning from few labels."""

from collections import Counter
from typing import Literal

import numpy as np

from pri3d.datasets.frames import Frame

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
