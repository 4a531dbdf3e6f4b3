"""The published match rule against plain loops over pixels and voxels."""

import math

import numpy as np
import pytest
from make_artefacts import make_artefacts
from make_views import views_of

from pri3d.config import Pretrain
from pri3d.pretrain.image_pairs import ImagePairs
from pri3d.pretrain.official_matches import pixel_matches, voxel_matches

SHAPE = (48, 64)
HEIGHT, WIDTH = 72, 96


@pytest.fixture(scope="module")
def views():
    return views_of(5, SHAPE, frames=3)


def seen(view, world):
    """Where a camera sees a place: column and row before anything is cut off, and depth."""
    x, y, z = np.linalg.inv(view.world_from_camera)[:3] @ [*world, 1]
    if z == 0:
        return math.inf, math.inf, z
    return x / z * view.K[0, 0] + view.K[0, 2], y / z * view.K[1, 1] + view.K[1, 2], z


def test_pixels_match_as_a_loop_over_them_says(views):
    a, b = views[:2]
    expected, cut = [], 0
    for row, column in np.ndindex(*SHAPE):
        d = a.depth[row, column]
        x, y = (column - a.K[0, 2]) / a.K[0, 0] * d, (row - a.K[1, 2]) / a.K[1, 1] * d
        u, v, z = seen(b, a.world_from_camera[:3] @ [x, y, d, 1])
        if math.isinf(u):
            continue
        across, down = math.trunc(u), math.trunc(v)
        if 0 <= across < SHAPE[1] and 0 <= down < SHAPE[0] and abs(z - b.depth[down, across]) < 0.2:
            expected.append(((row, column), (down, across)))
            cut += u < 0 or v < 0
    matches = pixel_matches(a, b, 0.2)
    assert list(zip(*(map(tuple, side.tolist()) for side in matches))) == expected
    assert 50 < len(expected) < SHAPE[0] * SHAPE[1]
    assert cut > 0


def test_places_without_depth_and_behind_the_camera_take_part(views):
    a = views[0]._replace(depth=np.zeros(SHAPE), world_from_camera=np.eye(4))
    behind = np.eye(4)
    behind[2, 3] = 0.04  # the first camera, where all its points are, is 4 cm behind the second
    b = a._replace(world_from_camera=behind)
    assert len(pixel_matches(a, b)[0]) == a.depth.size
    assert len(pixel_matches(a, b, 0.03)[0]) == 0
    assert len(pixel_matches(a, a)[0]) == 0  # 0 / 0 is in no image


def test_voxels_match_as_a_loop_over_them_says(views):
    view, size = views[0], 0.1
    rng = np.random.default_rng(0)
    corner, step = view.world_from_camera[:3, 3] / size, view.world_from_camera[:3, 2] / size
    voxels = np.round(corner + step * 1.4 + rng.uniform(-6, 6, (1500, 3))).astype(np.int32)
    expected = []
    for row, voxel in enumerate(voxels):
        u, v, z = seen(view, voxel * size)
        inside = 0 <= u < SHAPE[1] and 0 <= v < SHAPE[0]
        if inside and abs(z - view.depth[int(v), int(u)]) < 0.2:
            expected.append(((int(v), int(u)), row))
    pixels, rows = voxel_matches(view, voxels, size)
    assert list(zip(map(tuple, pixels.tolist()), rows.tolist())) == expected
    assert 20 < len(expected) < 1000


def test_drawn_matches_may_share_a_cell_and_come_from_everywhere(tmp_path):
    room = make_artefacts(tmp_path, voxel_m=0.03)
    settings = Pretrain(
        **{"height": HEIGHT, "width": WIDTH, "steps": 12, "batch": 1, "matches": 800},
        match_rule="official",
    )
    data = ImagePairs(**room, settings=settings)
    shared, rows = 0, []
    for i in range(6):
        sample = data[i]
        for cells in (*sample.view, *(chunk.id_N for chunk in sample.chunks)):
            assert len(cells) == 800
            assert 0 <= cells.min() <= cells.max() < HEIGHT // 2 * WIDTH // 2
            shared += len(cells) - len(np.unique(cells))
        for chunk in sample.chunks:  # a voxel has one pixel, a pixel may have several voxels
            assert len(np.unique(chunk.row_N)) == 800
        rows.append(sample.view[0] // (WIDTH // 2))
    assert shared > 1000
    counts, _ = np.histogram(np.concatenate(rows), 4, (0, HEIGHT // 2))
    assert counts.min() > 0.4 * counts.max()
