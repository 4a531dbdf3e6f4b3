"""Stage chunks: `clouds/<scene>.h5` and a surface -> `chunks/<scene>.h5`.

The surface is voxelized once per scan. The chunk of a frame consists of the voxels in the
axis-aligned box of its view frustum (Pri3D, Hou et al. 2021, section 3.2).
"""

from pathlib import Path

import numpy as np

from pri3d import geometry, store
from pri3d.artefacts import CHUNKS, Clouds
from pri3d.config import Chunks as Settings
from pri3d.errors import Pri3DError
from pri3d.matching.voxels import rows_in_box, voxelize
from pri3d.sources.surface import Surface, fuse, read_ply

_ROWS_PER_BLOCK = 1 << 16  # of the data set; most frames are read from one or two blocks


def run(
    clouds: Path,
    out: Path,
    settings: Settings,
    surface: Path | None = None,
    keep_going: bool = False,
) -> None:
    """Write the `chunks` artefact of one scan.

    A scan without frames gives an empty artefact with the status of the `clouds` artefact.

    Args:
        clouds: a `clouds` artefact.
        out: the `chunks` artefact.
        settings: section `chunks` of the settings.
        surface: a PLY file; by default the depth frames are fused.
        keep_going: if the surface cannot be read or made, write chunks without voxels whose status
            has the reason, and raise nothing.

    Raises:
        Pri3DError: the `clouds` artefact is missing or damaged, or the surface cannot be read,
            made or voxelized.
    """
    with Clouds(clouds) as scan:
        inputs = {"clouds": scan.digest}
        if surface is not None:
            inputs["surface"] = store.file_digest(surface)
        status = scan.status
        empty = Surface(np.zeros((0, 3)), np.zeros((0, 3), np.uint8))
        mesh = empty
        try:
            if len(scan):
                mesh = read_ply(surface) if surface else fuse(scan, settings.voxel_m)
            voxel, color = voxelize(mesh.points, mesh.color, settings.voxel_m)
        except Pri3DError as error:
            source = str(surface or clouds)
            problem = str(error).removeprefix(f"{source}: ")
            if not keep_going:
                raise Pri3DError(f"{source}: {problem}") from None
            # Without its folder, so that the digest does not depend on it.
            status = f"failed: {Path(source).name}: {problem}"
            mesh = empty
            voxel, color = voxelize(mesh.points, mesh.color, settings.voxel_m)
        box = np.array(
            [frustum_box(scan.view(row), settings.voxel_m) for row in range(len(scan))], np.int32
        ).reshape(-1, 2, 3)
        with store.publish(out, CHUNKS, settings.model_dump(), inputs) as writer:
            writer.attribute("scene", scan.scene)
            writer.attribute("status", status)
            writer.attribute("voxel_m", settings.voxel_m)
            writer.attribute("surface_source", "fused" if surface is None else "ply")
            writer.attribute("surface_dropped", mesh.dropped)
            writer.dataset("surface/voxel", voxel, compress=True)
            writer.dataset("surface/color", color, compress=True)
            writer.dataset("frames/index", scan.index)
            writer.dataset("frames/box", box)
            _write_rows(writer, voxel, box)


def frustum_box(view: geometry.View, voxel_m: float) -> np.ndarray:
    """Min and max voxel [2, 3] of the axis-aligned box of a frame's view frustum, both inside.

    The frustum extends from the frame's smallest to its largest depth. A frame without depth has
    an empty box: (0, 0, 0) to (-1, -1, -1).
    """
    depth = view.depth[view.depth > 0]
    if not len(depth):
        return np.array([[0, 0, 0], [-1, -1, -1]], np.int64)
    corners = geometry.frustum_corners(view.K, view.depth.shape, depth.min(), depth.max())
    corners = geometry.transform(view.world_from_camera, corners)
    cells = np.floor(np.stack([corners.min(axis=0), corners.max(axis=0)]) / voxel_m)
    return np.clip(cells, -(1 << 31), (1 << 31) - 1).astype(np.int64)  # stored as int32


def _write_rows(writer: store.ArtefactWriter, voxel: np.ndarray, box: np.ndarray) -> None:
    """Write `frames/offset` and `frames/rows`; counts first, to hold one frame in memory."""
    axes = [np.ascontiguousarray(voxel[:, axis]) for axis in range(3)]
    counts = [len(rows_in_box(axes, frame_box)) for frame_box in box]
    offset = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.uint64)
    writer.dataset("frames/offset", offset)
    rows = writer.empty(
        "frames/rows", (int(offset[-1]),), np.uint32, compress=True, chunks=(_ROWS_PER_BLOCK,)
    )
    for frame, frame_box in enumerate(box):
        start, stop = int(offset[frame]), int(offset[frame + 1])
        rows[start:stop] = rows_in_box(axes, frame_box)
