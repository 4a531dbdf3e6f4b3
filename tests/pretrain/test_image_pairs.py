"""Samples: matches are true, distinct and counted; the same for any number of workers."""

import io
import pickle

import numpy as np
import pytest
import torch
from make_artefacts import (
    COLOR_FROM_DEPTH,
    COLOR_K,
    COLOR_SHAPE,
    DEPTH_SHAPE,
    ROOM,
    make_artefacts,
    poses,
)
from PIL import Image
from torch.utils.data import DataLoader

from pri3d.artefacts import Clouds
from pri3d.config import Pretrain
from pri3d.errors import Pri3DError
from pri3d.pretrain.image_pairs import ImagePairs
from pri3d.pretrain.image_pairs import collate_image_pairs as collate
from pri3d.pretrain.modes import Inputs, module_of
from pri3d.transforms.color import IMAGENET_MEAN, IMAGENET_STD

HEIGHT, WIDTH = 72, 96  # three quarters of the stored color images
RADIUS, VOXEL = 0.03, 0.03


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return make_artefacts(tmp_path_factory.mktemp("room"), scenes=2, voxel_m=VOXEL)


def settings(**changes) -> Pretrain:
    small = {"height": HEIGHT, "width": WIDTH, "radius_m": RADIUS, "matches": 200, "batch": 2}
    return Pretrain(**small | {"steps": 12} | changes)


def samples(room, mode="joint", held_out=(), **changes) -> ImagePairs:
    return module_of(mode).samples(Inputs(**room, held_out=held_out), settings(**changes))


def frames_of(sample) -> tuple[int, int]:
    """Positions of the two frames on the camera path."""
    words = sample.name.split()
    return int(words[2]) // 10, int(words[4]) // 10


def input_K() -> np.ndarray:
    """The color camera at the input's size, with pixel centers at integers."""
    K = COLOR_K * (WIDTH / COLOR_SHAPE[1])
    K[:2, 2] = (COLOR_K[:2, 2] + 0.5) * (WIDTH / COLOR_SHAPE[1]) - 0.5
    K[2, 2] = 1
    return K


def seen_at(cells, pose) -> np.ndarray:
    """Where on the walls the middle of each cell is, by the equations of the walls."""
    row, column = np.divmod(cells, WIDTH // 2)
    pixels = np.stack([2 * column + 0.5, 2 * row + 0.5, np.ones(len(cells))], axis=1)
    world_from_color = pose @ np.linalg.inv(COLOR_FROM_DEPTH)
    rays = pixels @ np.linalg.inv(input_K()).T @ world_from_color[:3, :3].T
    eye = world_from_color[:3, 3]
    reach = np.where(rays > 0, (ROOM[1] - eye) / rays, (ROOM[0] - eye) / rays).min(axis=1)
    return eye + rays * reach[:, None]


def cell_position(points, pose) -> np.ndarray:
    """Fractional (row, column) of the cell that sees each point; whole numbers are middles."""
    color_from_world = COLOR_FROM_DEPTH @ np.linalg.inv(pose)
    camera = points @ color_from_world[:3, :3].T + color_from_world[:3, 3]
    pixel = camera @ input_K().T
    return (pixel[:, 1::-1] / pixel[:, 2:] - 0.5) / 2


def test_matched_cells_see_the_same_place(room):
    path, offsets, shuffled = poses(4), [], []
    data = samples(room)
    for i in range(6):
        sample = data[i]
        a, b = (path[frame] for frame in frames_of(sample))
        cells_a, cells_b = sample.view
        expected = cell_position(seen_at(cells_a, a), b)
        positions_b = np.stack(np.divmod(cells_b, WIDTH // 2), axis=1)
        offsets.append(positions_b - expected)
        shuffled.append(np.roll(positions_b, 1, axis=0) - expected)
    offsets, shuffled = np.concatenate(offsets), np.concatenate(shuffled)
    # A depth pixel lies anywhere in its cell, its match anywhere in the other; nothing is shifted.
    assert np.abs(offsets).max() < 2.5
    assert np.quantile(np.abs(offsets), 0.95) < 1.2
    assert np.abs(offsets.mean(axis=0)).max() < 0.15
    assert np.median(np.abs(shuffled)) > 5


def test_matched_voxels_lie_where_the_cell_looks(room):
    path, distances, along_wall = poses(4), [], []
    data = samples(room, mode="geo")
    for i in range(6):
        sample = data[i]
        for frame, chunk in zip(frames_of(sample), sample.chunks):
            places = seen_at(chunk.id_N, path[frame])
            offsets = (chunk.voxel_V3[chunk.row_N] + 0.5) * VOXEL - places
            distances.append(np.linalg.norm(offsets, axis=1))
            on_back_wall = places[:, 1] > places[:, 1].max() - 1e-9
            along_wall.append(offsets[on_back_wall][:, [0, 2]])
    distances, along_wall = np.concatenate(distances), np.concatenate(along_wall)
    # The pixel itself is closer than the radius; the middle of its cell is half a cell from it.
    assert distances.max() < RADIUS + 0.05
    assert np.quantile(distances, 0.95) < RADIUS + 0.01
    assert len(along_wall) > 300
    assert np.abs(along_wall.mean(axis=0)).max() < 0.003


def test_chunks_are_the_rows_of_the_frame(room):
    sample = samples(room, mode="geo")[0]
    for chunk in sample.chunks:
        assert len(chunk.voxel_V3) == len(chunk.color_V3)
        assert len(np.unique(chunk.voxel_V3, axis=0)) == len(chunk.voxel_V3)
        assert chunk.row_N.max() < len(chunk.voxel_V3)


@pytest.mark.parametrize("maximum", [50, 100000])
def test_no_two_matches_share_a_cell_or_a_voxel(room, maximum):
    data = samples(room, matches=maximum)
    for i in range(6):
        sample = data[i]
        groups = [*sample.view]
        for chunk in sample.chunks:
            groups += [chunk.id_N, chunk.row_N]
        for values in groups:
            assert len(np.unique(values)) == len(values) <= maximum
            assert values.min() >= 0
        assert len(sample.view[0]) == len(sample.view[1])
        if maximum == 50:
            assert all(len(values) == 50 for values in groups)
        else:
            assert len(sample.view[0]) > 300


def test_matches_are_drawn_from_all_over_the_image(room):
    rows = np.concatenate([samples(room)[i].view[0] // (WIDTH // 2) for i in range(6)])
    counts, _ = np.histogram(rows, 4, (0, HEIGHT // 2))
    assert counts.min() > 0.5 * counts.max()


@pytest.mark.parametrize("mode", ["view", "geo", "joint"])
def test_a_mode_reads_what_it_needs(room, mode):
    with_chunks = dict(room)
    if mode == "view":
        del with_chunks["chunks_dir"]
        with_chunks["chunks_dir"] = room["pairs"].parent / "nowhere"
    sample = samples(with_chunks, mode=mode)[3]
    assert (sample.view is not None) == (mode != "geo")
    assert (sample.chunks[0] is not None) == (mode != "view")
    assert sample.images[0].shape == (3, HEIGHT, WIDTH)


def everything_in(batch) -> list:
    """All tensors and other values of a batch, flat."""
    flat = []
    for value in batch:
        flat += everything_in(value) if hasattr(value, "_fields") else [value]
    return flat


def assert_equal(batch, other):
    for x, y in zip(everything_in(batch), everything_in(other), strict=True):
        assert torch.equal(x, y) if torch.is_tensor(x) else x == y


ALL_CHANGES = {"crop": 0.7, "flip": True, "rotate_chunks": True, "depth_loss": True}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than there are cores
@pytest.mark.parametrize("changes", [{}, ALL_CHANGES, ALL_CHANGES | {"match_rule": "official"}])
def test_any_number_of_workers_gives_the_same_batches(room, changes):
    runs = []
    for workers in (0, 1, 3):
        data = samples(room, **changes)
        loader = DataLoader(data, 2, sampler=range(24), num_workers=workers, collate_fn=collate)
        runs.append(list(loader))
    assert len(runs[0]) == 12  # two epochs of the 12 pairs
    for run in runs[1:]:
        for batch, other in zip(runs[0], run, strict=True):
            assert_equal(batch, other)


def test_a_sample_does_not_depend_on_what_was_read_before(room):
    in_order, alone = samples(room), samples(room)
    for i in range(5):
        expected = in_order[i]
    assert_equal(collate([expected]), collate([alone[4]]))
    again = pickle.loads(pickle.dumps(alone))  # as a spawned worker gets it, files and all
    assert_equal(collate([expected]), collate([again[4]]))


def test_every_epoch_has_every_pair_once_in_another_order(room):
    names = [samples(room, mode="view")[i].name for i in range(24)]
    first, second = names[:12], names[12:]
    assert len(set(first)) == 12
    assert sorted(first) == sorted(second)
    assert first != second
    assert first != [samples(room, mode="view", seed=1)[i].name for i in range(12)]


def test_held_out_scans_give_no_pairs(room):
    everything = samples(room, mode="view")
    assert everything.used_scenes() == ["room00", "room01"]
    data = samples(room, "view", held_out=["room00"])
    assert data.used_scenes() == ["room01"]
    names = [data[i].name for i in range(12)]
    assert {name.split()[0] for name in names} == {"room01"}
    assert sorted(names[:6]) == sorted(names[6:])  # two epochs of its six pairs
    assert set(names) < {everything[i].name for i in range(12)}
    with pytest.raises(
        Pri3DError, match=r"has no scene elsewhere to hold out; it has room00, room"
    ):
        samples(room, "view", held_out=["room00", "elsewhere"])
    with pytest.raises(Pri3DError, match=r"pairs\.h5: all its 12 pairs are in held-out scenes"):
        samples(room, "view", held_out=["room00", "room01"])


def test_another_epoch_draws_again(room):
    data = samples(room, mode="view")
    first = data[0]
    index = next(i for i in range(12, 24) if data[i].name == first.name)
    assert not np.array_equal(data[index].view[0], first.view[0])
    assert not torch.equal(data[index].images[0], first.images[0])


def test_augmentation_does_not_change_the_matches(room):
    plain, changed = samples(room, augment_color=False)[1], samples(room)[1]
    assert not torch.equal(plain.images[0], changed.images[0])
    assert np.array_equal(plain.view[0], changed.view[0])
    assert np.array_equal(plain.chunks[1].row_N, changed.chunks[1].row_N)


def test_the_image_is_the_stored_one_made_smaller(room):
    sample = samples(room, mode="view", augment_color=False)[0]
    scene, (frame, _) = sample.name.split()[0], frames_of(sample)
    with Clouds(room["clouds_dir"] / f"{scene}.h5") as clouds:
        stored = np.asarray(Image.open(io.BytesIO(clouds.color_jpeg(frame)))).astype(float)
    thirds = stored.repeat(3, axis=0).repeat(3, axis=1)  # four of these are one pixel of the input
    expected = thirds.reshape(HEIGHT, 4, WIDTH, 4, 3).mean(axis=(1, 3))
    image = sample.images[0].permute(1, 2, 0).numpy() * IMAGENET_STD + IMAGENET_MEAN
    difference = np.abs(image * 255 - expected)
    # A JPEG is decoded at the size needed, which is not quite the mean of what it would be whole.
    assert difference.max() < 5
    assert difference.mean() < 1


def no_depth(_, frames, __):
    frames["depth"][0][:] = 0


def no_color(_, frames, __):
    frames["jpeg"][0] = b""


def broken_color(_, frames, __):
    frames["jpeg"][0] = frames["jpeg"][0][:200]


def no_chunk(_, __, chunks):
    chunks["rows"][0] = chunks["rows"][0][:0]


def far_surface(_, __, chunks):
    chunks["voxel"] = chunks["voxel"] + np.int32(500)


@pytest.mark.parametrize(
    ("edit", "reasons"),
    [
        (no_depth, {"view: fewer than 2 matches": 3, "geo: fewer than 2 matches": 3}),
        (no_color, {"no color image": 3}),
        (broken_color, {"color image does not decode": 3}),
        (no_chunk, {"geo: chunk within one cell of 16 voxels": 3}),
        (far_surface, {"geo: fewer than 2 matches": 12}),
    ],
)
def test_what_is_left_out_has_a_reason_and_the_others_are_used(tmp_path, edit, reasons):
    data = samples(make_artefacts(tmp_path, edit=edit, voxel_m=VOXEL))
    batch = collate([data[i] for i in range(6)])  # of the six pairs three have frame 0
    assert {reason: batch.skipped.count(reason) for reason in set(batch.skipped)} == reasons
    assert len(batch.names) == 6
    whole = 3 if "color" in next(iter(reasons)) else 6
    assert len(batch.image_a_BCHW) == whole
    lost = sum(n for reason, n in reasons.items() if reason.startswith("geo"))
    assert len(batch.voxels_a.counts) + len(batch.voxels_b.counts) == 2 * whole - lost
    assert len(batch.view.counts) == whole - reasons.get("view: fewer than 2 matches", 0)
    cells = HEIGHT // 2 * WIDTH // 2
    assert batch.view.anchor_N.max() < whole * cells


def test_a_batch_of_nothing(tmp_path):
    def nothing(_, frames, __):
        frames["jpeg"] = [b""] * len(frames["jpeg"])

    data = samples(make_artefacts(tmp_path, edit=nothing))
    batch = collate([data[0], data[1]])
    assert len(batch.image_a_BCHW) == 0
    assert batch.view.counts == []
    assert batch.voxels_a.counts == []
    assert batch.skipped == ["no color image"] * 2


def test_cells_and_voxels_are_numbered_through_the_batch(room):
    data = samples(room)
    first, second = data[0], data[1]
    batch = collate([first, second])
    cells = HEIGHT // 2 * WIDTH // 2
    n = batch.view.counts[0]
    assert np.array_equal(batch.view.anchor_N[n:].numpy(), second.view[0] + cells)
    side = batch.voxels_b
    assert side.counts == [len(first.chunks[1].voxel_V3), len(second.chunks[1].voxel_V3)]
    rows = side.matches.positive_N[side.matches.counts[0] :]
    expected = second.chunks[1].voxel_V3[second.chunks[1].row_N]
    assert np.array_equal(side.voxel_V3[rows].numpy(), expected)
    assert side.color_V3.max() <= 1


def test_inputs_that_do_not_fit_are_named(tmp_path):
    room = make_artefacts(tmp_path)
    missing = dict(room, chunks_dir=tmp_path / "nowhere")
    with pytest.raises(Pri3DError, match=r"nowhere/room00\.h5: no such file"):
        samples(missing)[0]

    def renumber(_, frames, __):
        frames["index"] = [1, 2, 3, 4]

    with pytest.raises(Pri3DError, match=r"clouds/room00\.h5: has no frame \d0, which the pairs"):
        samples(make_artefacts(tmp_path / "other", edit=renumber))[0]
    with pytest.raises(Pri3DError, match="holds no pairs to train on"):
        samples(make_artefacts(tmp_path / "alone", frames=1))


def test_a_damaged_file_is_named(tmp_path):
    room = make_artefacts(tmp_path)
    with Clouds(room["clouds_dir"] / "room00.h5") as clouds:
        chunks = [clouds.file["frames/depth"].id.get_chunk_info(i) for i in range(4)]
    content = bytearray((room["clouds_dir"] / "room00.h5").read_bytes())
    for chunk in chunks:
        content[chunk.byte_offset + chunk.size // 2] ^= 0x20
    (room["clouds_dir"] / "room00.h5").write_bytes(content)
    with pytest.raises(Pri3DError, match=r"room00\.h5.* cannot be read"):
        samples(room)[0]


def test_depth_and_color_have_different_sizes_here():
    assert DEPTH_SHAPE != (HEIGHT // 2, WIDTH // 2)
    assert not np.array_equal(COLOR_FROM_DEPTH, np.eye(4))
