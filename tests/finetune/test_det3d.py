"""Detection of objects in clouds: samples, the network's parts, training and figures."""

import json
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from make_rooms import write_scene
from make_weights import BLOCKS, WIDTHS, ForeignLibrary, pointcontrast_content, randomised
from safetensors.torch import load_file
from small_runs import TINY_CLOUDS, finetune, mean_losses
from typer.testing import CliRunner

from pri3d.boxes import Boxes, inside
from pri3d.cli import app
from pri3d.config import Demo, Det3d
from pri3d.datasets import open_split, sunrgbd
from pri3d.datasets.scannet_objects import SCANNET_KINDS
from pri3d.datasets.scenes import Scene
from pri3d.demo import sunrgbd as demo_sunrgbd
from pri3d.errors import Pri3DError
from pri3d.finetune import evaluate, scenes, train
from pri3d.finetune.box_predictions import predict_boxes
from pri3d.finetune.evaluate import Options
from pri3d.finetune.tasks import det3d
from pri3d.metrics import boxes3d
from pri3d.models import votenet, votenet_loss
from pri3d.models.minkunet import minkunet
from pri3d.selection import farthest_point_sampling

# Its fixtures are whole runs: one process makes them.
pytestmark = pytest.mark.xdist_group("det3d")

SMALL = TINY_CLOUDS | {"log_every": 5, "max_points": 3000, "seed_points": 64, "proposals": 16}
SMALL |= {"augment_scene": False, "augment_color": False}
# Every vote is a proposal: no object depends on which votes are sampled. All rooms are in each
# batch, and no gradient is above 1: otherwise, another order of sums could end the training early.
LEARNING = SMALL | {
    "network3d": {"widths": [16, 16, *[32] * 6], "blocks": [1] * 8, "stem_kernel": 3},
    "proposals": 64,
    "batch": 3,
    "log_every": 1,
}
LEARNING |= {"steps": 250, "lr": 3e-3, "clip_norm": 1.0}


def box_points(rng, center, size, n=400) -> np.ndarray:
    """Points on the six faces of a box."""
    p = rng.uniform(-0.5, 0.5, (n, 3))
    axis = rng.integers(0, 3, n)
    p[np.arange(n), axis] = np.sign(p[np.arange(n), axis]) / 2
    return np.array(center) + p * size


def write_rooms(root, scenes=3):
    """Rooms with a floor, a chair and a table each, as ScanNet's surfaces with objects.

    All of them are in both splits.
    """
    root.mkdir()
    names = [f"scene{n:04d}_00" for n in range(scenes)]
    for number, scene in enumerate(names):
        rng = np.random.default_rng(number)
        floor = np.hstack([rng.uniform(0, 4, (900, 2)), np.zeros((900, 1))])
        x = rng.uniform(0.5, 1.5, 2)
        chair = box_points(rng, (x[0], 1, 0.5), (0.6, 0.6, 0.9))
        table = box_points(rng, (x[1] + 1.5, 3, 0.4), (1.4, 0.9, 0.7))
        points = np.concatenate([floor, chair, table])
        color = np.repeat([(90, 90, 90), (200, 40, 40), (40, 40, 200)], (900, 400, 400), axis=0)
        write_scene(root, scene, points, color)
        folder = root / scene
        segments = {"segIndices": np.repeat([0, 1, 2], (900, 400, 400)).tolist()}
        (folder / f"{scene}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(segments))
        groups = [
            {"objectId": i, "segments": [i], "label": name}
            for i, name in enumerate(("floor", "chair", "table"))
        ]
        (folder / f"{scene}.aggregation.json").write_text(json.dumps({"segGroups": groups}))
        (folder / f"{scene}.txt").write_text("axisAlignment = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n")
    table = "id\traw_category\tcategory\tcount\tnyu40id\r\n3\tfloor\tfloor\t1\t2\r\n"
    table += "2\tchair\tchair\t1\t5\r\n4\ttable\ttable\t1\t7\r\n"
    (root / "scannetv2-labels.combined.tsv").write_bytes(table.encode())
    for split in ("train", "val"):
        (root / f"scannetv2_{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return write_rooms(tmp_path_factory.mktemp("data") / "scans")


@pytest.fixture(scope="module")
def trained(rooms, tmp_path_factory):
    """A detector that was trained on all rooms."""
    out = tmp_path_factory.mktemp("runs") / "boxes"
    last = finetune("det3d_scannet", rooms, out, **LEARNING)
    return out, last


def random_scene(seed: int, oriented: bool) -> Scene:
    rng = np.random.default_rng(seed)
    center = rng.uniform(-2, 2, (3, 3))
    size = rng.uniform(0.4, 1.2, (3, 3))
    heading = rng.uniform(-3, 3, 3) if oriented else np.zeros(3)
    boxes = Boxes(center, size, heading)
    points = rng.uniform(-3, 3, (3000, 3))
    member = sunrgbd.box_members(points, boxes)
    color = rng.integers(0, 256, (3000, 3)).astype(np.uint8)
    return Scene(points, color, boxes, rng.integers(0, 10, 3), member, [])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_boxes_move_with_their_points(seed, oriented):
    scene = random_scene(seed, oriented)
    found = scenes.augment_scene(scene, oriented, np.random.default_rng(seed))
    for i, box in enumerate(zip(*found.boxes)):
        before = inside(scene.points, *(part[i] for part in scene.boxes))
        after = inside(found.points, *box)
        if oriented:
            np.testing.assert_array_equal(before, after)
        else:  # grown around the turned box
            assert not (before & ~after).any()
    if not oriented:
        assert (found.boxes.size >= scene.boxes.size - 1e-9).all()
    growth = np.linalg.norm(found.points, axis=1) / np.linalg.norm(scene.points, axis=1)
    np.testing.assert_allclose(growth, growth[0])
    assert 0.85 <= growth[0] <= 1.15


def test_votes_lead_to_centres():
    scene = random_scene(1, True)
    sample = scenes.voxelize("a", scene, 0.05, vote_for_points=False)
    votes = sample.votes_V9.reshape(-1, 3, 3) + sample.point_V3[:, None]
    for point, vote, on_object in zip(sample.point_V3, votes, sample.in_object_V):
        holding = [i for i, b in enumerate(zip(*scene.boxes)) if inside(point[None], *b)[0]]
        assert on_object == bool(holding)
        for place in vote if on_object else []:
            nearest = np.abs(scene.boxes.center[holding] - place).max(axis=1).min()
            assert nearest < 1e-5


def test_scannets_votes_lead_to_the_middle_of_an_objects_own_points():
    scene = random_scene(2, False)
    sample = scenes.voxelize("a", scene, 0.05, vote_for_points=True)
    for i in range(3):
        own = scene.points[scene.member[:, 0] == i]
        middle = (own.min(axis=0) + own.max(axis=0)) / 2
        first = np.isclose(sample.point_V3[:, None], own[None].astype(np.float32), atol=1e-6)
        rows = first.all(axis=2).any(axis=1)
        found = sample.point_V3[rows] + sample.votes_V9[rows, :3]
        np.testing.assert_allclose(found, np.tile(middle, (rows.sum(), 1)), atol=1e-5)


def test_a_scene_may_have_more_boxes_than_the_published_64():
    scene = random_scene(3, True)
    many = Boxes(*(np.concatenate([part] * 30) for part in scene.boxes))
    scene = scene._replace(boxes=many, kind=np.tile(scene.kind, 30))
    batch = det3d.collate([scenes.voxelize("a", scene, 0.2, vote_for_points=False)])
    assert batch.mask_BG.sum() == 90


def test_farthest_points_are_far_and_few_are_repeated():
    rng = np.random.default_rng(0)
    both = torch.tensor(rng.random((2, 200, 3)))
    points = both[1]
    rows = votenet.farthest_point_sampling(both, 20)[1]
    assert rows[0] == 0
    chosen = [0]
    for row in rows[1:].tolist():  # by the definition
        distance = torch.cdist(points, points[chosen]).min(dim=1).values
        assert distance[row] == distance.max()
        chosen.append(row)
    np.testing.assert_array_equal(farthest_point_sampling(points.numpy(), 20), rows)
    repeated = [0, 1, 2, 0, 1, 2, 0]
    assert votenet.farthest_point_sampling(both[:, :3], 7).tolist() == [repeated] * 2
    assert farthest_point_sampling(points[:3].numpy(), 7).tolist() == repeated


def test_what_is_around_a_place_is_the_first_points_within_the_radius():
    rng = np.random.default_rng(2)
    points, places = torch.tensor(rng.random((2, 50, 3))), torch.tensor(rng.random((2, 6, 3)))
    places[0, 0] = 9  # far from all
    found = votenet.neighbors(places, points, 0.3, 8)
    for scene in range(2):
        for k in range(6):
            distance = (points[scene] - places[scene, k]).norm(dim=1)
            near = torch.nonzero(distance < 0.3)[:8, 0].tolist()
            expected = near + [near[0]] * (8 - len(near)) if near else [int(distance.argmin())] * 8
            assert found[scene, k].tolist() == expected


def test_headings_and_sizes_come_back_from_the_numbers_that_are_learned():
    rng = np.random.default_rng(3)
    scene = random_scene(4, True)
    scene = scene._replace(boxes=Boxes(scene.boxes.center, scene.boxes.size, rng.uniform(-7, 7, 3)))
    sample = scenes.voxelize("a", scene, 0.2, vote_for_points=False)
    batch = det3d.collate([sample])
    mean = torch.tensor(sunrgbd.SunRGBD.classes.sizes, dtype=torch.float32)
    truth = det3d.truth_of(batch, mean, 12)
    width = 2 * np.pi / 12
    for i in range(3):
        assert abs(truth.heading_residual[0, i]) <= width / 2 + 1e-6
        angle = truth.heading_bin[0, i] * width + truth.heading_residual[0, i]
        assert np.cos(angle - scene.boxes.heading[i]) == pytest.approx(1, abs=1e-5)
        size = mean[truth.size_cluster[0, i]] + truth.size_residual[0, i]
        np.testing.assert_allclose(size, scene.boxes.size[i], atol=1e-5)
    assert truth.mask.sum() == 3


def test_places_without_a_box_are_no_objects_at_the_origin():
    """Published: a proposal near the origin is an object, where fewer boxes than places are."""
    scene = random_scene(5, True)
    scene = scene._replace(boxes=scene.boxes._replace(center=scene.boxes.center + 50))
    more = scene._replace(
        boxes=Boxes(*(np.concatenate([part] * 2) for part in scene.boxes)),
        kind=np.tile(scene.kind, 2),
    )
    two = [scenes.voxelize("a", each, 0.2, vote_for_points=False) for each in (scene, more)]
    batch = det3d.collate(two)
    mean = torch.tensor(sunrgbd.SunRGBD.classes.sizes, dtype=torch.float32)
    truth = det3d.truth_of(batch, mean, 12)
    truth = type(truth)(*(part[:1] for part in truth))  # of the scene with fewer boxes
    shift_to_origin = torch.full((1, 1, 3), 0.1)
    assert not votenet_loss.assign(shift_to_origin, truth).label.any()
    published = truth._replace(center=truth.center * truth.mask[..., None])
    assert votenet_loss.assign(shift_to_origin, published).label.all()
    padding = torch.full_like(truth.center, votenet_loss.PADDING_CENTER)
    empty = truth._replace(mask=torch.zeros_like(truth.mask), center=padding)
    assert not votenet_loss.assign(shift_to_origin, empty).label.any()
    loss = votenet_loss.center_loss(shift_to_origin, torch.zeros(1, 1), empty)
    assert loss == 0


def test_a_network_finds_the_objects_of_a_few_rooms(trained, rooms, tmp_path):
    """Of 5 seeds, three with MKL_CBWR=COMPATIBLE and three without, the worst AP25 and AP50 were
    1.0, and the worst vote loss was below 0.01 of the loss of votes that do not move.
    """
    out, last = trained
    data = open_split("scannet3d", rooms, "train", "scenes")
    samples = [
        scenes.voxelize(
            "",
            data.scene(i),
            LEARNING["voxel_m"],
            vote_for_points=True,
            seed_points=LEARNING["seed_points"],
        )
        for i in range(3)
    ]
    votes = [s.votes_V9[s.seed_S][s.in_object_V[s.seed_S]][:, :3] for s in samples]
    # The loss of votes that do not move: meters, summed over the axes.
    unmoved = votenet_loss.WEIGHTS["vote"] * np.mean([np.abs(v).sum(axis=1).mean() for v in votes])
    assert last["vote_loss"] < 0.5 * unmoved
    measured = evaluate.run(out, rooms, tmp_path / "boxes.json", Options(), "cpu", 1)
    assert measured["objects"] == 6
    assert set(measured["boxes"]["ap25"]["classes"]) == {"chair", "table"}
    assert 0 <= measured["boxes"]["ap50"]["mean"] <= measured["boxes"]["ap25"]["mean"] <= 1
    assert measured["boxes"]["ap25"]["mean"] > 0.6
    assert measured["boxes"]["ap50"]["mean"] > 0.4
    result = CliRunner().invoke(
        app, ["evaluate", str(out), "--data", str(rooms), "--out", str(tmp_path / "e.json")]
    )
    assert "det3d_scannet AP25: " in result.stdout


def test_an_untrained_network_finds_nothing(rooms, tmp_path):
    finetune("det3d_scannet", rooms, tmp_path / "run", **LEARNING | {"steps": 1, "lr": 1e-9})
    measured = evaluate.run(tmp_path / "run", rooms, tmp_path / "o.json", Options(), "cpu", 1)
    assert measured["boxes"]["ap25"]["mean"] < 0.3


def test_the_losses_of_a_detector_fall(trained):
    """Of 5 seeds, the worst last loss was 0.006, far below the first."""
    out, last = trained
    assert last["scenes"] == 750
    first, end = mean_losses(out, 5)
    assert end["loss"] < 0.3 * first["loss"]
    for term in ("vote", "center"):
        assert end[f"{term}_loss"] < 0.5 * first[f"{term}_loss"]


def test_a_run_that_was_stopped_ends_with_the_same_bits(rooms, tmp_path, monkeypatch):
    given = SMALL | {"steps": 24, "checkpoint_every": 8}
    out = tmp_path / "whole"
    finetune("det3d_scannet", rooms, out, **given)
    step = train.step

    def interrupted_at_13(nets, optimizer, batches, number, *rest, **options):
        if number == 13:
            raise KeyboardInterrupt
        return step(nets, optimizer, batches, number, *rest, **options)

    monkeypatch.setattr(train, "step", interrupted_at_13)
    words = [f"--set={name}={json.dumps(value)}" for name, value in given.items()]
    words = [
        "finetune",
        "det3d_scannet",
        "--data",
        str(rooms),
        "--out",
        str(tmp_path / "r"),
        *words,
    ]
    CliRunner().invoke(app, words)
    monkeypatch.setattr(train, "step", step)
    assert (tmp_path / "r" / "checkpoints").is_dir()
    finetune("det3d_scannet", rooms, tmp_path / "r", **given)
    first, second = (load_file(folder / "model.safetensors") for folder in (out, tmp_path / "r"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_scene_may_lie_far_away(rooms):
    scene = open_split("scannet3d", rooms, "train", "scenes").scene(0)
    far = np.array([3e4, -5e4, 16])  # whole cells of every stride
    moved = scene._replace(
        points=scene.points + far, boxes=scene.boxes._replace(center=scene.boxes.center + far)
    )
    near, found = (scenes.voxelize("a", each, 0.125, True, 64) for each in (scene, moved))
    offset = near.voxel_V3.min(axis=0) - found.voxel_V3.min(axis=0)
    np.testing.assert_array_equal(offset % 16, 0)
    np.testing.assert_array_equal(near.voxel_V3 - offset, found.voxel_V3)
    np.testing.assert_allclose(near.votes_V9, found.votes_V9, atol=1e-5)
    assert np.abs(found.voxel_V3).max() < 61_439


def test_the_rate_falls_at_four_six_and_eight_ninths():
    how = Det3d(lr=1e-3)
    rates = [det3d.learning_rate(how, step, 180) for step in (1, 80, 81, 121, 161, 180)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5, 1e-6, 1e-6])


def test_frames_of_sun_rgbd_are_learned_from(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_sunrgbd, "FRAMES", 4)
    monkeypatch.setattr(demo_sunrgbd, "TEST_FRAMES", 1)
    small = {
        "kv2": demo_sunrgbd.Sensor("kv2/kinect2data", height=80, width=110, focal=80.0),
        "realsense": demo_sunrgbd.Sensor("realsense/lg", height=72, width=96, focal=85.0),
    }
    monkeypatch.setattr(demo_sunrgbd, "SENSORS", small)
    demo_sunrgbd.write(tmp_path / "sun", Demo())
    given = SMALL | {"augment_scene": True, "augment_color": True}
    last = finetune("det3d_sunrgbd", tmp_path / "sun", tmp_path / "run", **given, steps=4)
    assert last["skipped"] == {}
    told = evaluate.run(
        tmp_path / "run", tmp_path / "sun", tmp_path / "o.json", Options(), "cpu", 1
    )
    assert told["clouds"] == 1


def as_proposals(scene, mean, headings):
    """What the head would have to say for the true boxes of a scene."""
    batch = det3d.collate([scenes.voxelize("a", scene, 0.1, vote_for_points=False)])
    batch = batch._replace(  # in full precision
        center_BG3=torch.tensor(scene.boxes.center)[None],
        size_BG3=torch.tensor(scene.boxes.size)[None],
        heading_BG=torch.tensor(scene.boxes.heading)[None],
    )
    truth = det3d.truth_of(batch, mean, headings)
    n, width = len(scene.kind), np.pi / headings
    hot = torch.full((1, n, len(mean)), -9.0, dtype=torch.float64)
    hot.scatter_(2, truth.kind[..., None], 9)
    bins = torch.full((1, n, headings), -9.0, dtype=torch.float64)
    bins.scatter_(2, truth.heading_bin[..., None], 9)
    return votenet.Proposals(
        *(truth.center, torch.tensor([-9.0, 9]).expand(1, n, 2), truth.center, bins),
        (truth.heading_residual / width)[..., None].expand(-1, -1, headings),
        hot,
        truth.size_residual[:, :, None] / mean,
        hot,
    )


@pytest.mark.parametrize("oriented", [False, True])
def test_the_truth_as_proposals_is_found_whole(rooms, oriented):
    """Through the numbers of the head, decoding and suppression: an average precision of 1."""
    data = open_split("scannet3d", rooms, "train", "scenes")
    kinds = sunrgbd.SunRGBD.classes if oriented else SCANNET_KINDS
    mean, truths, found = torch.tensor(kinds.sizes, dtype=torch.float64), {}, []
    for i in range(3):
        scene = data.scene(i)
        if oriented:
            apart = np.array([(0, 0, 0), (4, 0, 1), (0, 5, -1)])  # no box suppresses another
            scene = random_scene(i, True)
            scene = scene._replace(boxes=scene.boxes._replace(center=apart))
            scene = scene._replace(points=np.random.default_rng(i).uniform(-7, 7, (90000, 3)))
            members = sunrgbd.box_members(scene.points, scene.boxes)
            color = np.zeros((90000, 3), np.uint8)
            scene = scene._replace(member=members, color=color)
        truths[i] = scene.kind, scene.boxes
        proposals = as_proposals(scene, mean, 12 if oriented else 1)
        _, boxes = predict_boxes(proposals, mean, 0, scene.points)
        found += [box._replace(scene=i) for box in boxes]
    for threshold in (0.25, 0.5, 0.95):
        result = boxes3d.average_precision(truths, found, threshold)
        assert all(ap == pytest.approx(1) for ap, _ in result.values())


def test_what_is_no_detector_is_one_sentence(trained, rooms, tmp_path):
    out, _ = trained
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text('{"task": "det3d_scannet"}')
    with pytest.raises(Pri3DError, match="is not finished"):
        evaluate.run(tmp_path / "run", rooms, tmp_path / "o.json")
    result = CliRunner().invoke(
        app, ["evaluate", str(out), "--data", str(rooms), "--split", "test"]
    )
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("kinds", "oriented"),
    [(SCANNET_KINDS, False), (sunrgbd.SunRGBD.classes, True)],
    ids=["scannet", "sunrgbd"],
)
def test_pointcontrasts_weights_begin_it_but_for_the_last_layer(kinds, oriented, tmp_path, caplog):
    torch.manual_seed(0)
    network = randomised(minkunet(3, 32, WIDTHS, BLOCKS, 3))
    path = tmp_path / "pointcontrast.pth"
    with ForeignLibrary():
        torch.save(pointcontrast_content(network), path)
    given = Det3d(
        **SMALL
        | {
            "network3d": {"widths": WIDTHS, "blocks": BLOCKS, "stem_kernel": 3},
            "initial_weights": str(path),
        }
    )
    nets = det3d.build(kinds, oriented, given)
    expected = {name: value.clone() for name, value in nets.state_dict().items()}
    of_file = [name for name in network.state_dict() if not name.startswith("final.")]
    expected |= {f"backbone3d.{name}": network.state_dict()[name] for name in of_file}
    with caplog.at_level(logging.INFO):
        start = det3d.load_initial_weights(nets, given)
    for name, value in nets.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert start.description.endswith(
        f"{len(of_file)} of {len(of_file) + 2} backbone3d entries loaded"
    )
    assert "final.kernel (8, 32), here (8, 256), final.bias (1, 32), here (1, 256)" in caplog.text
