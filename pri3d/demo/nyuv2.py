"""Rendered images of synthetic rooms as NYU Depth v2, as `pri3d.datasets.nyuv2` reads it."""

from collections import Counter
from pathlib import Path

import h5py
import numpy as np
from scipy.io import savemat
from tqdm import tqdm

from pri3d import classes, store
from pri3d.config import Demo
from pri3d.datasets.nyuv2 import LABELED, MAPPING13, MAPPING40, RAW_CLASSES, SPLITS
from pri3d.demo import render, scan
from pri3d.demo.classes import CLASSES

SHAPE = 480, 640
IMAGES, TEST_IMAGES = 36, 12
FIRST_ROOM = 5000  # no demo scan has such a number
INTRINSICS = 518.857901, 519.469611, 325.582449, 253.736166  # fx, fy, cx, cy of the color camera
BORDER = 7, 4, 7, 6  # white pixels with label 0 at the top, bottom, left and right
OTHERPROP = 40  # NYU-40 id


def write(out: Path, settings: Demo) -> None:
    """Write the four files of NYU Depth v2 with 24 training and 12 test images into a folder.

    Args:
        out: folder to make.
        settings: `seed` and `noise` are used as for the demo scans.
    """
    names, raw_of = _raw_classes()
    arrays = _render(settings, raw_of)
    with store.atomic_path(out / LABELED) as temporary, h5py.File(temporary, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip", compression_opts=4)
        _write_cell_array(file, "names", names)
        _write_cell_array(file, "scenes", [f"room_{n // 2:04d}" for n in range(IMAGES)])
    test = np.arange(3, IMAGES + 1, IMAGES // TEST_IMAGES)  # counted from 1
    train = np.setdiff1d(np.arange(1, IMAGES + 1), test)
    mapping = np.full(RAW_CLASSES, OTHERPROP, np.uint8)
    for name, raw in raw_of.items():
        mapping[raw - 1] = CLASSES[name].nyu40
    names40 = np.array(classes.NYU40, object)
    files = {
        SPLITS: {"trainNdxs": train[:, None].astype("u2"), "testNdxs": test[:, None].astype("u2")},
        MAPPING40: {"mapClass": mapping[None], "className": names40[None]},
        MAPPING13: {
            "classMapping13": {
                "labels13": classes.NYU13_OF_40[None, 1:],
                "classNames": np.array(classes.NYU13, object)[None],
            }
        },
    }
    for name, content in files.items():
        with store.atomic_path(out / name) as temporary, open(temporary, "wb") as mat_file:
            savemat(mat_file, content)


def _raw_classes() -> tuple[list[str], dict[str, int]]:
    """The names of the 894 raw classes, and the ids of the demo's classes among them.

    The other names are invented.
    """
    known = list(CLASSES)
    ids = np.linspace(1, RAW_CLASSES, len(known)).round().astype(int).tolist()
    name_of = dict(zip(ids, known))
    names = [name_of.get(raw, f"thing {raw}") for raw in range(1, RAW_CLASSES + 1)]
    return names, dict(zip(known, ids))


def _render(settings: Demo, raw_of: dict[str, int]) -> dict[str, np.ndarray]:
    """images, depths, rawDepths, labels and instances, with their axes reversed as in the file."""
    height, width = SHAPE
    fx, fy, cx, cy = INTRINSICS
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    top, bottom, left, right = BORDER
    inside = np.zeros(SHAPE, bool)
    inside[top : height - bottom, left : width - right] = True
    images_BCWH = np.empty((IMAGES, 3, width, height), np.uint8)
    depths = np.empty((IMAGES, width, height), np.float32)
    labels = np.empty((IMAGES, width, height), np.uint16)
    numbers = np.empty((IMAGES, width, height), np.uint8)
    two_frames = settings.model_copy(update={"frames": 2})
    for n in tqdm(range(IMAGES), "images", disable=None):
        plan = scan.plan(FIRST_ROOM + n // 2, two_frames)
        frame = render.render_frame(plan.room, SHAPE, K, plan.world_from_camera[n % 2])
        raw = np.array([0] + [raw_of[name] for name in plan.room.names], np.uint16)
        label = np.where(inside, raw[frame.instance], 0)
        # Numbers count the objects of each raw class, from 1.
        number = np.zeros(len(raw), np.uint8)
        count: Counter[int] = Counter()
        for instance, kind in enumerate(raw.tolist()):
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


def _write_cell_array(file: h5py.File, name: str, texts: list[str]) -> None:
    """A MATLAB cell array of texts: references to arrays of character codes."""
    group = file.require_group("#refs#")
    references = np.empty((1, len(texts)), h5py.ref_dtype)
    for i, text in enumerate(texts):
        codes = np.array([[ord(c)] for c in text], np.uint16)
        references[0, i] = group.create_dataset(f"{name}{i}", data=codes).ref
    file.create_dataset(name, data=references, dtype=h5py.ref_dtype)
