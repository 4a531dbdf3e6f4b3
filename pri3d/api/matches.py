"""Correspondences between two posed depth images."""

from typing import Literal, NamedTuple

import numpy as np

from pri3d import geometry
from pri3d.errors import Pri3DError
from pri3d.geometry import View
from pri3d.matching.correspondences import nearest


class Correspondences(NamedTuple):
    """Pixels of two views that show the same point of the world.

    a, b: (row, column) in the images of the first and the second view, [n, 2]; int64 for depth
    pixels, float64 for color pixels, where an integer is the center of a pixel. distance: float64
    [n], meters between the two points in the world.
    """

    a: np.ndarray
    b: np.ndarray
    distance: np.ndarray


def correspondences(
    view_a: View,
    view_b: View,
    radius_m: float = 0.02,
    pixels: Literal["depth", "color"] = "depth",
) -> Correspondences:
    """For each depth pixel of A, the depth pixel of B with the nearest point of the world.

    This is the definition of Pri3D (Hou et al., ICCV 2021, section 3.1), computed exactly.

    Args:
        view_a: first view, from `Clouds.view(row)` or `geometry.View(...)`.
        view_b: second view, in the same world.
        radius_m: meters; points that are farther apart do not correspond.
        pixels: image whose pixels are returned: the depth image, or the color image. Points
            outside either color image are left out.

    Returns:
        The correspondences, in row order of A's depth image. A pixel of B can occur several times.

    Raises:
        Pri3DError: color pixels are requested, and a view has no color camera.

    Example:
        >>> with pri3d.open("results/clouds/scene0000_00.h5") as clouds:  # doctest: +SKIP
        ...     found = pri3d.correspondences(clouds.view(0), clouds.view(1))
    """
    a, b, distance = nearest(view_a, view_b, radius_m)
    if pixels == "depth":
        return Correspondences(a, b, distance)
    a_color, a_valid = _color_pixels(view_a, a)
    b_color, b_valid = _color_pixels(view_b, b)
    both = a_valid & b_valid
    return Correspondences(a_color[both], b_color[both], distance[both])


def _color_pixels(view: View, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row, column) float64 [n, 2] of depth pixels in the color image, and whether it shows them.

    Occlusion between the two cameras, which are centimeters apart, is ignored.
    """
    if view.color is None:
        raise Pri3DError(
            "correspondences: the view has no color camera; take it from `Clouds.view`, or set "
            "View.color"
        )
    points, _ = geometry.unproject(view.depth, view.K)
    points = points[pixels[:, 0], pixels[:, 1]]
    camera = view.color
    uv, valid = geometry.project(
        geometry.transform(camera.color_from_depth, points), camera.K, camera.shape
    )
    return uv[:, ::-1], valid
