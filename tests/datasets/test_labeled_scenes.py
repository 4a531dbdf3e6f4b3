"""Clouds with boxes: ScanNet's objects and SUN RGB-D from its raw files."""

import json
import shutil

import numpy as np
import pytest
from make_labels import save_png
from make_rooms import write_scene
from PIL import Image
from scipy.io import savemat

from pri3d.boxes import Boxes, inside
from pri3d.config import Demo
from pri3d.datasets import open_split, sunrgbd
from pri3d.datasets.scannet_objects import SCANNET_KINDS
from pri3d.demo import sunrgbd as demo_sunrgbd
from pri3d.errors import Pri3DError

K = np.array([[50.0, 0, 33], [0, 50, 25], [0, 0, 1]])
NOTHING = np.zeros((0, 0))
V1, V2 = "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat", "SUNRGBDMeta3DBB_v2.mat"
# Of a frame and of a box, in the order of each version's file.
FIELDS = {
    V1: (
        "sequenceName groundtruth3DBB Rtilt K depthpath rgbpath anno_extrinsics depthname rgbname "
        "sensorType valid gtCorner3D groundtruth2DBB",
        "basis coeffs centroid classname labelname sequenceName orientation gtBb2D label",
    ),
    V2: (
        "sequenceName Rtilt K depthpath rgbpath anno_extrinsics depthname rgbname sensorType valid "
        "groundtruth3DBB",
        "basis coeffs centroid classname sequenceName orientation label",
    ),
}


def structs(fields: str, rows: list[dict]) -> np.ndarray:
    """An array of MATLAB structs; fields that a row does not have are empty."""
    out = np.zeros((1, len(rows)), [(name, object) for name in fields.split()])
    for i, row in enumerate(rows):
        out[0, i] = tuple(row.get(name, NOTHING) for name in out.dtype.names)
    return out


def box(half, center, word="chair", direction=(1.0, 0, 0)) -> dict:
    numbers = {"coeffs": half, "centroid": center, "orientation": direction, "gtBb2D": (1, 2, 3, 4)}
    numbers = {name: np.array([value], float) for name, value in numbers.items()}
    return numbers | {"basis": np.eye(3), "classname": word, "sequenceName": "SUNRGBD/kv1/"}


@pytest.fixture(params=[V1, V2], ids=["version 1", "version 2"])
def sun(tmp_path, request):
    """Three frames, described in one of the versions: with boxes, with an empty list of them, and
    one whose depth is missing."""
    of_frame, of_box = FIELDS[request.param]
    rng = np.random.default_rng(0)
    depth = rng.integers(500, 4000, (48, 64)).astype(np.uint16)
    depth[:4] = 0
    depth[4, :5] = 9000  # beyond 8 m
    color = rng.integers(0, 256, (48, 64, 3)).astype(np.uint8)
    tilt = np.array([[1, 0, 0], [0, 0.96, -0.28], [0, 0.28, 0.96]])
    boxes = [
        box((0.2, 0.4, 0.5), (0, 2, 0)),
        box((-0.3, 0.1, 0.2), (0.5, 1.5, 0.1), "table", (0.0, 1, 0)),
        box((0.2, 0.4, 0.5), (0, 2, 0), "lamp"),
        box((0.2, np.nan, 0.5), (0, 2, 0), "sofa"),
    ]
    rows = []
    for n, truth in enumerate((structs(of_box, boxes), NOTHING, NOTHING)):
        name = f"SUNRGBD/kv1/b3dodata/img_{n}"
        folder = tmp_path / name
        for part in ("depth", "image"):
            (folder / part).mkdir(parents=True)
        if n < 2:
            save_png(folder / f"depth/{n}.png", (depth << 3) | (depth >> 13))
        Image.fromarray(color).save(folder / f"image/{n}.jpg", quality=100, subsampling=0)
        start = f"/n/fs/sun3d/data//{name}/"
        paths = {"depthpath": f"{start}depth/{n}.png", "rgbpath": f"{start}image/{n}.jpg"}
        row = {"sequenceName": f"{name}/", "Rtilt": tilt, "K": K, "sensorType": "kv1"}
        rows.append(row | paths | {"groundtruth3DBB": truth})
    meta = tmp_path / request.param
    meta.parent.mkdir(parents=True, exist_ok=True)
    savemat(meta, {"SUNRGBDMeta": structs(of_frame, rows)})
    paths = [f"/n/fs/sun3d/data/{row['sequenceName'].rstrip('/')}" for row in rows]
    folder = tmp_path / "SUNRGBDtoolbox/traintestSUNRGBD"
    folder.mkdir(parents=True)
    paths = [*paths, "/n/fs/sun3d/data/SUNRGBD/kv2/other"]
    cells = np.array(paths, object)[None]
    savemat(folder / "allsplit.mat", {"alltrain": cells, "alltest": cells[:, 1:2]})
    return tmp_path, depth, color, tilt, meta


def test_a_frame_is_what_its_files_say(sun):
    root, depth, color, tilt, meta = sun
    data = open_split("sunrgbd", root, "train", "scenes")
    assert data.described_by == meta.name
    assert [frame.name[-5:] for frame in data.frames] == ["img_0", "img_1"]
    assert [p.split(": ")[1] for p in data.problems] == [
        "has no 2.png; the frame is left out",
        f"not described in {meta.name}; the frame is left out",
    ]
    scene = data.scene(0)
    row, column = np.nonzero(depth)
    assert len(scene.points) == len(row)
    # Back to pixels counted from 1, by the published inverse: K, axes, tilt transposed.
    camera = scene.points @ tilt
    x, z, y = camera[:, 0], camera[:, 1], -camera[:, 2]
    np.testing.assert_allclose(x / z * 50 + 33, column + 1, atol=1e-9)
    np.testing.assert_allclose(y / z * 50 + 25, row + 1, atol=1e-9)
    np.testing.assert_allclose(z, np.minimum(depth[row, column] / 1000, 8))
    error = np.abs(scene.color.astype(int) - color[row, column])
    assert np.median(error) < 12


def test_boxes_have_whole_sizes_and_headings_from_x_towards_minus_y(sun):
    data = open_split("sunrgbd", sun[0], "train", "scenes")
    scene = data.scene(0)
    names = [data.classes.names[kind] for kind in scene.kind]
    assert names == ["chair", "table"]  # a lamp is not one of the ten classes
    np.testing.assert_allclose(scene.boxes.size, [(0.8, 0.4, 1.0), (0.2, 0.6, 0.4)])
    np.testing.assert_allclose(scene.boxes.heading, [0, -np.pi / 2])
    assert len(scene.notes) == 1
    assert "a box of class sofa is left out" in scene.notes[0]
    empty = data.scene(1)
    assert len(empty.kind) == len(empty.boxes.heading) == 0
    assert (empty.member == -1).all()


def test_version_2_is_used_if_both_exist(sun):
    root, *_, meta = sun
    for other in {root / V1, root / V2} - {meta}:
        other.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(meta, other)
    assert open_split("sunrgbd", root, "train", "scenes").described_by == "SUNRGBDMeta3DBB_v2.mat"


def test_points_belong_to_at_most_three_boxes_as_votes_are_kept():
    points = np.array([(0.0, 0, 0), (0.4, 0, 0), (3, 0, 0)])
    size = np.array([(1.0, 1, 1), (0.5, 0.5, 0.5), (2, 2, 2), (3, 3, 3)])
    boxes = Boxes(np.zeros((4, 3)), size, np.zeros(4))
    found = sunrgbd.box_members(points, boxes)
    np.testing.assert_array_equal(found, [(0, 1, 3), (0, 2, 3), (-1, -1, -1)])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("meta", "SUNRGBDMeta cannot be read"),
        ("no meta", "missing; put it beside the folder SUNRGBD"),
        ("depth", "not a label image"),
        ("color", "not a JPEG image"),
    ],
)
def test_damage_is_one_sentence(sun, damage, message):
    root, *_, meta = sun
    if damage == "meta":
        meta.write_bytes(meta.read_bytes()[:300])
    elif damage == "no meta":
        meta.unlink()
    else:
        (path,) = root.glob(
            f"SUNRGBD/kv1/b3dodata/img_0/{'depth' if damage == 'depth' else 'image'}/*"
        )
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(Pri3DError, match=message) as caught:
        open_split("sunrgbd", root, "train", "scenes").scene(0)
    assert "\n" not in str(caught.value)


def test_there_is_no_third_split(sun):
    with pytest.raises(Pri3DError, match="has no split test"):
        open_split("sunrgbd", sun[0], "test", "scenes")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    out = tmp_path_factory.mktemp("sun")
    patched = pytest.MonkeyPatch()
    patched.setattr(demo_sunrgbd, "FRAMES", 6)
    patched.setattr(demo_sunrgbd, "TEST_FRAMES", 2)
    small = {
        "kv2": demo_sunrgbd.Sensor("kv2/kinect2data", 106, 146, 105.9),
        "realsense": demo_sunrgbd.Sensor("realsense/lg", 96, 128, 114.0),
    }
    patched.setattr(demo_sunrgbd, "SENSORS", small)
    patched.setattr(demo_sunrgbd, "MIN_PIXELS", 20)
    demo_sunrgbd.write(out, Demo())
    patched.undo()
    return out


def test_boxes_of_the_demo_contain_the_points_of_their_objects(rendered):
    """Checks the sign of headings by counting points: with the other sign there are fewer."""
    right = wrong = turned = 0
    for split in ("train", "val"):
        data = open_split("sunrgbd", rendered, split, "scenes")
        assert not data.problems
        for i in range(len(data.frames)):
            scene = data.scene(i)
            assert not scene.notes
            # The floor is level, whatever the camera's tilt.
            low = np.percentile(scene.points[:, 2], 2)
            assert (np.abs(scene.points[:, 2] - low) < 0.03).mean() > 0.02
            for center, size, heading in zip(*scene.boxes):
                within = inside(scene.points, center, size + 0.02, heading).sum()
                other = inside(scene.points, center, size + 0.02, -heading).sum()
                assert within > 0
                right, wrong = right + within, wrong + other
                turned += abs(np.sin(2 * heading)) > 0.2
    assert turned > 3
    assert right > 1.1 * wrong


@pytest.fixture
def scans(tmp_path):
    rng = np.random.default_rng(1)
    points = rng.uniform(-1, 1, (60, 3)).round(4)
    (tmp_path / "scannetv2_train.txt").write_text("scene0000_00\nscene0001_00\n")
    table = "id\traw_category\tcategory\tcount\tnyu40id\r\n1\twall\twall\t1\t1\r\n"
    table += "2\tchair\tchair\t1\t5\r\n7\tcabinet\tcabinet\t1\t3\r\n"
    (tmp_path / "scannetv2-labels.combined.tsv").write_bytes(table.encode())
    segment = np.repeat(np.arange(6), 10)
    groups = [("wall", [0]), ("chair", [1, 2]), ("cabinet", [3]), ("dishrack", [4])]
    for scene in ("scene0000_00", "scene0001_00"):
        write_scene(tmp_path, scene, points, np.full((60, 3), 100))
        folder = tmp_path / scene
        segments = {"segIndices": segment.tolist()}
        (folder / f"{scene}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(segments))
        listed = [
            {"objectId": i, "segments": s, "label": name} for i, (name, s) in enumerate(groups)
        ]
        (folder / f"{scene}.aggregation.json").write_text(json.dumps({"segGroups": listed}))
    angle = 0.4
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, sin, 0, 1], [-sin, cos, 0, 2], [0, 0, 1, -3], [0, 0, 0, 1]])
    text = " ".join(f"{v:.9f}" for v in matrix.ravel())
    path = tmp_path / "scene0000_00/scene0000_00.txt"
    path.write_text(f"sceneType = Office\naxisAlignment = {text} \n")
    return tmp_path, points, matrix


def test_boxes_go_around_the_aligned_vertices_of_objects(scans):
    root, points, matrix = scans
    data = open_split("scannet3d", root, "train", "scenes")
    for i, pose in ((0, matrix), (1, np.eye(4))):
        scene = data.scene(i)
        aligned = points @ pose[:3, :3].T + pose[:3, 3]
        np.testing.assert_allclose(scene.points, aligned, atol=1e-5)
        assert [data.classes.names[kind] for kind in scene.kind] == ["chair", "cabinet"]
        for number, rows in enumerate((slice(10, 30), slice(30, 40))):
            low, high = aligned[rows].min(axis=0), aligned[rows].max(axis=0)
            np.testing.assert_allclose(scene.boxes.center[number], (low + high) / 2, atol=1e-5)
            np.testing.assert_allclose(scene.boxes.size[number], high - low, atol=1e-5)
            assert (scene.member[rows] == number).all()
        assert (scene.member[:10] == -1).all()
        assert (scene.member[40:] == -1).all()
        unknown = [note for note in scene.notes if "'dishrack' is not in the table" in note]
        assert len(unknown) == 1
        assert len(scene.notes) == (1 if i == 0 else 2)
    assert "scene0001_00: has no axisAlignment" in scene.notes[0]


def test_a_damaged_alignment_is_one_sentence(scans):
    root, *_ = scans
    (root / "scene0000_00/scene0000_00.txt").write_text("axisAlignment = 1 2 3\n")
    data = open_split("scannet3d", root, "train", "scenes")
    with pytest.raises(Pri3DError, match="its axisAlignment is not 16 numbers"):
        data.scene(0)
    data.scene(1)


def test_mean_sizes_are_the_published_ones():
    assert SCANNET_KINDS.sizes.shape == (18, 3)
    assert SCANNET_KINDS.names[0] == "cabinet"
    # Weighted by position, so that no two can be swapped.
    for sizes, expected in (
        (SCANNET_KINDS.sizes, 1254.035824),
        (np.array(list(sunrgbd.SIZES.values())), 403.427271),
    ):
        assert sizes.ravel() @ np.arange(1, sizes.size + 1) == pytest.approx(expected, abs=1e-5)
