"""NYU Depth v2 from its .mat files: reversed axes, references, objects of the 894 classes."""

import h5py
import numpy as np
import pytest
from make_labels import write_nyuv2
from scipy.io import savemat

from pri3d.config import Demo
from pri3d.datasets import open_split
from pri3d.demo import nyuv2
from pri3d.errors import Pri3DError

SHAPE = 30, 40
MAPPING = np.full(894, 40)
CABINET, DRESSER, WALL, BED, BOOK, CHAIR = 3, 169, 21, 157, 1, 5
for raw, nyu40 in ((CABINET, 3), (DRESSER, 17), (WALL, 1), (BED, 4), (BOOK, 23), (CHAIR, 5)):
    MAPPING[raw - 1] = nyu40
# 13 classes: furniture is 6, wall 12, bed 1, books 2, chair 4.
NYU13 = {CABINET: 6, DRESSER: 6, WALL: 12, BED: 1, BOOK: 2, CHAIR: 4}
NINE = [1, 2, 4, 6, 8, 9, 10, 11, 13]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.choice([0, *NYU13], (4, *SHAPE))
    instances = rng.integers(1, 4, labels.shape) * (labels > 0)
    images = rng.integers(0, 256, (4, *SHAPE, 3)).astype(np.uint8)
    made = write_nyuv2(
        tmp_path / "nyu",
        labels,
        instances,
        images,
        [4, 2],
        [1, 3],
        MAPPING,
        ["bedroom_0001", "bedroom_0001", "office_0002", "office_0003"],
    )
    return made, labels, instances, images


def test_images_and_labels_are_the_right_way_round(folder):
    root, labels, _, images = folder
    for split, numbers in (("train", [4, 2]), ("val", [1, 3])):
        data = open_split("nyuv2", root, split)
        assert [frame.name for frame in data.frames] == [f"nyu_rgb_{n:04d}" for n in numbers]
        for i, n in enumerate(numbers):
            np.testing.assert_array_equal(data.color(i), images[n - 1])
            expected = np.vectorize(lambda raw: NYU13.get(raw, 0))(labels[n - 1])
            np.testing.assert_array_equal(data.labels(i), expected)
    assert [frame.scene for frame in data.frames] == ["bedroom_0001", "office_0002"]
    assert not data.problems


def test_objects_of_different_raw_classes_are_not_merged(folder):
    """Cabinet 1 and dresser 1 are both furniture, and two objects."""
    root, labels, instances, _ = folder
    data = open_split("nyuv2", root, "val")
    for i, n in enumerate([1, 3]):
        objects = data.objects(i)
        pairs = {
            (raw, number)
            for raw, number in zip(labels[n - 1].ravel(), instances[n - 1].ravel())
            if NYU13.get(raw, 0) in NINE
        }
        assert len(objects.class_of) == len(pairs)
        for raw, number in pairs:
            inside = (labels[n - 1] == raw) & (instances[n - 1] == number)
            (mine,) = np.unique(objects.number[inside])
            np.testing.assert_array_equal(objects.number == mine, inside)
            assert NINE[objects.class_of[mine] - 1] == NYU13[raw]


def test_images_without_objects(tmp_path):
    labels = np.zeros((1, *SHAPE), int)
    root = write_nyuv2(
        tmp_path, labels, labels, np.zeros((1, *SHAPE, 3), np.uint8), [1], [1], MAPPING
    )
    data = open_split("nyuv2", root, "train")
    assert data.objects(0).class_of == {}
    assert data.frames[0].scene == "nyu_rgb_0001"  # no `scenes` in the file
    full = write_nyuv2(
        tmp_path / "full",
        labels + BED,
        labels + 2,
        np.zeros((1, *SHAPE, 3), np.uint8),
        [1],
        [1],
        MAPPING,
    )
    objects = open_split("nyuv2", full, "train").objects(0)
    assert objects.class_of == {1: 1}
    assert (objects.number == 1).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nyu_depth_v2_labeled.mat", "missing; it has images, labels and instances"),
        ("splits.mat", "missing; it has the images of the training"),
        ("classMapping40.mat", "missing; it has the map of the 894 raw classes"),
        ("class13Mapping.mat", "missing; it has the map of 40 classes"),
    ],
)
def test_each_file_that_is_missing_or_damaged_has_its_sentence(folder, name, message):
    path = folder[0] / name
    content = path.read_bytes()
    for damaged in (content[: len(content) // 3], b"nothing of the kind"):
        path.write_bytes(damaged)
        with pytest.raises(Pri3DError, match=f"{name}: cannot be read.*download it again"):
            open_split("nyuv2", folder[0], "train")
    path.unlink()
    with pytest.raises(Pri3DError, match=f"{name}: {message}"):
        open_split("nyuv2", folder[0], "train")


def test_arrays_that_do_not_fit_are_named(folder):
    path = folder[0] / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "a") as file:
        file["labels_"] = file["labels"][()]
        del file["labels"]
    with pytest.raises(Pri3DError, match="has no array 'labels' with 3 axes"):
        open_split("nyuv2", folder[0], "train")
    with h5py.File(path, "a") as file:
        file["labels"] = file["labels_"][:, :-1]
    with pytest.raises(Pri3DError, match="its arrays differ in size"):
        open_split("nyuv2", folder[0], "train")


def test_arrays_of_another_kind_and_maps_of_another_order_are_refused(folder):
    root = folder[0]
    with pytest.raises(Pri3DError, match="has no split test; val is its test split"):
        open_split("nyuv2", root, "test")
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "a") as file:
        labels = file["labels"][()]
        del file["labels"]
        file["labels"] = labels.astype(np.float64)
    with pytest.raises(Pri3DError, match="its labels have the type float64"):
        open_split("nyuv2", root, "train")
    other = np.arange(40, dtype=np.uint8)[None] % 13 + 1
    savemat(root / "class13Mapping.mat", {"classMapping13": {"labels13": other}})
    with pytest.raises(Pri3DError, match="labels13 is not the published map"):
        open_split("nyuv2", root, "train")


def test_numbers_beyond_the_file_are_counted(folder):
    column = np.array([[2], [99]], np.uint16)
    savemat(folder[0] / "splits.mat", {"trainNdxs": column, "testNdxs": column[1:]})
    data = open_split("nyuv2", folder[0], "train")
    assert len(data.frames) == 1
    assert data.problems == ["nyu_rgb_0099: not among the 4 images of nyu_depth_v2_labeled.mat"]
    with pytest.raises(Pri3DError, match="lists none of the 4 images"):
        open_split("nyuv2", folder[0], "val")


def test_maps_that_are_no_maps_are_named(folder):
    savemat(folder[0] / "classMapping40.mat", {"mapClass": np.ones((1, 893), np.uint8)})
    with pytest.raises(Pri3DError, match="mapClass does not map 894 classes"):
        open_split("nyuv2", folder[0], "train")


def test_the_demos_look_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(nyuv2, "IMAGES", 4)
    monkeypatch.setattr(nyuv2, "TEST_IMAGES", 2)
    nyuv2.write(tmp_path, Demo())
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat") as file:
        assert file["images"].shape == (4, 3, 640, 480)
        assert file["labels"].shape == file["instances"].shape == (4, 640, 480)
        names = ["".join(map(chr, file[r][()].ravel())) for r in file["names"][0]]
    assert len(names) == 894
    assert "couch" in names
    train, val = (open_split("nyuv2", tmp_path, split) for split in ("train", "val"))
    assert (len(train.frames), len(val.frames)) == (3, 1)
    labels = val.labels(0)
    assert labels.shape == (480, 640)
    white = (val.color(0) == 255).all(axis=2)
    assert not labels[:7].any()  # the border
    assert white[:7].all()
    assert {5, 12} <= set(np.unique(labels))  # floor and wall
    assert val.objects(0).class_of
