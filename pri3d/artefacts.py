"""Readers of the artefacts that stages and trainers share.

Each reader opens one file, checks it (`store.open_artefact`) and gives arrays by name. A reader
holds an open HDF5 file: open one per process and never before a fork.
"""

import json
from pathlib import Path

import h5py
import numpy as np

from pri3d import geometry, store
from pri3d.errors import Pri3DError

CLOUDS = "pri3d-clouds"
OVERLAP = "pri3d-overlap"
PAIRS = "pri3d-pairs"
CHUNKS = "pri3d-chunks"


def artefact_format(path: str | Path) -> str:
    """The format that a file names: one of the above, or another word.

    Raises:
        Pri3DError: there is no such file, or it is no readable HDF5 file.
    """
    path = Path(path)
    if not path.exists():
        raise Pri3DError(f"{path}: no such file; run the stage that makes it")
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs.get("format", "something else"))
    except OSError:
        raise Pri3DError(
            f"{path}: not a readable HDF5 file (cut or overwritten?); remove it and run again"
        ) from None


class _Reader:
    format: str

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.file = store.open_artefact(path, self.format)
        try:
            self.digest = str(self.file.attrs["digest"])
            self.settings = json.loads(self.file.attrs["settings"])
            self.inputs = json.loads(self.file.attrs["inputs"])
            self._read()
        except store.DAMAGE:
            self.close()
            raise Pri3DError(
                f"{path}: parts of it are missing or damaged; remove it and run again"
            ) from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        self.file.close()


class Clouds(_Reader):
    """`clouds/<scene>.h5`: the kept frames of one scan; F may be 0.

    index u32 [F] (frame numbers in the scan), world_from_camera f64 [F, 4, 4], points u32 [F],
    shape (H, W) and K [3, 3] of the depth images, color_K [3, 3] and color_shape of the stored
    colour images, color_from_depth [4, 4], dropped: list of (frame number, reason),
    status: "ok", "partial: ..." or "failed: ...". unposed: those of the dropped frames that lack a
    pose alone, which single frames can be trained on.
    """

    format = CLOUDS

    def _read(self) -> None:
        attrs = self.file.attrs
        self.scene = str(attrs["scene"])
        self.status = str(attrs["status"])
        self.index = self.file["frames/index"][()]
        self.world_from_camera = self.file["frames/world_from_camera"][()]
        self.points = self.file["frames/points"][()]
        self.shape = tuple(int(n) for n in self.file["frames/depth"].shape[1:])
        self.depth_shift = float(attrs["depth_shift"])
        self.K = np.array(attrs["depth_intrinsic"], np.float64)[:3, :3]
        self.color_K = np.array(attrs["color_intrinsic"], np.float64)[:3, :3]
        self.color_shape = tuple(int(n) for n in attrs["color_shape"])
        self.color_from_depth = np.array(attrs["color_from_depth"], np.float64)
        self._depth, self._color = self.file["frames/depth"], self.file["frames/color"]
        self._color_offset = self.file["frames/color_offset"][()]
        self.unposed = Unposed(self)
        self.dropped = [
            (int(frame), reason.decode())
            for frame, reason in zip(
                self.file["dropped/index"][()], self.file["dropped/reason"][()]
            )
        ]

    def __len__(self) -> int:
        return len(self.index)

    def raw_depth(self, row: int) -> np.ndarray:
        """u16 [H, W], 0 = no point; metres are this divided by `depth_shift`."""
        return self._depth[row]

    def depth(self, row: int) -> np.ndarray:
        """float64 [H, W] metres, 0 = no point."""
        return self.raw_depth(row) / np.float64(self.depth_shift)

    def view(self, row: int) -> geometry.View:
        """The frame as a posed depth image with its color camera."""
        color = geometry.ColorCamera(self.color_K, self.color_shape, self.color_from_depth)
        return geometry.View(self.depth(row), self.K, self.world_from_camera[row], color)

    def cloud(self, row: int) -> np.ndarray:
        """The frame's points, float32 [N, 3], metres, world, in row order of the image."""
        points, valid = geometry.unproject(self.depth(row), self.K)
        return geometry.transform(self.world_from_camera[row], points[valid]).astype(np.float32)

    def color_jpeg(self, row: int) -> bytes:
        """The stored JPEG file of the frame's colour image; empty where the scan has no colour."""
        start, stop = self._color_offset[row : row + 2]
        return self._color[int(start) : int(stop)].tobytes()


class Unposed:
    """The frames of a scan whose poses are lost: index, points, depth and colour as `Clouds` has
    them, and its cameras."""

    raw_depth, depth, color_jpeg = Clouds.raw_depth, Clouds.depth, Clouds.color_jpeg
    __len__ = Clouds.__len__

    def __init__(self, clouds: Clouds) -> None:
        self.depth_shift, self.K, self.color_K = clouds.depth_shift, clouds.K, clouds.color_K
        self.color_shape, self.color_from_depth = clouds.color_shape, clouds.color_from_depth
        self.index, self.points = np.zeros(0, np.uint32), np.zeros(0, np.uint32)
        if group := clouds.file.get("unposed"):
            self.index, self.points = group["index"][()], group["points"][()]
            self._depth, self._color = group["depth"], group["color"]
            self._color_offset = group["color_offset"][()]


class Overlap(_Reader):
    """`overlap/<scene>.h5`: index u32 [F], points u32 [F], matches u32 [F, F]."""

    format = OVERLAP

    def _read(self) -> None:
        self.scene = str(self.file.attrs["scene"])
        self.index = self.file["frames/index"][()]
        self.points = self.file["points"][()]
        self.matches = self.file["matches"][()]

    def shares(self) -> np.ndarray:
        """Overlap of all pairs of frames, float64 [F, F] in [0, 1]; 0 without points.

        Rule "paper": matches of both directions over the points of both frames (Pri3D, section
        3.1); "official": the larger share of the two directions.
        """
        points, matches = self.points.astype(np.float64), self.matches.astype(np.float64)
        if self.settings["rule"] == "official":
            share = matches / np.maximum(points, 1)[:, None]
            return np.maximum(share, share.T)
        return (matches + matches.T) / np.maximum(points[:, None] + points, 1)


class Pairs(_Reader):
    """`pairs.h5`: the kept pairs of all scans.

    scenes: list of names. frame_scene, frame_index, frame_points u32 [T]; a, b u32 [P] (rows of
    the frame table, a < b); matches_ab, matches_ba u32 [P]; overlap f32 [P].
    """

    format = PAIRS

    def _read(self) -> None:
        self.scenes = [name.decode() for name in self.file["scenes/name"][()]]
        self.frame_scene = self.file["frames/scene"][()]
        self.frame_index = self.file["frames/index"][()]
        self.frame_points = self.file["frames/points"][()]
        self.a = self.file["pairs/a"][()]
        self.b = self.file["pairs/b"][()]
        self.matches_ab = self.file["pairs/matches_ab"][()]
        self.matches_ba = self.file["pairs/matches_ba"][()]
        self.overlap = self.file["pairs/overlap"][()]


class Chunks(_Reader):
    """`chunks/<scene>.h5`: the surface's voxels, and for each frame the rows in its frustum box.

    voxel i32 [V, 3] = floor(p / voxel_m), unique, sorted (x, then y, then z); color u8 [V, 3];
    index u32 [F]; box i32 [F, 2, 3] lowest and highest voxel, both inside.
    """

    format = CHUNKS

    def _read(self) -> None:
        self.scene = str(self.file.attrs["scene"])
        self.voxel_m = float(self.file.attrs["voxel_m"])
        self.voxel = self.file["surface/voxel"][()]
        self.color = self.file["surface/color"][()]
        self.index = self.file["frames/index"][()]
        self.box = self.file["frames/box"][()]
        self._offset = self.file["frames/offset"][()]

    def rows(self, frame: int) -> np.ndarray:
        """Rows of `voxel` that lie in the box of the frame at position `frame`; u32, ascending."""
        start, stop = (int(n) for n in self._offset[frame : frame + 2])
        return self.file["frames/rows"][start:stop]
