"""Look-alikes of the labelled data sets, from procedural rooms, in the published formats."""

import json
import shutil
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
from scipy.io import savemat
from tqdm import tqdm

from pri3d import classes, store
from pri3d.config import Demo
from pri3d.datasets.nyuv2 import LABELED, MAPPING13, MAPPING40, RAW_CLASSES, SPLITS
from pri3d.datasets.s3dis import AREAS, HELD_OUT
from pri3d.datasets.scannet3d import LABELS, OBJECTS, SEGMENTS, SURFACE
from pri3d.datasets.scannet_labels import NAME as TABLE
from pri3d.datasets.scannet_scans import ScanNetScans
from pri3d.demo import render, scan
from pri3d.demo.classes import CLASSES
from pri3d.errors import Pri3DError
from pri3d.sources import images
from pri3d.sources.sens import SensFile
from pri3d.sources.surface import read_ply

# By nyu40 names; others are clutter.
S3DIS_NAMES = {name: name for name in ("ceiling", "floor", "wall", "window", "door", "chair")}
S3DIS_NAMES |= {"sofa": "sofa", "table": "table", "desk": "table", "bookshelf": "bookcase"}
S3DIS_EVERY = 4  # vertices; text is large
NYU_SHAPE = 480, 640
NYU_IMAGES, NYU_TEST = 36, 12
NYU_FIRST_ROOM = 5000  # rooms that no demo scan is of
# fx, fy, cx, cy of the colour camera.
NYU_INTRINSICS = 518.857901, 519.469611, 325.582449, 253.736166
NYU_BORDER = 7, 4, 7, 6  # pixels at the top, bottom, left and right that are white, label 0


def write_frames(
    scans: Path, out: Path, held_out: list[str], every: int, scenes: list[str] | None = None
) -> None:
    """`scannet_frames_25k` in the folder `out` from the demo scans in `scans`.

    held_out: scenes of the validation split; the others are for training. every: n-th frame of
    each. Raises Pri3DError where one of them is not there.
    """
    scenes = _chosen(scans, held_out, scenes)
    data = ScanNetScans(scans, "train", every, scenes)
    for scene in tqdm(scenes, "scenes", disable=None):
        _write_scene(data, scans, out, scene)
    _write_lists(out, held_out, scenes)


def write_clouds(scans: Path, out: Path, held_out: list[str], scenes: list[str] | None) -> None:
    """The surfaces of the demo scans in `scans` and the lists of ScanNet's splits, in `out`.

    held_out: scenes of the validation split. Raises Pri3DError where one of them is not there.
    """
    scenes = _chosen(scans, held_out, scenes)
    for scene in tqdm(scenes, "scenes", disable=None):
        for part in (SURFACE, LABELS, SEGMENTS, OBJECTS, ".txt"):
            _copy(scans / scene / f"{scene}{part}", out / scene / f"{scene}{part}")
    _copy(scans / TABLE, out / TABLE)
    _write_lists(out, held_out, scenes)


def write_s3dis(scans: Path, out: Path, held_out: list[str], scenes: list[str] | None) -> None:
    """The surfaces of the demo scans as rooms of S3DIS, in the folder `out`; held-out scenes are
    those of Area_5. Coordinates in millimetres, whole colours, one file an object.
    """
    scenes = _chosen(scans, held_out, scenes)
    areas = [area for area in AREAS if area != HELD_OUT]
    trained = [scene for scene in scenes if scene not in held_out]
    for scene in tqdm(scenes, "rooms", disable=None):
        area = HELD_OUT if scene in held_out else areas[trained.index(scene) % len(areas)]
        _write_room(
            scans / scene, scene, out / f"Area_{area}" / f"office_{scenes.index(scene) + 1}"
        )


def _write_room(source: Path, scene: str, room: Path) -> None:
    surface = read_ply(source / f"{scene}{SURFACE}")
    segment = np.array(json.loads((source / f"{scene}{SEGMENTS}").read_text())["segIndices"])
    groups = json.loads((source / f"{scene}{OBJECTS}").read_text())["segGroups"]
    kept = np.arange(len(segment)) % S3DIS_EVERY == 0
    count: Counter[str] = Counter()
    for group in groups:
        rows = np.flatnonzero(np.isin(segment, group["segments"]) & kept)
        if not len(rows):
            continue
        name = S3DIS_NAMES.get(CLASSES[group["label"]].nyu40_name, "clutter")
        count[name] += 1
        lines = "".join(
            f"{x:.3f} {y:.3f} {z:.3f} {r} {g} {b}\n"
            for (x, y, z), (r, g, b) in zip(surface.points[rows], surface.color[rows])
        )
        _text(room / "Annotations" / f"{name}_{count[name]}.txt", lines)


def _chosen(scans: Path, held_out: list[str], scenes: list[str] | None) -> list[str]:
    """The scenes asked for, all by default. Raises Pri3DError where one is not there."""
    there = sorted(path.stem for path in scans.glob("*/*.sens"))
    scenes = there if scenes is None else scenes
    if unknown := sorted({*held_out, *scenes} - set(there)):
        raise Pri3DError(f"{scans}: has no scan {', '.join(unknown)}; make it first (pri3d demo)")
    return scenes


def _write_lists(out: Path, held_out: list[str], scenes: list[str]) -> None:
    for split, chosen in (
        ("train", [scene for scene in scenes if scene not in held_out]),
        ("val", held_out),
    ):
        _text(out / f"scannetv2_{split}.txt", "".join(f"{scene}\n" for scene in chosen))


def _copy(source: Path, out: Path) -> None:
    with store.atomic_path(out) as temporary:
        shutil.copyfile(source, temporary)


def _write_scene(data: ScanNetScans, scans: Path, out: Path, scene: str) -> None:
    chosen = [i for i, frame in enumerate(data.frames) if frame.scene == scene]
    if not chosen:
        raise Pri3DError(f"{scans}: {scene} has no labelled frame; make it again (pri3d demo)")
    folder = out / scene
    with SensFile(scans / scene / f"{scene}.sens") as sens:
        header = sens.header
        for name, K in (("color", header.color_intrinsic), ("depth", header.depth_intrinsic)):
            _text(folder / f"intrinsics_{name}.txt", _matrix(K))
        for i in chosen:
            number = int(data.frames[i].name.rpartition("/")[2])
            nyu40 = data.nyu40(i)
            files = {
                f"color/{number:06d}.jpg": images.encode_color(sens.color(number)),
                f"depth/{number:06d}.png": images.encode_png(sens.depth(number)),
                f"label/{number:06d}.png": images.encode_png(nyu40),
                f"instance/{number:06d}.png": images.encode_png(
                    _instances(nyu40, data.instances(i))
                ),
                f"pose/{number:06d}.txt": _matrix(sens.world_from_camera(number)).encode(),
            }
            for name, content in files.items():
                with store.atomic_path(folder / name) as temporary:
                    temporary.write_bytes(content)


def _instances(nyu40: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """u16: nyu40 id * 1000 + number among the objects of that class in the image; 1 where nothing
    is annotated, as the published conversion has it."""
    of = np.zeros(objects.max() + 1, np.uint16)
    count: Counter[int] = Counter()
    for number in np.unique(objects):
        kind = int(nyu40.ravel()[np.argmax(objects.ravel() == number)])
        count[kind] += 1
        of[number] = kind * 1000 + count[kind] if kind else 1
    return of[objects]


def write_nyuv2(out: Path, settings: Demo) -> None:
    """The four files of NYU Depth v2 in the folder `out`: 24 images for training, 12 for testing.

    settings: seed and noise are those of the demo scans.
    """
    names, raw_of = _names()
    arrays = _render(settings, raw_of)
    with store.atomic_path(out / LABELED) as temporary, h5py.File(temporary, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip", compression_opts=4)
        scenes = [f"room_{n // 2:04d}" for n in range(NYU_IMAGES)]
        for name, texts in (("names", names), ("scenes", scenes)):
            _cell(file, name, texts)
    test = np.arange(3, NYU_IMAGES + 1, NYU_IMAGES // NYU_TEST)  # counted from 1
    train = np.setdiff1d(np.arange(1, NYU_IMAGES + 1), test)
    mapping = np.full(RAW_CLASSES, 40, np.uint8)  # otherprop
    for name, raw in raw_of.items():
        mapping[raw - 1] = CLASSES[name].nyu40
    cells = np.array(classes.NYU40, object)
    files = {
        SPLITS: {"trainNdxs": train[:, None].astype("u2"), "testNdxs": test[:, None].astype("u2")},
        MAPPING40: {"mapClass": mapping[None], "className": cells[None]},
        MAPPING13: {
            "classMapping13": {
                "labels13": classes.NYU13_OF_40[None, 1:],
                "classNames": np.array(classes.NYU13, object)[None],
            }
        },
    }
    for name, content in files.items():
        with store.atomic_path(out / name) as temporary, open(temporary, "wb") as file:
            savemat(file, content)


def _names() -> tuple[list[str], dict[str, int]]:
    """The 894 raw names, and the number of each class of the demo; the others are made up."""
    known = list(CLASSES)
    places = np.linspace(1, RAW_CLASSES, len(known)).round().astype(int)
    raw_of = dict(zip(known, places.tolist()))
    at = {place: name for name, place in raw_of.items()}
    return [at.get(raw, f"thing {raw}") for raw in range(1, RAW_CLASSES + 1)], raw_of


def _render(settings: Demo, raw_of: dict[str, int]) -> dict[str, np.ndarray]:
    """images, depths, rawDepths, labels and instances, their axes reversed as in the file."""
    height, width = NYU_SHAPE
    fx, fy, cx, cy = NYU_INTRINSICS
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    top, bottom, left, right = NYU_BORDER
    inside = np.zeros(NYU_SHAPE, bool)
    inside[top : height - bottom, left : width - right] = True
    images_BCWH = np.empty((NYU_IMAGES, 3, width, height), np.uint8)
    depths = np.empty((NYU_IMAGES, width, height), np.float32)
    labels = np.empty((NYU_IMAGES, width, height), np.uint16)
    numbers = np.empty((NYU_IMAGES, width, height), np.uint8)
    one_frame = settings.model_copy(update={"frames": 2})
    for n in tqdm(range(NYU_IMAGES), "images", disable=None):
        plan = scan.plan(NYU_FIRST_ROOM + n // 2, one_frame)
        frame = render.render_frame(plan.room, NYU_SHAPE, K, plan.world_from_camera[n % 2])
        kinds = np.array([0] + [raw_of[name] for name in plan.room.names], np.uint16)
        label = np.where(inside, kinds[frame.instance], 0)
        # Numbers count the objects of each raw class, from 1.
        number, count = np.zeros(len(kinds), np.uint8), Counter()
        for instance, kind in enumerate(kinds.tolist()):
            if kind:
                count[kind] += 1
                number[instance] = count[kind]
        color = np.where(inside[..., None], frame.color, 255)
        images_BCWH[n] = color.transpose(2, 1, 0)
        depths[n] = np.where(inside, frame.depth, 0).T
        labels[n], numbers[n] = label.T, np.where(inside, number[frame.instance], 0).T
    return {
        "images": images_BCWH,
        "depths": depths,
        "rawDepths": depths,
        "labels": labels,
        "instances": numbers,
    }


def _cell(file: h5py.File, name: str, texts: list[str]) -> None:
    """A MATLAB cell array of texts: references to arrays of character codes."""
    group = file.require_group("#refs#")
    references = np.empty((1, len(texts)), h5py.ref_dtype)
    for i, text in enumerate(texts):
        codes = np.array([[ord(c)] for c in text], np.uint16)
        references[0, i] = group.create_dataset(f"{name}{i}", data=codes).ref
    file.create_dataset(name, data=references, dtype=h5py.ref_dtype)


def _matrix(values: np.ndarray) -> str:
    return "".join(" ".join(f"{value:.6f}" for value in row) + "\n" for row in values)


def _text(path: Path, text: str) -> None:
    with store.atomic_path(path) as temporary:
        temporary.write_text(text)
