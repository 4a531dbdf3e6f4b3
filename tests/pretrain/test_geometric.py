"""Crops, mirror images, turned chunks, depth targets, and both match rules under them.

The oracle: in these scans the color of a place is its position, so that an image itself shows
where each of its pixels looks, whatever was cropped or mirrored.
"""

import numpy as np
import pytest
import simplejpeg
import torch
from make_artefacts import (
    COLOR_FROM_DEPTH,
    COLOR_K,
    COLOR_SHAPE,
    ROOM,
    cast,
    make_artefacts,
    poses,
)

from pri3d.config import Pretrain
from pri3d.geometry import View
from pri3d.pretrain.geometric import rotate_chunk
from pri3d.pretrain.image_pairs import ImagePairs
from pri3d.pretrain.image_pairs import collate_image_pairs as collate
from pri3d.pretrain.input_depth import input_view
from pri3d.pretrain.matches import CELL, Frame, VoxelMatches
from pri3d.pretrain.modes import Inputs, module_of
from pri3d.transforms.color import IMAGENET_MEAN, IMAGENET_STD
from pri3d.transforms.crop import Crop, crop_image, random_crop

HEIGHT, WIDTH = 72, 96
RADIUS, VOXEL = 0.03, 0.03
CHANGES = [{}, {"crop": 0.6}, {"flip": True}, {"crop": 0.6, "flip": True}]


def position_as_color(_, frames, __):
    low, high = ROOM
    for i, pose in enumerate(poses(4)):
        _, points = cast(COLOR_K, COLOR_SHAPE, pose @ np.linalg.inv(COLOR_FROM_DEPTH))
        color = np.round((points - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)
        frames["jpeg"][i] = simplejpeg.encode_jpeg(np.ascontiguousarray(color), 100)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    root = tmp_path_factory.mktemp("positions")
    return make_artefacts(root, voxel_m=VOXEL, edit=position_as_color)


def samples(room, mode="joint", **changes) -> ImagePairs:
    small = {"height": HEIGHT, "width": WIDTH, "radius_m": RADIUS, "matches": 300, "batch": 2}
    settings = Pretrain(**small | {"augment_color": False, "steps": 12} | changes)
    return module_of(mode).samples(Inputs(**room), settings)


def positions(image_CHW) -> np.ndarray:
    """The places [H, W, 3] that an image shows, meters."""
    image = image_CHW.permute(1, 2, 0).numpy() * IMAGENET_STD + IMAGENET_MEAN
    return image * (ROOM[1] - ROOM[0]) + ROOM[0]


def cell_positions(image_CHW, cells) -> np.ndarray:
    shown = positions(image_CHW).reshape(HEIGHT // CELL, CELL, WIDTH // CELL, CELL, 3)
    return shown.mean(axis=(1, 3)).reshape(-1, 3)[cells]


def off(a, b) -> np.ndarray:
    return np.linalg.norm(a - b, axis=1)


def frames_of(sample) -> tuple[int, int]:
    words = sample.name.split()
    return int(words[2]) // 10, int(words[4]) // 10


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("rule", ["paper", "official"])
def test_matched_cells_show_the_same_place(room, rule, changes):
    data = samples(room, mode="view", match_rule=rule, **changes)
    apart, mixed = [], []
    for i in range(12):
        a, b = (cell_positions(*pair) for pair in zip(data[i].images, data[i].view))
        assert len(a) > 100
        apart.append(off(a, b))
        mixed.append(off(np.roll(a, 1, axis=0), b))
    apart, mixed = np.concatenate(apart), np.concatenate(mixed)
    # A cell is 2 cm wide on the walls that face the cameras; cutting off pixels, as published,
    # moves matches by half a pixel.
    assert np.median(apart) < (0.015 if rule == "paper" else 0.025)
    assert np.quantile(apart, 0.95) < 0.06
    assert np.median(mixed) > 0.3


@pytest.mark.parametrize("changes", CHANGES)
def test_matched_voxels_lie_where_the_cell_looks(room, changes):
    data = samples(room, mode="geo", **changes)
    apart, along_wall = [], []
    for i in range(12):
        for image, chunk in zip(data[i].images, data[i].chunks):
            centers = (chunk.voxel_V3[chunk.row_N] + 0.5) * VOXEL
            places = cell_positions(image, chunk.id_N)
            apart.append(off(places, centers))
            on_back_wall = np.abs(places[:, 1] - ROOM[1, 1]) < 0.02
            along_wall.append((places - centers)[on_back_wall][:, [0, 2]])
    apart, along_wall = np.concatenate(apart), np.concatenate(along_wall)
    assert len(apart) > 2000
    assert np.quantile(apart, 0.95) < RADIUS + 0.02
    assert len(along_wall) > 300
    assert np.abs(along_wall.mean(axis=0)).max() < 0.005  # nothing is shifted


@pytest.mark.parametrize("changes", CHANGES)
def test_official_voxels_lie_where_the_cell_looks(room, changes):
    data = samples(room, mode="geo", match_rule="official", **changes)
    apart = []
    for i in range(6):
        for image, chunk in zip(data[i].images, data[i].chunks):
            corners = chunk.voxel_V3[chunk.row_N] * VOXEL
            apart.append(off(cell_positions(image, chunk.id_N), corners))
    apart = np.concatenate(apart)
    # Depth may differ by 20 cm; what lies on a wall is near nevertheless.
    assert np.median(apart) < 0.04
    assert np.quantile(apart, 0.9) < 0.2


@pytest.mark.parametrize("changes", CHANGES)
def test_depth_is_that_of_the_place_that_a_pixel_shows(room, changes):
    data = samples(room, depth_loss=True, **changes)
    wrong = []
    for i in range(6):
        sample = data[i]
        for frame, image, depth in zip(frames_of(sample), sample.images, sample.depths):
            assert depth.dtype == torch.float32
            assert depth.shape == (HEIGHT, WIDTH)
            color_from_world = COLOR_FROM_DEPTH @ np.linalg.inv(poses(4)[frame])
            places = positions(image)
            expected = places @ color_from_world[2, :3] + color_from_world[2, 3]
            known = depth.numpy() > 0
            assert known.mean() > 0.9
            wrong.append(np.abs(depth.numpy() - expected)[known])
    wrong = np.concatenate(wrong)
    assert np.median(wrong) < 0.01
    assert np.quantile(wrong, 0.95) < 0.04


def test_depth_is_sought_along_the_ray_of_another_camera():
    K, depth_shape, shape = (
        np.array([[60.0, 0, 39.5], [0, 60, 29.5], [0, 0, 1]]),
        (60, 80),
        (40, 50),
    )
    color_K = np.array([[50.0, 0, 24.5], [0, 50, 19.5], [0, 0, 1]])
    color_from_depth = np.eye(4)
    color_from_depth[0, 3] = -0.1

    def plane(K, shape, x0):
        """Depth of the plane z = 1.4 + 0.8 x for a camera at x = x0."""
        ray = np.broadcast_to((np.arange(shape[1]) - K[0, 2]) / K[0, 0], shape)
        return (1.4 + 0.8 * x0) / (1 - 0.8 * ray)

    pose = np.eye(4)
    pose[:3, 3] = (1, 2, 3)
    view = View(plane(K, depth_shape, 0), K, pose)
    resampled = input_view(Frame(view, color_K, color_from_depth, shape))
    assert np.allclose(resampled.world_from_camera[:3, 3], (1.1, 2, 3))
    known = resampled.depth > 0
    assert known[:, 2:-2].all()
    wrong = np.abs(resampled.depth / plane(color_K, shape, 0.1) - 1)[known]
    assert wrong.max() < 0.02
    assert np.median(wrong) < 0.006


def test_depth_targets_are_batched_where_asked_for(room):
    data = samples(room, depth_loss=True)
    batch = collate([data[0], data[1]])
    assert torch.equal(batch.depth_b_BHW, torch.stack([data[0].depths[1], data[1].depths[1]]))
    assert collate([samples(room)[0]]).depth_a_BHW is None
    assert samples(room, mode="geo", depth_loss=True)[0].depths is None


def test_places_without_depth_have_no_target(tmp_path):
    def hole(scene, frames, chunks):
        position_as_color(scene, frames, chunks)
        for depth in frames["depth"]:
            depth[:, :32] = 0

    data = samples(make_artefacts(tmp_path, edit=hole), mode="view", depth_loss=True)
    depth = data[0].depths[0].numpy()
    assert (depth[:, :44] == 0).all()
    assert (depth[2:-2, 52:-2] > 0).all()


def test_half_of_the_images_are_mirrored_and_crops_are_of_all_sizes(room):
    plain, changed = samples(room, "view"), samples(room, "view", crop=0.5, flip=True)
    mirrored, extents = [], []
    for i in range(24):
        for before, after in zip(plain[i].images, changed[i].images):
            x = [positions(image)[20:50, 8:-8, 0].mean(axis=0) for image in (before, after)]
            rising = [np.sign(line[-1] - line[0]) for line in x]
            mirrored.append(rising[0] != rising[1])
            extents.append(np.abs(x[1][-1] - x[1][0]) / np.abs(x[0][-1] - x[0][0]))
    assert 0.25 < np.mean(mirrored) < 0.75
    assert min(extents) < 0.65
    assert max(extents) > 0.85


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("shape", [(8, 12), (5, 7), (30, 40)])
def test_a_crop_is_the_mean_over_the_area_it_covers(shape, mirrored):
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 256, (20, 24, 3), np.uint8)
    # In an image of twice the size; quarters of pixels here, so that small squares are exact.
    crop = Crop(*(2 * edge for edge in (1.75, 2.5, 12.0, 18.25)), mirrored)
    fine = rgb.repeat(4 * shape[0], axis=0)[7 * shape[0] : (7 + 48) * shape[0]].astype(float)
    fine = fine.reshape(shape[0], -1, *fine.shape[1:]).mean(axis=1)
    fine = fine.repeat(4 * shape[1], axis=1)[:, 10 * shape[1] : (10 + 73) * shape[1]]
    expected = fine.reshape(shape[0], shape[1], -1, 3).mean(axis=2)
    expected = expected[:, ::-1] if mirrored else expected
    cropped = crop_image(rgb, (40, 48), crop, shape).transpose(1, 2, 0)
    assert np.abs(255 * cropped - expected).max() < 1e-3


def test_without_crop_and_flip_the_image_is_all_of_it():
    rgb = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    for seed in range(5):
        crop = random_crop((12, 16), 1.0, False, np.random.default_rng(seed))
        assert crop == (0, 0, 12, 16, False)
        image = crop_image(rgb, (12, 16), crop, (12, 16)).transpose(1, 2, 0)
        assert np.array_equal(np.round(255 * image), rgb)
        assert np.abs(255 * image - rgb).max() < 1e-4


@pytest.mark.parametrize("rule", ["paper", "official"])
def test_turned_chunks_keep_what_matches(room, rule):
    plain = samples(room, "geo", match_rule=rule)
    turned = samples(room, "geo", match_rule=rule, rotate_chunks=True)
    angles = []
    for i in range(6):
        for before, after in zip(plain[i].chunks, turned[i].chunks):
            assert len(np.unique(after.voxel_V3, axis=0)) == len(after.voxel_V3)
            assert len(before.voxel_V3) * 0.7 < len(after.voxel_V3) <= len(before.voxel_V3)
            assert len(np.unique(after.row_N)) == len(after.row_N)
            # Matches that are left are in the order of before; pair them up by their cells.
            rows = iter(range(len(before.id_N)))
            kept = [next(k for k in rows if before.id_N[k] == cell) for cell in after.id_N]
            assert 0.7 * len(before.id_N) < len(kept)
            old = before.voxel_V3[before.row_N[kept]] + 0.5
            new = after.voxel_V3[after.row_N] + 0.5
            assert np.array_equal(old[:, 2], new[:, 2])
            moved = (old[:, 0] + 1j * old[:, 1]).conj() @ (new[:, 0] + 1j * new[:, 1])
            angle = np.angle(moved)
            expected = (old[:, 0] + 1j * old[:, 1]) * np.exp(1j * angle)
            # In the new grid, a voxel is within half a diagonal of where it was turned to.
            assert np.abs(expected - new[:, 0] - 1j * new[:, 1]).max() < np.sqrt(0.5) + 0.03
            angles.append(angle)
    assert np.ptp(angles) > 2
    again = samples(room, "geo", match_rule=rule, rotate_chunks=True)
    assert np.array_equal(again[5].chunks[1].voxel_V3, turned[5].chunks[1].voxel_V3)


def test_of_voxels_that_fall_together_the_first_remains():
    rng = np.random.default_rng(1)
    voxel = np.unique(rng.integers(-8, 8, (3000, 3)), axis=0).astype(np.int32)
    color = rng.integers(0, 256, voxel.shape, np.uint8)
    rows = rng.permutation(len(voxel))[:500]
    chunk = rotate_chunk(VoxelMatches(voxel, color, np.arange(500), rows), 0.7)
    first, row_of_cell = {}, {}
    for row, (x, y, z) in enumerate(voxel + 0.5):
        along, across = np.cos(0.7) * x - np.sin(0.7) * y, np.sin(0.7) * x + np.cos(0.7) * y
        row_of_cell[row] = cell = tuple(int(np.floor(c)) for c in (along, across, z))
        first.setdefault(cell, row)
    assert [tuple(v) for v in chunk.voxel_V3.tolist()] == sorted(first)
    assert np.array_equal(chunk.color_V3, color[[first[cell] for cell in sorted(first)]])
    matched = {}
    for cell_of_image, row in enumerate(rows):
        matched.setdefault(row_of_cell[row], cell_of_image)
    assert len(matched) < 500
    kept = {tuple(chunk.voxel_V3[row].tolist()): cell for cell, row in zip(chunk.id_N, chunk.row_N)}
    assert kept == matched
