"""What all labelled data sets share: frames, objects, and reading of label images."""

import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from pri3d.errors import Pri3DError

# Images larger than this (pixels) are none of these data sets'; nothing is allocated for them.
LARGEST = 1 << 26


class Frame(NamedTuple):
    """One image: name, unique in its data set and fit for file names; scene it was taken in."""

    name: str
    scene: str


class Objects(NamedTuple):
    """The things in an image: number i32 [H, W], 0 where none is, and class 1..K of each number."""

    number: np.ndarray
    class_of: dict[int, int]


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Pri3DError(f"{path}: cannot be read ({error.strerror})") from None


# What archives raise when a member is damaged has no common type (zlib, struct, RuntimeError ...).
def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except Exception as error:
        raise Pri3DError(
            f"{archive.filename}: {name} cannot be read ({error}); fetch it again"
        ) from None


def decode_labels(data: bytes, where: str) -> np.ndarray:
    """A PNG of 8 or 16 bits and one channel: u16 [H, W]. Raises Pri3DError for anything else."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.width * image.height > LARGEST:
                raise ValueError(f"it claims {image.width}x{image.height} pixels")
            if image.mode not in ("L", "I;16", "I"):
                raise ValueError(f"it has the mode {image.mode} instead of one channel")
            image.verify()  # checksums of the chunks, which decoding alone passes over
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            return np.array(image).astype(np.uint16)
    except Exception as error:  # damaged PNGs make Pillow raise half a dozen unrelated types
        raise Pri3DError(f"{where}: is no label image ({error}); fetch it again") from None


def decode_jpeg(data: bytes, where: str, min_height: int | None = None) -> np.ndarray:
    """A JPEG as u8 [H, W, 3], with no more rows than are of use. Raises Pri3DError if damaged."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        if height * width > LARGEST:
            raise ValueError(f"it claims {width}x{height} pixels")
        rows = 0 if min_height is None or min_height >= height else max(1, min_height)
        return simplejpeg.decode_jpeg(data, min_height=rows, min_width=min(rows, 1))
    except ValueError as error:
        raise Pri3DError(f"{where}: is no JPEG image ({error}); fetch it again") from None


def at_size(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Labels u8 or numbers i32 [H, W] at another size (height, width): the nearest pixel's, never a
    mix. Pillow's choice of the nearest one, as in Pri3D's published code."""
    return np.asarray(Image.fromarray(image).resize(shape[::-1], Image.Resampling.NEAREST))
