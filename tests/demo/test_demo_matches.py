"""Correspondences on demo scans, where the truth is known: a guard for everything that trains.

A loss also falls on wrong matches, by learning where things usually are. Labels do not lie: two
pixels that show the same place show the same object.
"""

import itertools

import numpy as np
import pytest

from pri3d import config, demo, geometry
from pri3d.artefacts import Clouds
from pri3d.demo import cast, render
from pri3d.demo.scan import plan
from pri3d.matching.correspondences import nearest
from pri3d.stages import clouds

RADIUS = 0.02
EVERY = 4


def scan(folder, noise: bool):
    """The clouds of a demo scan and, for each kept frame, the true instance of every pixel."""
    settings = config.Demo(frames=24, height=240, color_height=64, noise=noise, seed=3)
    demo.make_scan(folder, 1, settings)
    clouds.run(
        folder / "scene0001_00" / "scene0001_00.sens",
        folder / "clouds.h5",
        config.Frames(every=EVERY),
    )
    source = Clouds(folder / "clouds.h5")
    room = plan(1, settings).room
    views = [source.view(row) for row in range(len(source))]
    instances = [
        render.instances(room, cast.trace(room, v.depth.shape, v.K, v.world_from_camera)[1])
        for v in views
    ]
    return room, views, instances


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    return scan(tmp_path_factory.mktemp("noisy"), noise=True)


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    return scan(tmp_path_factory.mktemp("exact"), noise=False)


def test_matched_pixels_show_the_same_object(noisy):
    _, views, instances = noisy
    rng = np.random.default_rng(0)
    same = shuffled = total = 0
    for i in range(len(views) - 1):
        a, b, _ = nearest(views[i], views[i + 1], RADIUS)
        label_a, label_b = instances[i][tuple(a.T)], instances[i + 1][tuple(b.T)]
        same += (label_a == label_b).sum()
        shuffled += (label_a == rng.permutation(label_b)).sum()
        total += len(a)
    assert total > 10_000
    assert same / total > 0.95
    assert shuffled / total < 0.5


def test_matches_of_noise_free_frames_are_the_true_ones(exact):
    room, views, _ = exact
    for view_a, view_b in itertools.pairwise(views):
        points, valid = geometry.unproject(view_a.depth, view_a.K)
        world = geometry.transform(view_a.world_from_camera, points[valid])
        b_from_world = np.linalg.inv(view_b.world_from_camera)
        in_b = geometry.transform(b_from_world, world)
        uv, inside = geometry.project(in_b, view_b.K, view_b.depth.shape)

        # The truth, from rays and no depth image: B sees the point if nothing stands before it.
        eye = view_b.world_from_camera[:3, 3]
        distance, *_ = cast.cast(room, np.broadcast_to(eye, world.shape), world - eye)
        visible = inside & (np.abs(distance - 1) * np.linalg.norm(world - eye, axis=1) < 0.004)
        # A pixel of B is so wide that the nearest pixel center may lie beyond the radius; look
        # at points that are surely near one.
        column, row = np.floor(uv[inside] + 0.5).astype(int).T
        there, has_depth = geometry.unproject(view_b.depth, view_b.K)
        gap = np.full(len(world), np.inf)
        gap[inside] = np.where(
            has_depth[row, column],
            np.linalg.norm(there[row, column] - in_b[inside], axis=1),
            np.inf,
        )
        sure = visible & (gap < 0.9 * RADIUS)
        assert sure.sum() > 1000

        a, b, _ = nearest(view_a, view_b, RADIUS)
        index = np.full(view_a.depth.shape, -1)
        index[valid] = np.arange(len(world))
        matched = index[tuple(a.T)]
        hit = np.zeros(len(world), bool)
        hit[matched] = True
        assert hit[sure].all()
        # The match lies where the point projects: as far as a pixel, or as the radius reaches.
        reach = 1 + view_b.K[0, 0] * RADIUS / in_b[matched, 2]
        off = np.abs(uv[matched] - b[:, ::-1]).max(axis=1)
        assert (off <= reach).all()
        on_view = np.isin(matched, np.flatnonzero(sure))
        assert np.median(off[on_view]) <= 0.5
        # What B cannot see has no match, but for the rims of what it sees.
        assert hit[~visible].sum() < 0.05 * hit.sum()
