"""Exact all-pairs overlap of posed depth images.

For every ordered pair of frames (i, j), this module counts the points of i that have a point of j
closer than the radius (Pri3D, Hou et al. 2021, section 3.1: 2 cm). The counts are those of a
KD-tree over float64 world points, computed in another way. A camera already sorts its points: the
neighbors of a point of i in frame j lie in a small window of j's image, and neighboring pixels of i
mostly have the same answer.

- Each frame i becomes a tree of pixel blocks (32, 4, 2, 1 pixels), each with a bounding ball.
- For a frame j, a block is transformed to j's camera. It is *accepted* as a whole (a point of j is
  so close to its center that every point of the block matches), *rejected* as a whole (no point of
  j is within radius + ball), or replaced by its children. One look-up at the center's pixel decides
  many acceptances, a min/max depth pyramid of j many rejections, and a scan of the window the rest.

Decisions in float32 are made only where they hold for any rounding and for poses that are not
exactly orthonormal (world distances are then scaled by the singular values of the rotation). Points
in the thin band around the radius are decided in float64 world coordinates, so that the counts do
not depend on the machine.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import UInt32

from pri3d.geometry import View
from pri3d.matching import blocks
from pri3d.matching.kernel import LANES, count_pair

# Rounding error of a float32 camera coordinate, per meter of the distances that enter it: at most
# six roundings of 6e-8 on each of three axes.
_ROUNDING = 6e-7
# Blocks with a larger ball, as a fraction of the radius, are split without a scan: they are rarely
# accepted, and a scan of their wide window costs more than their children.
_SPLIT = 0.45

# Scratch memory of one traversal: groups, balls, windows and undecided blocks of a level.
_Scratch = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def count_matches(
    views: Sequence[View], radius: float, threads: int = 1
) -> UInt32[np.ndarray, "frames frames"]:
    """Count, for all ordered pairs of frames, the points of i with a point of j within the radius.

    The counts equal those of a float64 KD-tree with the poses as given, except for distances that
    equal the radius within float64 rounding. They are the same for any number of threads.

    Args:
        views: posed depth images; cameras and shapes may differ.
        radius: meters; a match is closer than this.
        threads: number of threads.

    Returns:
        The counts, row i, column j; 0 on the diagonal.
    """
    frames = len(views)
    matches = np.zeros((frames, frames), np.uint32)
    targets = [blocks.target(view) for view in views]

    def count_row(i: int) -> None:
        if targets[i].far == 0:
            return
        queries, own_stretch = blocks.queries(views[i]), targets[i].stretch[0]
        scratch = _scratch(len(queries.points))
        for j, target in enumerate(targets):
            if j != i and target.far > 0:
                matches[i, j] = _count(
                    views[i], queries, own_stretch, views[j], target, radius, scratch
                )

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count_row, range(frames)))
    return matches


def _count(
    query: View,
    queries: blocks.Queries,
    own_stretch: float,
    view: View,
    target: blocks.Target,
    radius: float,
    scratch: _Scratch,
) -> int:
    target_from_query = target.camera_from_world @ query.world_from_camera
    margin = _ROUNDING * (queries.reach + target.far + np.abs(target_from_query[:3, 3]).sum())
    height, width = view.depth.shape
    K = view.K
    numbers = np.array(
        [
            *target_from_query[:3].ravel(),
            K[0, 0],
            K[1, 1],
            K[0, 2],
            K[1, 2],
            1 / K[0, 0],
            1 / K[1, 1],
            target.near,
            target.far,
            radius + margin,
            radius - margin,
            1 / target.stretch[2],
            1 / target.stretch[0],
            own_stretch,
            width - 1,
            height - 1,
            _SPLIT * radius,
        ],
        np.float32,
    )
    groups, ball, window, undecided = scratch
    return count_pair(
        queries.balls,
        queries.points,
        queries.start,
        queries.pixel,
        numbers,
        target.depth,
        target.ray_x,
        target.ray_y,
        target.pyramid,
        groups,
        ball,
        window,
        undecided,
        query.depth,
        query.K,
        query.world_from_camera,
        view.depth,
        view.K,
        view.world_from_camera,
        radius,
    )


def _scratch(nodes: int) -> _Scratch:
    size = nodes + 4 * LANES
    return (
        np.empty((2, size // 4), np.int64),
        np.empty((5, size), np.float32),
        np.empty((4, size), np.int32),
        np.empty(size + LANES, np.int32),
    )
