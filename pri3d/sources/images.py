"""Colour and depth images: encoded bytes to pixels and back.

RGB is u8 [H, W, 3], depth u16 [H, W]. The decoders take the size that the image must have and
raise ValueError with a plain reason when the bytes are damaged or of another size; they allocate
by what the bytes declare only after that agrees with what is expected.
"""

import io
import math
import zlib

import numpy as np
import simplejpeg
from PIL import Image

# Of every JPEG that this project makes. Chroma at half resolution (4:2:0), as cameras store it.
JPEG_QUALITY = 90


def decode_color(
    data: bytes, compression: str, shape: tuple[int, int], min_height: int | None = None
) -> np.ndarray:
    """Decode one image of `shape` (height, width) that is compressed as "raw", "png" or "jpeg".

    min_height: the caller has no use for more rows than this. A JPEG is then decoded straight at
    the smallest of libjpeg's scales that is not below it, which is faster; other compressions
    ignore it. Returns u8 [H, W, 3]. Raises ValueError saying what is wrong with the bytes.
    """
    if compression == "jpeg":
        return _decode_jpeg(data, shape, min_height)
    if compression == "png":
        return _decode_png(data, shape)
    if compression != "raw":
        raise ValueError(f"colour compression {compression!r} cannot be decoded")
    height, width = shape
    if len(data) != height * width * 3:
        raise ValueError(
            f"the raw colour image has {len(data)} bytes instead of {height * width * 3}"
        )
    return np.frombuffer(data, np.uint8).reshape(height, width, 3).copy()


def _decode_jpeg(data: bytes, shape: tuple[int, int], min_height: int | None) -> np.ndarray:
    try:
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
        _check_size((height, width), shape)
        if min_height is None or min_height >= height:
            return simplejpeg.decode_jpeg(data)
        # min_factor allows every scale; min_height picks the smallest one that is large enough.
        return simplejpeg.decode_jpeg(data, min_height=max(1, min_height), min_width=1)
    except ValueError as error:
        raise ValueError(f"the JPEG image does not decode ({error})") from None


def _decode_png(data: bytes, shape: tuple[int, int]) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            _check_size((image.height, image.width), shape)
            image.verify()  # checksums of the chunks, which decoding alone passes over
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            return np.array(image.convert("RGB"))
    except Exception as error:  # damaged PNGs make Pillow raise half a dozen unrelated types
        raise ValueError(f"the PNG image does not decode ({error})") from None


def _check_size(found: tuple[int, int], expected: tuple[int, int]) -> None:
    if found != tuple(expected):
        raise ValueError(
            f"it is {found[1]}x{found[0]} instead of {expected[1]}x{expected[0]} pixels"
        )


def decode_depth(data: bytes, compression: str, shape: tuple[int, int]) -> np.ndarray:
    """Decode one depth image of `shape` that is compressed as "raw" or "zlib": u16 [H, W].

    Raises ValueError saying what is wrong with the bytes.
    """
    size = shape[0] * shape[1] * 2
    if compression == "zlib":
        inflater = zlib.decompressobj()
        try:
            data = inflater.decompress(data, size + 1)  # bounded, whatever the stream holds
        except zlib.error as error:
            raise ValueError(f"the depth image does not inflate ({error})") from None
        if len(data) > size:
            raise ValueError(f"the depth image inflates to more than {size} bytes")
        if len(data) == size and not inflater.eof:
            raise ValueError("the depth image has lost its checksum")
    elif compression != "raw":
        raise ValueError(f"depth compression {compression!r} cannot be decoded")
    if len(data) != size:
        raise ValueError(f"the depth image has {len(data)} bytes instead of {size}")
    return np.frombuffer(data, "<u2").astype(np.uint16).reshape(shape)


def encode_depth(depth: np.ndarray) -> bytes:
    """u16 [H, W] to the payload of a `.sens` depth frame compressed as "zlib"."""
    return zlib.compress(np.ascontiguousarray(depth, "<u2").tobytes())


def encode_color(rgb: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """u8 [H, W, 3] to a JPEG file; the same pixels always give the same bytes."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality, "RGB", "420")


def encode_png(image: np.ndarray) -> bytes:
    """u8 [H, W, 3] or u16 [H, W] to a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def area_resize(rgb: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Shrink u8 [H, W, C] to `shape` (height, width); a pixel is the mean of the area it covers.

    Exact also for ratios that are no integers, and independent of threads and machine.
    """
    rows = _average_rows(rgb, shape[0])
    both = _average_rows(rows.transpose(1, 0, 2), shape[1]).transpose(1, 0, 2)
    return np.ascontiguousarray((both + 0.5).astype(np.uint8))


def _average_rows(image: np.ndarray, count: int) -> np.ndarray:
    """Area average of [H, W, C] along the first axis: float32 [count, W, C]."""
    height = image.shape[0]
    edges = np.arange(count + 1) * (height / count)
    taps = np.floor(edges[:-1]).astype(np.int64)[:, None] + np.arange(math.ceil(height / count) + 1)
    covered = np.minimum(taps + 1, edges[1:, None]) - np.maximum(taps, edges[:-1, None])
    weight = np.clip(covered, 0, None)
    weight = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    taps = np.minimum(taps, height - 1)
    flat = np.ascontiguousarray(image).reshape(height, -1)
    out = np.zeros((count, flat.shape[1]), np.float32)
    for tap in range(taps.shape[1]):
        out += weight[:, tap, None] * flat[taps[:, tap]]
    return out.reshape(count, *image.shape[1:])
