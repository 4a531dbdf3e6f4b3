"""Exact all-pairs overlap of posed depth images.

For every ordered pair of frames (i, j): how many points of i have a point of j closer than the
radius (Pri3D, Hou et al. 2021, section 3.1: 2 cm). The definition is the one of a KD-tree over
float64 world points; the way is another. A camera already sorts its points, so the neighbours of
a point of i in frame j lie in a small window of j's image, and neighbouring pixels of i mostly
share their fate:

- each frame i becomes a tree of pixel blocks (32, 4, 2, 1 pixels), each with a bounding ball;
- for a frame j, a block is moved into j's camera and is *accepted* whole (a point of j is so near
  its centre that every point of the block matches), *rejected* whole (no point of j is within
  radius + ball), or replaced by its children. One look-up at the centre's pixel answers many
  acceptances, a min/max-depth pyramid of j many rejections, a scan of the window the rest.

Decisions in float32 are taken only where they are certain under its rounding and under the pose
not being exactly orthonormal (world distances are then stretched by the singular values of the
rotation). What is left in the thin band about the radius is decided in float64 world
coordinates, so the counts do not depend on the machine.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pri3d.geometry import View
from pri3d.matching import blocks
from pri3d.matching.kernel import LANES, count_pair

# Rounding of a float32 camera coordinate, per metre of the distances that enter it: at most six
# roundings of 6e-8 in each of three axes.
_ROUNDING = 6e-7
# Blocks whose ball is larger than this share of the radius are split without a scan: they could
# hardly be accepted, and a scan of their wide window costs more than their children.
_SPLIT = 0.45


def count_matches(views: Sequence[View], radius: float, threads: int = 1) -> np.ndarray:
    """For all ordered pairs, the points of i with a point of j closer than `radius` metres.

    views: posed depth images; cameras and shapes may differ. Returns u32 [F, F], row i, column j,
    diagonal 0. Exact against a float64 KD-tree with the poses as given, but for distances that
    equal the radius within float64 rounding. The same for any number of threads.
    """
    frames = len(views)
    matches = np.zeros((frames, frames), np.uint32)
    targets = [blocks.target(view) for view in views]

    def count_row(i: int) -> None:
        if targets[i].far == 0:
            return
        queries, own = blocks.queries(views[i]), targets[i].stretch[0]
        scratch = _scratch(len(queries.count))
        for j, target in enumerate(targets):
            if j != i and target.far > 0:
                matches[i, j] = _count(views[i], queries, own, views[j], target, radius, scratch)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count_row, range(frames)))
    return matches


def _count(query, queries, own_stretch, view, target, radius, scratch) -> int:
    target_from_query = target.camera_from_world @ query.world_from_camera
    margin = _ROUNDING * (queries.reach + target.far + np.abs(target_from_query[:3, 3]).sum())
    height, width = view.depth.shape
    K = view.K
    numbers = np.array(
        [
            *target_from_query[:3].ravel(),
            *(K[0, 0], K[1, 1], K[0, 2], K[1, 2], 1 / K[0, 0], 1 / K[1, 1]),
            *(target.near, target.far, radius + margin, radius - margin),
            *(1 / target.stretch[2], 1 / target.stretch[0], own_stretch),
            *(width - 1, height - 1, _SPLIT * radius),
        ],
        np.float32,
    )
    return count_pair(
        *queries[:4],
        numbers,
        *target[:4],
        *scratch,
        *(query.depth, query.K, query.world_from_camera),
        *(view.depth, view.K, view.world_from_camera),
        radius,
    )


def _scratch(nodes: int) -> tuple[np.ndarray, ...]:
    """Memory for one traversal: groups, balls, windows and undecided blocks of a level."""
    size = nodes + 4 * LANES
    return (
        np.empty((2, size // 4), np.int64),
        np.empty((5, size), np.float32),
        np.empty((4, size), np.int32),
        np.empty(size + LANES, np.int32),
    )
