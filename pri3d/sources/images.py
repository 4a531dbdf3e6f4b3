"""Color and depth images: encoded bytes to pixels and back.

RGB is u8 [H, W, 3], depth u16 [H, W]. The decoders are given the size that the image must have, and
compare it with the size that the bytes declare before they allocate memory.
"""

import io
import math
import zlib

import numpy as np
import simplejpeg
from PIL import Image

# Quality of all JPEG files written here; chroma at half resolution (4:2:0), as from cameras.
JPEG_QUALITY = 90


def decode_color(
    data: bytes, compression: str, shape: tuple[int, int], min_height: int | None = None
) -> np.ndarray:
    """Decode a color image.

    Args:
        data: the encoded image.
        compression: "raw", "png" or "jpeg".
        shape: height and width that the image must have.
        min_height: rows that the caller needs. A JPEG is then decoded at the smallest of libjpeg's
            scales with at least this height, which is faster; other compressions ignore it.

    Returns:
        u8 [H, W, 3].

    Raises:
        ValueError: the bytes are damaged or the image has another size.
    """
    if compression == "jpeg":
        return _decode_jpeg(data, shape, min_height)
    if compression == "png":
        return _decode_png(data, shape)
    if compression != "raw":
        raise ValueError(f"colour compression {compression!r} cannot be decoded")  # stored text
    height, width = shape
    if len(data) != height * width * 3:
        raise ValueError(
            f"the raw colour image has {len(data)} bytes "  # stored text
            f"instead of {height * width * 3}"
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
            image.verify()  # the checksums of PNG chunks, which decoding does not check
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            return np.array(image.convert("RGB"))
    except Exception as error:  # Pillow raises many unrelated types for damaged PNG files
        raise ValueError(f"the PNG image does not decode ({error})") from None


def _check_size(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    if shape != tuple(expected):
        raise ValueError(
            f"it is {shape[1]}x{shape[0]} instead of {expected[1]}x{expected[0]} pixels"
        )


def decode_depth(data: bytes, compression: str, shape: tuple[int, int]) -> np.ndarray:
    """Decode a depth image.

    Args:
        data: the encoded image.
        compression: "raw" or "zlib".
        shape: height and width that the image must have.

    Returns:
        u16 [H, W].

    Raises:
        ValueError: the bytes are damaged or the image has another size.
    """
    size = shape[0] * shape[1] * 2
    if compression == "zlib":
        inflater = zlib.decompressobj()
        try:
            data = inflater.decompress(data, size + 1)  # bounded, whatever the stream contains
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
    """Encode u16 [H, W] as the payload of a `.sens` depth frame with "zlib" compression."""
    return zlib.compress(np.ascontiguousarray(depth, "<u2").tobytes())


def encode_color(rgb: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """Encode u8 [H, W, 3] as a JPEG file; the same pixels always give the same bytes."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality, "RGB", "420")


def encode_png(image: np.ndarray) -> bytes:
    """Encode u8 [H, W, 3] or u16 [H, W] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def area_resize(rgb: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Shrink u8 [H, W, C] to `shape` (height, width); a pixel is the mean of the area it covers.

    Exact for any ratio, and independent of threads and machine.
    """
    rows = _average_rows(rgb, shape[0])
    both = _average_rows(rows.transpose(1, 0, 2), shape[1]).transpose(1, 0, 2)
    return np.ascontiguousarray((both + 0.5).astype(np.uint8))


def _average_rows(image: np.ndarray, count: int) -> np.ndarray:
    """Area average of [H, W, C] along the first axis, float32 [count, W, C]."""
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
