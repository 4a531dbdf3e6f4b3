"""Labeled clouds: ScanNet's surfaces and S3DIS's rooms, with all known kinds of damage."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_rooms import cloud, lines_of, write_area, write_scene

from pri3d.classes import S3DIS13, SCANNET20
from pri3d.datasets import open_split, s3dis
from pri3d.errors import Pri3DError

CHAIR, WALL, CLUTTER = (S3DIS13.names.index(name) + 1 for name in ("chair", "wall", "clutter"))


def test_rooms_have_the_classes_of_their_files(tmp_path):
    chair, wall, stairs, thing = (cloud(seed) for seed in range(4))
    write_area(tmp_path, chair_1=lines_of(chair), wall_12=lines_of(wall))
    write_area(tmp_path, stairs_1=lines_of(stairs), sculpture_1=lines_of(thing))
    (tmp_path / "Area_1/office_1/Annotations/.DS_Store").write_bytes(b"\0\1")
    (tmp_path / "Area_1/.DS_Store").write_bytes(b"\0\1")
    (tmp_path / "Area_1/Area_1_alignmentAngle.txt").write_text("## Global angle\noffice_1 90\n")
    (tmp_path / "Area_1/copyRoom_1").mkdir()
    (tmp_path / "Area_1/copyRoom_1/copy_Room_1.txt").write_bytes(lines_of(chair))
    data = open_split("s3dis", tmp_path, "train", "clouds")
    assert [frame.name for frame in data.frames] == ["Area_1/office_1"]
    assert any("copyRoom_1: has no Annotations" in problem for problem in data.problems)
    assert sum("missing; the area is left out" in problem for problem in data.problems) == 4
    found = data.cloud(0)
    expected = np.concatenate([chair, thing, stairs, wall])  # by the files' names
    np.testing.assert_allclose(found.points, expected[:, :3])
    np.testing.assert_array_equal(found.color, expected[:, 3:])
    kinds = np.repeat([CHAIR, 0, CLUTTER, WALL], 30)
    np.testing.assert_array_equal(found.label, kinds)
    assert found.notes == ["office_1: 'sculpture' (30 points) is not a class; it is ignored"]


def test_a_room_whose_own_file_is_misnamed_comes_whole_from_its_annotations(tmp_path):
    chair, wall = cloud(0), cloud(1)
    expected = np.concatenate([chair, wall])
    write_area(tmp_path, "Area_6/copyRoom_1", chair_1=lines_of(chair), wall_1=lines_of(wall))
    (tmp_path / "Area_6/copyRoom_1/copy_Room_1.txt").write_bytes(lines_of(expected))
    data = open_split("s3dis", tmp_path, "train", "clouds")
    assert [frame.name for frame in data.frames] == ["Area_6/copyRoom_1"]
    assert [problem[:6] for problem in data.problems] == [f"Area_{n}" for n in (1, 2, 3, 4)]
    found = data.cloud(0)
    np.testing.assert_allclose(found.points, expected[:, :3])
    np.testing.assert_array_equal(found.color, expected[:, 3:])
    np.testing.assert_array_equal(found.label, np.repeat([CHAIR, WALL], 30))
    assert found.notes == []


def test_area_5_is_held_out(tmp_path):
    for area in range(1, 7):
        write_area(tmp_path, f"Area_{area}/office_1", chair_1=lines_of(cloud(area)))
    train, val = (open_split("s3dis", tmp_path, split, "clouds") for split in ("train", "val"))
    assert [frame.name[5] for frame in train.frames] == list("12346")
    assert [frame.name for frame in val.frames] == ["Area_5/office_1"]
    assert not train.problems


@pytest.mark.parametrize(
    ("damaged", "whole"),
    [
        (b"22.350 6.692 3.048 185\x00187 182", b"22.350 6.692 3.048 185 187 182"),
        (b"19.302 -9.1\x160 1.785 146 137 106", b"19.302 -9.160 1.785 146 137 106"),
        (b"1.000 2.000 3.000 103.0\x100000 99 98", b"1.000 2.000 3.000 103.000000 99 98"),
    ],
)
def test_the_three_published_kinds_of_damage_are_repaired_exactly_and_noted(
    tmp_path, damaged, whole
):
    before = lines_of(cloud(1))
    write_area(tmp_path, ceiling_1=before + damaged + b"\n" + before)
    write_area(tmp_path, "Area_2/whole", ceiling_1=before + whole + b"\n" + before)
    data = open_split("s3dis", tmp_path, "train", "clouds")
    found, expected = data.cloud(0), data.cloud(1)
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.color, expected.color)
    assert found.notes == [
        "office_1/ceiling_1.txt: 1 damaged bytes were repaired, the first in line 31"
    ]
    assert not expected.notes


@pytest.mark.parametrize(
    "line",
    [
        b"1 2 3 4 5",
        b"1 2 3 4 5 6 7",
        b"1 2 nan 4 5 6",
        b"1 2 3 4 5 256",
        b"1 2 x 4 5 6",
        b"1-2 3 4 5 6 7",
    ],
)
def test_a_line_that_is_not_six_numbers_is_dropped_and_counted(tmp_path, line):
    before, after = cloud(1), cloud(2)
    write_area(tmp_path, wall_1=lines_of(before) + line + b"\n\n" + lines_of(after))
    data = open_split("s3dis", tmp_path, "train", "clouds")
    found = data.cloud(0)
    np.testing.assert_allclose(found.points, np.concatenate([before, after])[:, :3])
    assert "1 lines are not six numbers and were dropped, the first is line 31" in found.notes[0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats(-1e3, 1e3)] * 3, *[st.integers(0, 255)] * 3), min_size=1, max_size=20
    ),
    st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
    st.sampled_from([" ", "\t", "  "]),
)
def test_every_way_to_write_six_numbers_is_read(tmp_path_factory, points, end, gap):
    path = tmp_path_factory.mktemp("room") / "Annotations" / "wall_1.txt"
    path.parent.mkdir()
    path.write_bytes(b"".join(gap.join(map(repr, p)).encode() + end for p in points))
    found, notes = s3dis.read_points(path)
    np.testing.assert_allclose(found, np.array(points, float), rtol=1e-12)
    assert notes == []


def test_lines_of_seven_and_five_numbers_do_not_make_up_for_each_other(tmp_path):
    write_area(tmp_path, wall_1=b"1 2 3 4 5 6 7\n8 9 10 11 12\n1 2 3 4 5 6\n")
    found = open_split("s3dis", tmp_path, "train", "clouds").cloud(0)
    np.testing.assert_array_equal(found.points, [[1, 2, 3]])
    assert "2 lines" in found.notes[0]


TABLE = (
    "id\traw_category\tcategory\tcount\tnyu40id\r\n"
    "1\twall\twall\t1\t1\r\n2\tchair\tchair\t1\t5\r\n"
    "13\tcoat rack\tcoat rack\t1\t40\r\n"
)


@pytest.fixture
def scans(tmp_path):
    """Three scenes: labels as a surface, labels as segments, and one of the list without files."""
    rng = np.random.default_rng(0)
    points, color = rng.random((40, 3)), rng.integers(0, 256, (40, 3))
    (tmp_path / "scannetv2_train.txt").write_text("scene0001_00\nscene0000_00\nscene0002_00\n")
    (tmp_path / "scannetv2_test.txt").write_text("scene0000_00\n")
    (tmp_path / "scannetv2-labels.combined.tsv").write_bytes(TABLE.encode())
    for scene in ("scene0000_00", "scene0001_00"):
        write_scene(tmp_path, scene, points, color)
    label = np.array([0, 1, 5, 22, 40, 39, 50, 149] * 5)
    write_scene(tmp_path, "scene0000_00", points, color, label)
    segments = {"params": {}, "sceneId": "scene0001_00", "segIndices": [7, 7, 9, 11, 20] * 8}
    groups = [
        {"id": 0, "objectId": 0, "segments": [7], "label": "wall"},
        {"id": 1, "objectId": 1, "segments": [9, 20], "label": "chair"},
        {"id": 2, "objectId": 2, "segments": [11], "label": "trashcan"},
    ]
    folder = tmp_path / "scene0001_00"
    (folder / "scene0001_00_vh_clean_2.0.010000.segs.json").write_text(json.dumps(segments))
    (folder / "scene0001_00.aggregation.json").write_text(json.dumps({"segGroups": groups}))
    return tmp_path, points, color, label


def test_surfaces_have_the_labels_of_either_form(scans):
    root, points, color, _ = scans
    data = open_split("scannet3d", root, "train", "clouds")
    assert [frame.scene for frame in data.frames] == ["scene0001_00", "scene0000_00"]
    assert data.problems == [
        "scene0002_00: has no scene0002_00_vh_clean_2.ply; the scene is left out"
    ]
    by_segments, by_surface = data.cloud(0), data.cloud(1)
    for found in (by_segments, by_surface):
        np.testing.assert_allclose(found.points, points, atol=1e-6)
        np.testing.assert_array_equal(found.color, color)
    wall, chair = (SCANNET20.names.index(name) + 1 for name in ("wall", "chair"))
    np.testing.assert_array_equal(by_segments.label, [wall, wall, chair, 0, chair] * 8)
    assert by_segments.notes == [
        "scene0001_00.aggregation.json: 'trashcan' (1 objects) is not in the table of labels"
    ]
    other = SCANNET20.names.index("otherfurniture") + 1
    np.testing.assert_array_equal(by_surface.label, [0, wall, chair, 0, 0, other, 0, 0] * 5)
    assert [note.split(": ")[1] for note in by_surface.notes] == [
        "id 50 of 5 vertices is not a NYU-40 id",
        "id 149 of 5 vertices is not a NYU-40 id",
    ]


def test_the_test_split_has_no_labels(scans):
    root, *_ = scans
    (root / "scene0000_00/scene0000_00_vh_clean_2.labels.ply").unlink()
    data = open_split("scannet3d", root, "test", "clouds")
    assert not data.cloud(0).label.any()


def test_vertices_that_are_not_finite_keep_their_rows(scans):
    root, points, color, _ = scans
    points = points.copy()
    points[3] = np.nan
    write_scene(root, "scene0000_00", points, color)
    found = open_split("scannet3d", root, "train", "clouds").cloud(1)
    assert len(found.points) == 40
    assert found.label[3] == 0
    assert "1 vertices are not finite" in found.notes[-1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("shorter", "has 39 vertices, the surface 40"),
        ("cut", "not a whole PLY file"),
        ("no label", "not a whole PLY file"),
        ("segments", "not JSON"),
        ("groups", "not as published for ScanNet"),
        ("few segments", "has 2 vertices, the surface 40"),
    ],
)
def test_damage_is_one_sentence_and_the_others_stay(scans, damage, message):
    root, points, color, label = scans
    path = root / "scene0000_00/scene0000_00_vh_clean_2.labels.ply"
    segments = root / "scene0001_00/scene0001_00_vh_clean_2.0.010000.segs.json"
    broken = 1
    if damage == "shorter":
        write_scene(root, "scene0000_00", points[1:], color[1:], label[1:])
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == "no label":
        write_scene(root, "scene0000_00", points, color, name="_vh_clean_2.labels.ply")
    else:
        broken = 0
        text = {"segments": "{", "few segments": '{"segIndices": [7, 7]}'}
        if damage == "groups":
            (root / "scene0001_00/scene0001_00.aggregation.json").write_text("{}")
        else:
            segments.write_text(text[damage])
    data = open_split("scannet3d", root, "train", "clouds")
    with pytest.raises(Pri3DError, match=message) as caught:
        data.cloud(broken)
    assert "\n" not in str(caught.value)
    data.cloud(1 - broken)


def test_a_folder_of_something_else_is_one_sentence(tmp_path):
    with pytest.raises(Pri3DError, match="no such folder"):
        open_split("s3dis", tmp_path / "none", "train", "clouds")
    with pytest.raises(Pri3DError, match="set the folder that contains Area_1 to Area_6"):
        open_split("s3dis", tmp_path, "train", "clouds")
    with pytest.raises(Pri3DError, match=r"scannetv2_train\.txt: missing"):
        open_split("scannet3d", tmp_path, "train", "clouds")
    with pytest.raises(Pri3DError, match="has no split test"):
        open_split("s3dis", tmp_path, "test", "clouds")
