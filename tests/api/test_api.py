"""The public names against independent computations."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from make_artefacts import COLOR_K, COLOR_SHAPE, DEPTH_SHAPE, make_artefacts
from scipy.spatial import cKDTree

import pri3d
from pri3d import geometry
from pri3d.geometry import View


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return make_artefacts(tmp_path_factory.mktemp("room"), scenes=2)


@pytest.fixture
def clouds(room):
    with pri3d.open(room["clouds_dir"] / "room00.h5") as opened:
        yield opened


def test_importing_it_loads_nothing_heavy():
    code = "import pri3d, sys; print(sorted({'numpy', 'torch', 'h5py'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    assert set(pri3d.__all__) <= set(dir(pri3d))
    for name in pri3d.__all__:
        assert getattr(pri3d, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        _ = pri3d.opne


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("results/demo/scene0000_00", "SensFile"),
        ("results/demo/scene0000_00/scene0000_00.sens", "SensFile"),
        ("results/clouds/scene0000_00.h5", "Clouds"),
        ("results/overlap/scene0000_00.h5", "Overlap"),
        ("results/pairs.h5", "Pairs"),
        ("results/chunks/scene0000_00.h5", "Chunks"),
        ("results/runs/joint", "Run"),
    ],
)
def test_open_knows_what_a_path_holds(small_results, path, kind):
    assert type(pri3d.open(small_results / path)).__name__ == kind


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing.h5", "nothing.h5: no such file"),
        ("results", "neither the folder of a run nor of a scan"),
        ("results/demo/scene0000_00/scene0000_00_vh_clean_2.ply", "not a readable HDF5 file"),
    ],
)
def test_open_says_what_is_wrong(small_results, path, message):
    with pytest.raises(pri3d.Pri3DError, match=message):
        pri3d.open(small_results / path)


def world_points(view):
    points, valid = geometry.unproject(view.depth, view.K)
    return geometry.transform(view.world_from_camera, points[valid]), np.argwhere(valid)


def test_correspondences_are_those_of_a_kd_tree(clouds):
    first, second = clouds.view(0), clouds.view(1)
    (points_a, pixels_a), (points_b, pixels_b) = world_points(first), world_points(second)
    distance, row = cKDTree(points_b).query(points_a, distance_upper_bound=0.05)
    near = distance < 0.05
    matches = pri3d.correspondences(first, second, radius_m=0.05)
    assert near.sum() > 1000
    assert np.array_equal(matches.a, pixels_a[near])
    assert np.allclose(matches.distance, distance[near], atol=1e-12)
    same = (matches.b == pixels_b[row[near]]).all(axis=1)
    assert same.mean() > 0.999  # others are equally near


def test_color_pixels_show_what_the_depth_pixels_show(clouds):
    """The room's paint is a function of the place, so both color images agree at a match."""
    matches = pri3d.correspondences(clouds.view(0), clouds.view(2), pixels="color")
    assert len(matches.a) > 500
    inside = np.array(COLOR_SHAPE) - 0.5
    for pixels, row in ((matches.a, 0), (matches.b, 2)):
        assert (pixels >= -0.5).all()
        assert (pixels < inside).all()
        # The ray through a color pixel meets the wall where the depth pixel's point lies.
        camera = clouds.world_from_camera[row] @ np.linalg.inv(clouds.color_from_depth)
        rays = np.c_[
            (pixels[:, ::-1] - COLOR_K[:2, 2]) / COLOR_K[[0, 1], [0, 1]], np.ones(len(pixels))
        ]
        points, depth_pixels = world_points(clouds.view(row))
        in_camera = geometry.transform(np.linalg.inv(camera), points)
        tree = cKDTree(in_camera[:, :2] / in_camera[:, 2:])
        offset, _ = tree.query(rays[:, :2])
        assert offset.max() < 1e-9
        assert depth_pixels.shape[1] == 2


def test_color_pixels_need_a_color_camera(clouds):
    view = View(*clouds.view(0)[:3])
    with pytest.raises(pri3d.Pri3DError, match="no color camera"):
        pri3d.correspondences(view, view, pixels="color")


def test_pairs_have_images_cameras_and_correspondences(room):
    data = pri3d.PairDataset(room["pairs"], room["clouds_dir"], radius_m=0.03)
    assert len(data) == 12
    item = data[0]
    assert item.image_a.shape == (3, *COLOR_SHAPE)
    assert item.depth_a.shape == DEPTH_SHAPE
    assert item.image_a.dtype == torch.float32
    assert 0 <= item.image_a.min() < item.image_a.max() <= 1
    assert (item.scene, item.frame_a, item.frame_b) == ("room00", 0, 10)
    assert item.overlap == 0.5
    # Both images show the same paint at a correspondence (JPEG and half a pixel apart).
    rows = [pixels.round().long().unbind(1) for pixels in (item.matches_a, item.matches_b)]
    colors = [image[:, y, x] for image, (y, x) in zip((item.image_a, item.image_b), rows)]
    assert len(item.matches_a) > 500
    assert (colors[0] - colors[1]).abs().median() < 0.03


def rows_of(item):
    return set(map(tuple, torch.cat([item.matches_a, item.matches_b], 1).tolist()))


def test_drawn_correspondences_are_always_the_same_and_among_all(room):
    all_of_them = pri3d.PairDataset(room["pairs"], room["clouds_dir"])[3]
    drawn = pri3d.PairDataset(room["pairs"], room["clouds_dir"], max_matches=40, seed=5)
    again = pri3d.PairDataset(room["pairs"], room["clouds_dir"], max_matches=40, seed=5)
    assert len(drawn[3].matches_a) == 40
    assert torch.equal(drawn[3].matches_b, again[3].matches_b)
    rows = {
        tuple(row) for row in torch.cat([all_of_them.matches_a, all_of_them.matches_b], 1).tolist()
    }
    assert {
        tuple(r) for r in torch.cat([drawn[3].matches_a, drawn[3].matches_b], 1).tolist()
    } <= rows


def test_scans_can_be_chosen(room):
    data = pri3d.PairDataset(room["pairs"], room["clouds_dir"], scenes=["room01"])
    assert {data[i].scene for i in range(len(data))} == {"room01"}
    with pytest.raises(pri3d.Pri3DError, match="has no scan other"):
        pri3d.PairDataset(room["pairs"], room["clouds_dir"], scenes=["room01", "other"])
    with pytest.raises(IndexError):
        data[len(data)]


def test_several_workers_give_the_same_batches(room):
    data = pri3d.PairDataset(room["pairs"], room["clouds_dir"], max_matches=16)
    alone, together = (
        list(
            torch.utils.data.DataLoader(
                data, batch_size=4, num_workers=workers, collate_fn=pri3d.PairDataset.collate
            )
        )
        for workers in (0, 2)
    )
    assert len(alone) == 3
    for one, other in zip(alone, together):
        assert torch.equal(one["image_b"], other["image_b"])
        assert all(map(torch.equal, one["matches_a"], other["matches_a"]))


def test_the_encoder_is_that_of_the_run(small_results):
    """Its maps are those of the pretrained network, which has the weights under other names."""
    from safetensors.torch import load_file

    from pri3d.models.resunet import resunet
    from pri3d.transforms.color import IMAGENET_MEAN, IMAGENET_STD

    state = load_file(small_results / "results/runs/joint/model.safetensors")
    network = resunet("resnet18_half").eval()
    network.load_state_dict(
        {n.removeprefix("backbone."): v for n, v in state.items() if n.startswith("backbone.")}
    )
    maps = []
    network.encoder.layer4.register_forward_hook(lambda *given: maps.append(given[2]))
    image = torch.rand(2, 3, 64, 96)
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        network((image - mean) / std)
        ours = pri3d.load_encoder(small_results / "results/runs/joint")(image)
    assert [tuple(each.shape[1:]) for each in ours] == [
        (32, 16, 24),
        (64, 8, 12),
        (128, 4, 6),
        (256, 2, 3),
    ]
    assert torch.equal(ours[-1], maps[0])


def test_the_3d_network_is_that_of_the_run(small_results):
    network = pri3d.load_backbone3d(pri3d.open(small_results / "results/runs/ppkt"))
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (500, 3))
    cloud, row_of_point = pri3d.sparse_cloud(points, rng.integers(0, 256, (500, 3), np.uint8), 0.1)
    voxel = np.floor(points / 0.1)
    assert len(cloud.features) == len(np.unique(voxel, axis=0))
    assert np.array_equal(cloud.coordinates[row_of_point][:, 1:], voxel)
    assert network(cloud).features.shape == (len(cloud.features), 96)


def test_networks_that_a_run_lacks_are_named(small_results):
    with pytest.raises(pri3d.Pri3DError, match="has no 2D encoder"):
        pri3d.load_encoder(small_results / "results/runs/ppkt")
    with pytest.raises(pri3d.Pri3DError, match="not finite"):
        pri3d.sparse_cloud(np.full((1, 3), np.nan), np.zeros((1, 3), np.uint8), 0.1)
