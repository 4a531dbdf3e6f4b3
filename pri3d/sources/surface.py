"""Surfaces of scans: read from a PLY file, or fused from the scan's own depth frames."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pri3d import geometry
from pri3d.artefacts import Clouds
from pri3d.errors import Pri3DError
from pri3d.sources import images

if TYPE_CHECKING:
    import plyfile

_GRAY = 128
_HEADER_LIMIT = 1 << 20  # bytes; real headers have a few hundred
_TYPE_BYTES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "float64"), 8),
}


class Surface(NamedTuple):
    """Points of a surface.

    Attributes:
        points: float64 [N, 3], meters, world.
        color: u8 [N, 3].
        dropped: number of vertices that were left out because they were not finite.
    """

    points: np.ndarray
    color: np.ndarray
    dropped: int = 0


def read_ply(path: str | Path, keep_all: bool = False) -> Surface:
    """Read the vertices of a PLY file (ASCII or binary, float or double); faces are ignored.

    Vertices without red, green and blue are gray (128); float colors have the range 0..1.

    Args:
        path: the file.
        keep_all: keep vertices that are not finite, so that rows equal those of the file.

    Raises:
        Pri3DError: the file is damaged, cut, claims more than it contains, or has no finite vertex.
    """

    try:
        vertex = _vertices(path)
        points = np.stack([np.asarray(vertex[axis], np.float64) for axis in "xyz"], axis=1)
        names = {prop.name for prop in vertex.properties}
        if {"red", "green", "blue"} <= names:
            color = np.stack([_as_u8(vertex[name]) for name in ("red", "green", "blue")], axis=1)
        else:
            color = np.full(points.shape, _GRAY, np.uint8)
    except _damage() as error:
        raise _damaged(path, " ".join(str(error).split())) from None
    finite = np.isfinite(points).all(axis=1)
    if not finite.any():
        raise Pri3DError(
            f"{path}: none of its {len(points)} vertices is finite; remove it to have the surface "
            "fused from the depth frames"
        )
    kept = slice(None) if keep_all else finite
    return Surface(points[kept], color[kept], int(len(points) - finite.sum()))


def read_vertex_labels(path: str | Path) -> np.ndarray:
    """Read the property `label` of every vertex of a PLY file.

    Raises:
        Pri3DError: the file is damaged, cut, claims more than it contains, or has no labels.
    """

    try:
        return np.asarray(_vertices(path)["label"])
    except _damage() as error:
        raise _damaged(path, " ".join(str(error).split())) from None


def _vertices(path: str | Path) -> "plyfile.PlyElement":
    import plyfile

    triangles = _check_header(Path(path))
    try:  # lists of a known length are memory-mapped, not read one by one
        data = plyfile.PlyData.read(str(path), known_list_len=triangles)
    except plyfile.PlyElementParseError:
        data = plyfile.PlyData.read(str(path))
    return data["vertex"]


def _damage() -> tuple[type[Exception], ...]:
    """Exceptions that plyfile raises for a damaged file."""
    import plyfile

    return plyfile.PlyParseError, ArithmeticError, ValueError, KeyError, TypeError, MemoryError


def _damaged(path: str | Path, what: str) -> Pri3DError:
    return Pri3DError(f"{path}: not a whole PLY file ({what}); fetch or make it again")


def _as_u8(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind == "f":
        values = np.nan_to_num(np.rint(values * 255.0))
    return np.clip(values, 0, 255).astype(np.uint8)


def _check_header(path: Path) -> dict[str, dict[str, int]]:
    """Refuse a file whose header claims more than its size allows, before memory is allocated.

    Returns the list properties of every element as if all lists had three entries (triangles).
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEADER_LIMIT)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise Pri3DError(f"{path}: cannot be read ({error.strerror})") from None
    end = re.search(rb"[\r\n]end_header[\r\n]", head)
    if not head.startswith(b"ply") or end is None:
        raise _damaged(path, "no PLY header")
    text = False
    min_bytes: dict[str, list[int]] = {}  # element -> [count, min bytes per row]
    lists: dict[str, dict[str, int]] = {}
    for line in re.split(r"[\r\n]+", head[: end.start()].decode("latin-1")):
        match line.split():
            case ["format", encoding, _]:
                text = encoding == "ascii"
            case ["element", name, count] if count.isdecimal() and name not in min_bytes:
                min_bytes[name] = [int(count), 0]
                lists[name] = {}
            case ["property", "list", length, kind, name] if (
                min_bytes and length in _TYPE_BYTES and kind in _TYPE_BYTES
            ):
                element = list(min_bytes)[-1]
                min_bytes[element][1] += 2 if text else _TYPE_BYTES[length]
                lists[element][name] = 3
            case ["property", kind, _] if min_bytes and kind in _TYPE_BYTES:
                min_bytes[list(min_bytes)[-1]][1] += 2 if text else _TYPE_BYTES[kind]
            case ["element" | "property", *_]:
                raise _damaged(path, f"bad header line {line!r}")
    left = size - end.end() + 1  # the last line of a text file may lack its newline
    for name, (count, row_bytes) in min_bytes.items():
        if count and (not row_bytes or count * row_bytes > left):
            raise _damaged(
                path, f"its header claims {count} of element {name!r}, the file has {size} bytes"
            )
        left -= count * row_bytes
    if "vertex" not in min_bytes:
        raise _damaged(path, "no vertices")
    return {name: known for name, known in lists.items() if known}


def fuse(clouds: Clouds, voxel_m: float) -> Surface:
    """Fuse the surface of a scan from its kept depth frames: TSDF fusion and marching cubes.

    Poses are used as given. The result does not depend on the number of threads, except for the
    order of points.

    Args:
        clouds: the scan.
        voxel_m: edge of a TSDF voxel, meters; the truncation distance is three voxels.

    Raises:
        Pri3DError: the fused surface is empty, or a stored color image is damaged.
    """
    import open3d as o3d
    from threadpoolctl import threadpool_limits

    height, width = clouds.shape
    K = clouds.K
    intrinsic = o3d.camera.PinholeCameraIntrinsic(width, height, K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    volume = o3d.pipelines.integration.ScalableTSDFVolume(
        voxel_length=voxel_m,
        sdf_trunc=3 * voxel_m,
        color_type=o3d.pipelines.integration.TSDFVolumeColorType.RGB8,
    )
    # open3d starts new threads for every block of voxels: two threads take longer than one, and on
    # a busy machine ten times as long.
    with threadpool_limits(1):
        for row in range(len(clouds)):
            depth = clouds.depth(row)
            image = o3d.geometry.RGBDImage.create_from_color_and_depth(
                o3d.geometry.Image(color_of_depth(clouds, row, depth)),
                o3d.geometry.Image(depth.astype(np.float32)),
                depth_scale=1.0,
                depth_trunc=float("inf"),
                convert_rgb_to_intensity=False,
            )
            volume.integrate(image, intrinsic, np.linalg.inv(clouds.world_from_camera[row]))
    mesh = volume.extract_triangle_mesh()
    points = np.array(mesh.vertices, np.float64).reshape(-1, 3)
    if not len(points):
        raise Pri3DError(
            f"{clouds.path}: fusing its {len(clouds)} depth frames at {voxel_m} m gave no surface; "
            "give a surface file, or a voxel that suits the depth"
        )
    return Surface(points, _as_u8(np.array(mesh.vertex_colors).reshape(-1, 3)))


def color_of_depth(clouds: Clouds, row: int, depth: np.ndarray) -> np.ndarray:
    """Color of every depth pixel, u8 [H, W, 3], looked up in the frame's color image.

    The depth point is transformed to the color camera and has the color of the nearest pixel there
    (at the border, of the outermost one); gray (128) without depth or without a color image.

    Raises:
        Pri3DError: the stored color image is damaged.
    """
    color = np.full((*depth.shape, 3), _GRAY, np.uint8)
    jpeg = clouds.color_jpeg(row)
    if not jpeg:
        return color
    try:
        image = images.decode_color(jpeg, "jpeg", clouds.color_shape)
    except ValueError as error:
        raise Pri3DError(
            f"{clouds.path}: frame {clouds.index[row]}: {error}; make the file again"
        ) from None
    points, valid = geometry.unproject(depth, clouds.K)
    points = geometry.transform(clouds.color_from_depth, points[valid])
    uv, _ = geometry.project(points, clouds.color_K, image.shape[:2])
    column, line = np.floor(uv + 0.5).astype(np.int64).T
    line = np.clip(line, 0, image.shape[0] - 1)
    column = np.clip(column, 0, image.shape[1] - 1)
    color[valid] = image[line, column]
    return color
