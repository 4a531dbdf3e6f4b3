"""Checks of `overlap/<scene>.h5`."""

from pathlib import Path

import numpy as np

from pri3d.artefacts import Clouds, Overlap
from pri3d.verify.checks import check, check_ledger, source_of
from pri3d.verify.recount import agrees, recount, recount_all

_SAMPLED = 5  # directed pairs


def check_overlap(path: Path, beside: Path, deep: bool) -> list[str]:
    """Check that counts are possible, and equal to those of the depth images.

    Raises:
        Pri3DError: a check failed.
    """
    with Overlap(path) as overlap:
        matches, points = overlap.matches, overlap.points
        passed = [check_ledger(path, overlap.file)]
        check(path, "matches", np.diagonal(matches) == 0, "counts a frame with itself")
        check(path, "matches", matches <= points[:, None], "is more than the points of its frame")
        # A match has a match in the other direction; counts are exact to two points.
        good = (matches <= 2) | (matches.T > 0)
        check(path, "matches", good, "has no match in the other direction")
        passed.append(f"{matches.size} counts are possible")
        source = beside / "clouds" / f"{overlap.scene}.h5"
        clouds = source_of(Clouds, source, path, overlap.inputs)
        if clouds is None:
            return [*passed, f"nothing was recounted, {source} does not exist"]
        with clouds:
            same = np.array_equal(overlap.index, clouds.index)
            check(path, "frames/index", same, "has other frames than clouds")
            rule, radius = str(overlap.settings["rule"]), float(overlap.settings["radius_m"])
            if rule == "paper":
                check(path, "points", points == clouds.points, "differs from clouds")
            if deep:
                good = agrees(matches, recount_all(clouds, rule, radius))
                check(path, "matches", good, "is not what the depth images give")
                return [*passed, f"all {matches.size} counts recompute"]
            pairs = np.argwhere(matches)
            pairs = pairs[np.random.default_rng(0).permutation(len(pairs))[:_SAMPLED]]
            for a, b in pairs:
                count = recount(clouds, a, b, rule, radius)
                what = f"is {matches[a, b]}, a KD-tree counts {count}"
                check(path, f"matches row {a}, {b}", agrees(matches[a, b], count), what)
            return [*passed, f"{len(pairs)} sampled counts recompute with a KD-tree"]
