"""Labelled data sets in the published formats, small, with every trap that the real ones have."""

from pathlib import Path

import h5py
import numpy as np
import simplejpeg
from PIL import Image
from scipy.io import savemat

COLOR_SHAPE = 96, 128


def save_png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def blocks(shape, rng, values, size=16) -> np.ndarray:
    """A picture of squares, each of one of the values."""
    height, width = shape
    grid = rng.choice(values, (-(-height // size), -(-width // size)))
    return np.kron(grid, np.ones((size, size), int))[:height, :width]


def color_of(labels: np.ndarray, rng) -> np.ndarray:
    """A picture in which each label has its colour, so that there is something to learn."""
    palette = np.random.default_rng(7).integers(30, 226, (1 << 12, 3))
    noise = rng.integers(-8, 9, (*labels.shape, 3))
    return (palette[labels % (1 << 12)] + noise).clip(0, 255).astype(np.uint8)


def write_frame(folder: Path, stem: str, nyu40: np.ndarray, instance: np.ndarray, rng) -> None:
    """One image of scannet_frames_25k; labels may be smaller than the colours."""
    folder.joinpath("color").mkdir(parents=True, exist_ok=True)
    scale = COLOR_SHAPE[0] // nyu40.shape[0]
    big = np.kron(nyu40, np.ones((scale, scale), int))
    jpeg = simplejpeg.encode_jpeg(color_of(big, rng), 95, "RGB", "444")
    (folder / "color" / f"{stem}.jpg").write_bytes(jpeg)
    save_png(folder / "label" / f"{stem}.png", nyu40.astype(np.uint8))
    save_png(folder / "instance" / f"{stem}.png", instance.astype(np.uint16))


def write_frames25k(
    root: Path, train: int = 3, val: int = 1, images: int = 4, classes=(0, 1, 2, 5, 7, 39)
) -> Path:
    """A good scannet_frames_25k, with objects of 16 x 16 pixels or more."""
    rng = np.random.default_rng(0)
    scenes = {"train": range(train), "val": range(train, train + val)}
    for split, numbers in scenes.items():
        names = [f"scene{n:04d}_00" for n in numbers]
        (root / f"scannetv2_{split}.txt").parent.mkdir(parents=True, exist_ok=True)
        (root / f"scannetv2_{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            for i in range(images):
                nyu40 = blocks(COLOR_SHAPE, rng, classes)
                instance = np.where(nyu40 > 0, nyu40 * 1000 + 1, 1)
                write_frame(root / name, f"{100 * i:06d}", nyu40, instance, rng)
    return root


def write_nyuv2(
    root: Path,
    labels: np.ndarray,
    instances: np.ndarray,
    images: np.ndarray,
    train: list[int],
    test: list[int],
    mapping40: np.ndarray,
    scenes: list[str] | None = None,
) -> Path:
    """The four files. labels, instances [N, H, W], images [N, H, W, 3]: as one looks at them;
    the file has their axes reversed, as MATLAB's arrays are in HDF5."""
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = images.transpose(0, 3, 2, 1)
        file["labels"] = labels.transpose(0, 2, 1).astype(np.uint16)
        file["instances"] = instances.transpose(0, 2, 1).astype(np.uint8)
        for name, texts in (("names", ["thing"] * 894), ("scenes", scenes or [])):
            references = np.empty((1, len(texts)), h5py.ref_dtype)
            for i, text in enumerate(texts):
                codes = np.array([[ord(c)] for c in text], np.uint16)
                references[0, i] = file.create_dataset(f"#refs#/{name}{i}", data=codes).ref
            if texts:
                file.create_dataset(name, data=references, dtype=h5py.ref_dtype)
    column = lambda numbers: np.array(numbers, np.uint16)[:, None]  # noqa: E731
    savemat(root / "splits.mat", {"trainNdxs": column(train), "testNdxs": column(test)})
    savemat(root / "classMapping40.mat", {"mapClass": mapping40[None].astype(np.uint8)})
    to13 = "12 5 6 1 4 9 10 12 13 6 8 6 13 10 6 13 6 7 7 5"
    to13 += " 7 3 2 6 11 7 7 7 7 7 7 6 7 7 7 7 7 7 6 7"
    to13 = np.array([*map(int, to13.split())], np.uint8)
    savemat(root / "class13Mapping.mat", {"classMapping13": {"labels13": to13[None]}})
    return root
