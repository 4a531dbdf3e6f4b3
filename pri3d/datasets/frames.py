"""What all labeled data sets share: frames, objects, and the decoding of their images."""

import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from pri3d.errors import Pri3DError

# No data set has images of more pixels; a file that claims more is damaged and is not decoded.
MAX_PIXELS = 1 << 26


class Frame(NamedTuple):
    """One sample of a data set: an image, a cloud or a scan.

    name: unique in the data set, and valid as a relative path; scene: the place it was taken in.
    """

    name: str
    scene: str


class Objects(NamedTuple):
    """The annotated objects of an image.

    number: i32 [H, W], the object of each pixel, 0 for none; class_of: number -> class 1..K.
    """

    number: np.ndarray
    class_of: dict[int, int]


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        Pri3DError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise Pri3DError(f"{path}: cannot be read ({error.strerror})") from None


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The content of one member of a zip.

    Raises:
        Pri3DError: the member is damaged.
    """
    try:
        return archive.read(name)
    except Exception as error:  # damage raises unrelated types (zlib, struct, RuntimeError ...)
        raise Pri3DError(
            f"{archive.filename}: {name} cannot be read ({error}); download it again"
        ) from None


def decode_labels(data: bytes, source: str) -> np.ndarray:
    """Decode a PNG with one channel of 8 or 16 bits.

    Args:
        data: the file.
        source: where it comes from, for messages.

    Returns:
        Labels u16 [H, W].

    Raises:
        Pri3DError: the PNG is damaged or of another kind.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it claims {image.width}x{image.height} pixels")
            if image.mode not in ("L", "I;16", "I"):
                raise ValueError(f"its mode is {image.mode} instead of one channel")
            image.verify()  # checksums of the chunks, which decoding alone ignores
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            return np.array(image).astype(np.uint16)
    except Exception as error:  # damaged PNGs make Pillow raise half a dozen unrelated types
        raise Pri3DError(f"{source}: not a label image ({error}); download it again") from None


def decode_jpeg(data: bytes, source: str, min_height: int | None = None) -> np.ndarray:
    """Decode a JPEG, at a reduced scale if the caller does not need all rows.

    Args:
        data: the file.
        source: where it comes from, for messages.
        min_height: number of rows that are needed; default all.

    Returns:
        RGB u8 [H, W, 3].

    Raises:
        Pri3DError: the JPEG is damaged.
    """
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        if height * width > MAX_PIXELS:
            raise ValueError(f"it claims {width}x{height} pixels")
        rows = 0 if min_height is None or min_height >= height else max(1, min_height)
        return simplejpeg.decode_jpeg(data, min_height=rows, min_width=min(rows, 1))
    except ValueError as error:
        raise Pri3DError(f"{source}: not a JPEG image ({error}); download it again") from None


def at_size(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Labels u8 or object numbers i32 [H, W], resized to (height, width) by nearest neighbor.

    Pillow's choice of the nearest pixel, as in Pri3D's published code.
    """
    return np.asarray(Image.fromarray(image).resize(shape[::-1], Image.Resampling.NEAREST))
