"""Part of a training split, for learning from few labels."""

from collections import Counter
from typing import Literal

import numpy as np

from pri3d.datasets.frames import Frame

Rule = Literal["published", "random"]


def subset(frames: list[Frame], percent: float, rule: Rule, seed: int) -> list[int]:
    """Positions of the frames that `percent` of the labels are, in their order; whole scenes.

    published: the lists of Pri3D (Hou et al., ICCV 2021), which are the first scenes of the split
    up to, and without, the one with which the images reach that share of all. random: scenes in an
    order drawn by `seed`, as many as are that share of the scenes, at least one; fewer labels are a
    part of more labels of the same seed.
    """
    if percent >= 100:
        return list(range(len(frames)))
    images = Counter(frame.scene for frame in frames)  # in the order of the split
    scenes = list(images)
    if rule == "random":
        order = np.random.default_rng([seed, 5]).permutation(len(scenes))
        chosen = {scenes[i] for i in order[: max(1, round(len(scenes) * percent / 100))]}
    else:
        reached = np.cumsum([images[scene] for scene in scenes])
        chosen = set(scenes[: int(np.searchsorted(reached, len(frames) * percent / 100))])
    return [i for i, frame in enumerate(frames) if frame.scene in chosen]
