"""ScanNet's labelled frames: exact labels from exact files, and one sentence for what is wrong."""

import io
import shutil
import zipfile

import numpy as np
import pytest
from make_labels import COLOR_SHAPE, save_png, write_frame, write_frames25k
from PIL import Image

from pri3d import classes, demo
from pri3d.config import Demo
from pri3d.datasets import at_size, open_split
from pri3d.datasets.scannet_labels import nyu40_of_ids
from pri3d.datasets.scannet_scans import ScanNetScans
from pri3d.demo import scannet as demo_scannet
from pri3d.errors import Pri3DError

BENCHMARK = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39]
THINGS = BENCHMARK[2:]


@pytest.fixture
def frames(tmp_path):
    return write_frames25k(tmp_path / "scannet_frames_25k")


def one_frame(root, nyu40, instance):
    (root).mkdir()
    (root / "scannetv2_train.txt").write_text("scene0000_00\n")
    write_frame(root / "scene0000_00", "000000", nyu40, instance, np.random.default_rng(0))
    return open_split("scannet", root, "train")


def test_labels_are_the_places_of_the_benchmarks_classes(tmp_path):
    nyu40 = np.arange(COLOR_SHAPE[0] * COLOR_SHAPE[1]).reshape(COLOR_SHAPE) % 41
    nyu40[0, :2] = 50, 255  # ids of no class: the published conversion leaves some
    data = one_frame(tmp_path / "x", nyu40, np.zeros(COLOR_SHAPE, int))
    expected = np.zeros(COLOR_SHAPE, int)
    for place, number in enumerate(BENCHMARK, 1):
        expected[nyu40 == number] = place
    np.testing.assert_array_equal(data.labels(0), expected)
    assert data.classes.file_ids()[data.labels(0)].max() == 39
    assert data.unknown_ids(0) == [50, 255]


def test_raw_ids_in_the_place_of_nyu40s_are_refused(tmp_path):
    """A user who took the images of label-filt: chair has the raw id 2, which here is floor."""
    data = one_frame(tmp_path / "x", np.full(COLOR_SHAPE, 2), np.zeros(COLOR_SHAPE, int))
    raw = np.full(COLOR_SHAPE, 2, np.uint16)
    raw[0] = 1357
    save_png(tmp_path / "x" / "scene0000_00" / "label" / "000000.png", raw)
    with pytest.raises(Pri3DError, match="contains the id 1357, so its ids are not NYU-40 ids"):
        data.labels(0)


def test_objects_are_told_apart_by_16_bit_numbers(tmp_path):
    instance = np.zeros(COLOR_SHAPE, int)
    parts = {5001: 5, 5002: 5, 39012: 39, 1003: None, 2001: None, 22001: None, 40001: None}
    parts |= {7: None, 1: None}  # no class: surfaces without objects
    for row, number in enumerate(parts):
        instance[row * 10 : row * 10 + 8] = number
    data = one_frame(tmp_path / "x", instance // 1000, instance)
    objects = data.objects(0)
    expected = {n: THINGS.index(kind) + 1 for n, kind in parts.items() if kind}
    assert objects.class_of == expected
    np.testing.assert_array_equal(
        objects.number, np.where(np.isin(instance, list(expected)), instance, 0)
    )


def test_an_image_without_any_label_is_an_image(tmp_path):
    data = one_frame(tmp_path / "x", np.zeros(COLOR_SHAPE, int), np.zeros(COLOR_SHAPE, int))
    assert not data.labels(0).any()
    assert data.objects(0).class_of == {}


def test_labels_of_another_size_than_their_image(tmp_path):
    half = COLOR_SHAPE[0] // 2, COLOR_SHAPE[1] // 2
    nyu40 = np.random.default_rng(1).integers(0, 41, half)
    data = one_frame(tmp_path / "x", nyu40, nyu40 * 1000 + 1)
    assert data.color(0).shape == (*COLOR_SHAPE, 3)
    assert data.labels(0).shape == half
    big = at_size(data.labels(0), COLOR_SHAPE)
    np.testing.assert_array_equal(big, np.kron(data.labels(0), np.ones((2, 2), int)))


def test_half_the_size_takes_odd_pixels_as_published():
    image = np.random.default_rng(0).integers(0, 41, (480, 640)).astype(np.uint8)
    np.testing.assert_array_equal(at_size(image, (240, 320)), image[1::2, 1::2])


@pytest.mark.parametrize("kind", [np.uint8, np.int32])
@pytest.mark.parametrize("shape", [(240, 320), (77, 101), (968, 1296), (3, 5)])
def test_resizing_takes_the_pixel_under_the_centre(shape, kind):
    image = np.random.default_rng(0).integers(0, 256, (480, 640)).astype(kind)
    rows, columns = ((np.arange(new) + 0.5) * (old / new) for old, new in zip(image.shape, shape))
    found = at_size(image, shape)
    assert found.dtype == kind
    # A centre on an edge may go to either side.
    sides = [
        image[np.ceil(rows - 1 + dr).astype(int)[:, None], np.ceil(columns - 1 + dc).astype(int)]
        for dr in (-1e-6, 1e-6)
        for dc in (-1e-6, 1e-6)
    ]
    assert np.any([found == side for side in sides], axis=0).all()


def test_what_is_missing_is_named_and_the_rest_is_used(frames):
    shutil.rmtree(frames / "scene0000_00" / "label")
    (frames / "scene0001_00" / "label" / "000100.png").unlink()
    (frames / "scene0001_00" / "color" / "000200.jpg").unlink()
    (frames / "scene0002_00" / "instance" / "000300.png").unlink()
    with open(frames / "scannetv2_train.txt", "a") as file:
        file.write("scene0099_00\n")
    data = open_split("scannet", frames, "train")
    names = [frame.name for frame in data.frames]
    assert names == ["scene0001_00/000000", "scene0001_00/000300"] + [
        f"scene0002_00/{100 * i:06d}" for i in range(4)
    ]
    assert data.problems == [
        "scene0000_00: has no label images; the scene is left out (4 frames)",
        "scene0001_00/label/000100.png: missing; the frame is left out",
        "scene0001_00/color/000200.jpg: missing; the frame is left out",
        "scene0099_00: has no images; the scene is left out (0 frames)",
    ]
    assert data.without_objects == ["scene0002_00/instance/000300.png: missing"]
    assert [data.has_objects(i) for i in range(6)] == [True] * 5 + [False]


def test_damaged_images_are_one_sentence_each(frames):
    data = open_split("scannet", frames, "train")
    folder = frames / "scene0000_00"
    for part, message in (
        ("color/000000.jpg", "not a JPEG image"),
        ("label/000000.png", "not a label image"),
        ("instance/000000.png", "not a label image"),
    ):
        content = (folder / part).read_bytes()
        for damaged in (content[: len(content) // 2], b"", b"\x00" * 100):
            (folder / part).write_bytes(damaged)
            read = {"color": data.color, "label": data.labels, "instance": data.objects}
            with pytest.raises(Pri3DError, match=f"{part}: {message}.*download it again"):
                read[part.split("/")[0]](0)
        (folder / part).unlink()
        with pytest.raises(Pri3DError, match=f"{part}: cannot be read"):
            read[part.split("/")[0]](0)
    save_png(folder / "label" / "000100.png", np.zeros((*COLOR_SHAPE, 3), np.uint8))
    with pytest.raises(Pri3DError, match="its mode is RGB instead of one channel"):
        data.labels(1)
    assert data.labels(2).shape == COLOR_SHAPE  # the neighbours are as they were


def test_a_picture_that_claims_to_be_huge_is_not_allocated(frames):
    path = frames / "scene0000_00" / "label" / "000000.png"
    content = bytearray(path.read_bytes())
    content[16:24] = (100_000).to_bytes(4, "big") * 2
    path.write_bytes(content)
    with pytest.raises(Pri3DError, match=r"000000\.png: not a label image"):
        open_split("scannet", frames, "train").labels(0)


def test_folders_that_are_no_data_set_are_clear_errors(tmp_path):
    with pytest.raises(Pri3DError, match=r"no such folder; set datasets\.scannet"):
        open_split("scannet", tmp_path / "nowhere", "train")
    with pytest.raises(Pri3DError, match=r"scannetv2_train\.txt: missing; .* Tasks/Benchmark"):
        open_split("scannet", tmp_path, "train")
    (tmp_path / "scannetv2_train.txt").write_text("\n")
    with pytest.raises(Pri3DError, match="lists no scene"):
        open_split("scannet", tmp_path, "train")
    (tmp_path / "scannetv2_train.txt").write_text("scene0000_00\n")
    with pytest.raises(Pri3DError, match="has no image of the 1 scenes"):
        open_split("scannet", tmp_path, "train")


def test_the_lists_may_lie_beside_the_folder(frames):
    for split in ("train", "val"):
        shutil.move(frames / f"scannetv2_{split}.txt", frames.parent)
    assert len(open_split("scannet", frames, "val").frames) == 4


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Two demo scans: genuine .sens with label zips and the table of labels."""
    root = tmp_path_factory.mktemp("scans")
    demo.make(root, Demo(scans=2, frames=5, height=60, color_height=72))
    (root / "scannetv2_train.txt").write_text("scene0000_00\n")
    (root / "scannetv2_val.txt").write_text("scene0001_00\n")
    return root


def raw(root, scene, part, frame):
    with zipfile.ZipFile(root / scene / f"{scene}_2d-{part}-filt.zip") as archive:
        return np.array(Image.open(io.BytesIO(archive.read(f"{part}-filt/{frame}.png"))))


def test_scans_with_labels_beside_them(scans):
    data = open_split("scannet", scans, "train")
    assert [frame.name for frame in data.frames] == ["scene0000_00/000000"]
    table = {}
    for line in (scans / "scannetv2-labels.combined.tsv").read_text().split("\n")[1:]:
        cells = line.rstrip("\r").split("\t")
        if len(cells) > 4:
            table[int(cells[0])] = int(cells[4])
    label = raw(scans, "scene0000_00", "label", 0)
    place = {number: i for i, number in enumerate(BENCHMARK, 1)}
    expected = [[place.get(table.get(int(n), 0), 0) for n in row] for row in label]
    np.testing.assert_array_equal(data.labels(0), expected)
    assert data.color(0).shape == (72, 96, 3)
    instance = raw(scans, "scene0000_00", "instance", 0)
    objects = data.objects(0)
    for number, kind in objects.class_of.items():
        inside = instance == number
        assert table[int(np.bincount(label[inside]).argmax())] == THINGS[kind - 1]
        np.testing.assert_array_equal(objects.number == number, inside)
    others = set(np.unique(instance)) - set(objects.class_of) - {0}
    for number in others:
        assert table[int(np.bincount(label[instance == number]).argmax())] not in THINGS


def test_folders_of_label_images_serve_as_well_as_zips(scans, tmp_path):
    root = tmp_path / "unpacked"
    shutil.copytree(scans, root)
    for part in ("label", "instance"):
        packed = root / "scene0000_00" / f"scene0000_00_2d-{part}-filt.zip"
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(root / "scene0000_00")
        packed.unlink()
    zipped, plain = (ScanNetScans(folder, "train", every=2) for folder in (scans, root))
    assert [f.name for f in zipped.frames] == [f.name for f in plain.frames]
    assert len(plain.frames) == 3
    for i in range(3):
        np.testing.assert_array_equal(zipped.labels(i), plain.labels(i))
        np.testing.assert_array_equal(zipped.objects(i).number, plain.objects(i).number)


def test_any_flipped_byte_of_a_label_is_one_sentence_or_nothing(scans, tmp_path):
    root = tmp_path / "scans"
    shutil.copytree(scans, root)
    packed = root / "scene0000_00" / "scene0000_00_2d-label-filt.zip"
    with zipfile.ZipFile(packed) as archive:
        image = archive.read("label-filt/0.png")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("label-filt/0.png", image)
    content, rng, failed = packed.read_bytes(), np.random.default_rng(0), 0
    expected = open_split("scannet", root, "train").labels(0)
    for place in rng.integers(0, len(content), 150):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        packed.write_bytes(damaged)
        try:
            found = open_split("scannet", root, "train").labels(0)
        except Pri3DError:
            failed += 1
        else:
            np.testing.assert_array_equal(found, expected)
    assert failed > 50


def test_scans_without_objects_are_told(scans, tmp_path):
    root = tmp_path / "scans"
    shutil.copytree(scans, root)
    folder = root / "scene0000_00"
    packed = folder / "scene0000_00_2d-instance-filt.zip"
    packed.write_bytes(packed.read_bytes()[:100])
    data = ScanNetScans(root, "train", every=2)
    assert len(data.frames) == 3
    assert data.problems == []
    assert len(data.without_objects) == 1
    assert "not a zip" in data.without_objects[0]
    packed.unlink()
    data = ScanNetScans(root, "train", every=2)
    assert data.without_objects == ["scene0000_00: has no instance images"]
    assert not any(data.has_objects(i) for i in range(3))
    # Numbers of 16 bits are numbers as well.
    (folder / "instance-filt").mkdir()
    save_png(
        folder / "instance-filt" / "0.png",
        raw(scans, "scene0000_00", "instance", 0).astype(np.uint16) * 300,
    )
    data = ScanNetScans(root, "train", every=2)
    assert [data.has_objects(i) for i in range(3)] == [True, False, False]
    assert set(data.objects(0).class_of) == {
        300 * n for n in ScanNetScans(scans, "train").objects(0).class_of
    }


def test_scans_with_something_wrong_are_named(scans, tmp_path):
    root = tmp_path / "scans"
    shutil.copytree(scans, root)
    (root / "scannetv2_train.txt").write_text("scene0000_00\nscene0001_00\nscene0009_00\n")
    packed = root / "scene0000_00" / "scene0000_00_2d-label-filt.zip"
    packed.write_bytes(packed.read_bytes()[:200])
    data = open_split("scannet", root, "train")
    assert {frame.scene for frame in data.frames} == {"scene0001_00"}
    assert len(data.problems) == 2
    assert "not a zip" in data.problems[0]
    assert data.problems[1] == "scene0009_00: has no .sens; the scene is left out"
    (root / "scannetv2-labels.combined.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(Pri3DError, match="not ScanNet's table of labels"):
        open_split("scannet", root, "train")
    (root / "scannetv2-labels.combined.tsv").unlink()
    with pytest.raises(Pri3DError, match=r"combined\.tsv: missing"):
        open_split("scannet", root, "train")


def test_the_table_is_read_with_its_crlf_and_quotes(tmp_path):
    columns = "id\traw_category\tcategory\tcount\tnyu40id"
    rows = ["5\twall\twall\t9\t1", '1357\t12" monitor\tmonitor\t1\t40']
    path = tmp_path / "scannetv2-labels.combined.tsv"
    path.write_bytes(("\r\n".join([columns, *rows]) + "\r\n").encode())
    assert nyu40_of_ids(tmp_path)[[5, 1357, 7]].tolist() == [1, 40, 0]
    damage = ["7\tsofa\tx\t1\t", "7\tsofa", "7\tsofa\tx\t1\t41", "x\tsofa\tx\t1\t6"]
    for damaged in [*damage, "x" * 200_000]:
        path.write_bytes(("\r\n".join([columns, *rows, damaged])).encode())
        with pytest.raises(Pri3DError, match="not ScanNet's table of labels"):
            nyu40_of_ids(tmp_path)
    path.write_text(columns)
    with pytest.raises(Pri3DError, match="has no rows"):
        nyu40_of_ids(tmp_path)


def test_the_demos_frames_are_its_scans_labels(scans, tmp_path):
    demo_scannet.write(tmp_path / "frames", scans, ["scene0001_00"], every=2)
    data = open_split("scannet", tmp_path / "frames", "val")
    assert [frame.name for frame in data.frames] == [
        f"scene0001_00/{frame:06d}" for frame in (0, 2, 4)
    ]
    original = ScanNetScans(scans, "val", every=2)
    for i in range(3):
        np.testing.assert_array_equal(data.labels(i), original.labels(i))
        mine, theirs = data.objects(i), original.objects(i)
        # Numbers are given anew in each image; the objects are the same.
        pairs = set(zip(mine.number.ravel().tolist(), theirs.number.ravel().tolist()))
        assert (
            len(pairs)
            == len(mine.class_of) + (0 in mine.number)
            == len(theirs.class_of) + (0 in theirs.number)
        )
        kinds = {mine.class_of[m] == theirs.class_of[t] for m, t in pairs if m}
        assert kinds <= {True}
    assert classes.SCANNET20.ids == tuple(BENCHMARK)
