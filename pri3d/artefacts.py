"""Readers of the four kinds of artefacts.

Each reader opens one file, checks it (`store.open_artefact`) and has its arrays as attributes. A
reader keeps the HDF5 file open: open one per process, and never before a fork.

Shapes: F frames, H x W pixels of a depth image, T frames of all scans, P pairs, V voxels.
"""

import json
from pathlib import Path
from typing import Self

import h5py
import numpy as np

from pri3d import geometry, store
from pri3d.errors import Pri3DError

CLOUDS = "pri3d-clouds"
OVERLAP = "pri3d-overlap"
PAIRS = "pri3d-pairs"
CHUNKS = "pri3d-chunks"


def artefact_format(path: str | Path) -> str:
    """The attribute `format` of an HDF5 file, or "something else" without one.

    Raises:
        Pri3DError: the file is missing or not a readable HDF5 file.
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
    """An open artefact, a context manager.

    Attributes:
        digest: of the content.
        settings: settings that made it.
        inputs: name -> digest of each file that it was made from.

    Raises:
        Pri3DError: the file is missing, damaged, incomplete, or of another format.
    """

    format: str

    def __init__(self, path: str | Path) -> None:
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

    def _read(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class _Frames:
    """Stored frames of one scan, with or without poses.

    Attributes:
        index: frame numbers in the scan, u32 [F].
        points: number of points of each frame, u32 [F].
        depth_shift: meters are stored depth divided by this.
        K: intrinsics of the depth images, [3, 3].
        color_K, color_shape: intrinsics [3, 3] and (height, width) of the stored color images.
        color_from_depth: transform between the cameras, [4, 4].
    """

    index: np.ndarray
    points: np.ndarray
    depth_shift: float
    K: np.ndarray
    color_K: np.ndarray
    color_shape: tuple[int, int]
    color_from_depth: np.ndarray
    _depth: h5py.Dataset
    _color: h5py.Dataset
    _color_offset: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def raw_depth(self, row: int) -> np.ndarray:
        """Stored depth u16 [H, W], 0 = no point; meters are this divided by `depth_shift`."""
        return self._depth[row]

    def depth(self, row: int) -> np.ndarray:
        """Depth float64 [H, W] in meters, 0 = no point."""
        return self.raw_depth(row) / np.float64(self.depth_shift)

    def color_jpeg(self, row: int) -> bytes:
        """The JPEG file of the frame's color image; empty where the scan has no color."""
        start, stop = self._color_offset[row : row + 2]
        return self._color[int(start) : int(stop)].tobytes()


class Clouds(_Reader, _Frames):
    """`clouds/<scene>.h5`: the kept frames of one scan; F may be 0.

    Attributes:
        scene: scene id.
        status: "ok", "partial: ..." or "failed: ...".
        world_from_camera: poses, f64 [F, 4, 4].
        shape: (H, W) of the depth images.
        dropped: (frame number, reason) of each frame that was not kept.
        unposed: the dropped frames that lack nothing but a pose, for training on single frames.
    """

    format = CLOUDS

    def _read(self) -> None:
        attrs = self.file.attrs
        self.scene = str(attrs["scene"])
        self.status = str(attrs["status"])
        self.index = self.file["frames/index"][()]
        self.world_from_camera = self.file["frames/world_from_camera"][()]
        self.points = self.file["frames/points"][()]
        height, width = self.file["frames/depth"].shape[1:]
        self.shape = int(height), int(width)
        self.depth_shift = float(attrs["depth_shift"])
        self.K = np.array(attrs["depth_intrinsic"], np.float64)[:3, :3]
        self.color_K = np.array(attrs["color_intrinsic"], np.float64)[:3, :3]
        color_height, color_width = attrs["color_shape"]
        self.color_shape = int(color_height), int(color_width)
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

    def view(self, row: int) -> geometry.View:
        """The frame as a posed depth image with its color camera."""
        color = geometry.ColorCamera(self.color_K, self.color_shape, self.color_from_depth)
        return geometry.View(self.depth(row), self.K, self.world_from_camera[row], color)

    def cloud(self, row: int) -> np.ndarray:
        """The frame's points, float32 [N, 3], meters, world, in row order of the image."""
        points, valid = geometry.unproject(self.depth(row), self.K)
        return geometry.transform(self.world_from_camera[row], points[valid]).astype(np.float32)


class Unposed(_Frames):
    """The frames of a scan whose poses are lost."""

    def __init__(self, clouds: Clouds) -> None:
        self.depth_shift, self.K, self.color_K = clouds.depth_shift, clouds.K, clouds.color_K
        self.color_shape, self.color_from_depth = clouds.color_shape, clouds.color_from_depth
        self.index, self.points = np.zeros(0, np.uint32), np.zeros(0, np.uint32)
        if group := clouds.file.get("unposed"):
            self.index, self.points = group["index"][()], group["points"][()]
            self._depth, self._color = group["depth"], group["color"]
            self._color_offset = group["color_offset"][()]


class Overlap(_Reader):
    """`overlap/<scene>.h5`: the matches of all ordered pairs of frames of one scan.

    Attributes:
        scene: scene id.
        index: frame numbers in the scan, u32 [F].
        points: number of points of each frame, u32 [F].
        matches: number of points of frame i (row) with a match in frame j (column), u32 [F, F].
    """

    format = OVERLAP

    def _read(self) -> None:
        self.scene = str(self.file.attrs["scene"])
        self.index = self.file["frames/index"][()]
        self.points = self.file["points"][()]
        self.matches = self.file["matches"][()]

    def shares(self) -> np.ndarray:
        """Overlap of all pairs of frames, float64 [F, F] in [0, 1]; 0 without points.

        Rule "paper": matches in both directions divided by the points of both frames (Pri3D,
        section 3.1). Rule "official": the larger of the two directions' shares of points.
        """
        points, matches = self.points.astype(np.float64), self.matches.astype(np.float64)
        if self.settings["rule"] == "official":
            share = matches / np.maximum(points, 1)[:, None]
            return np.maximum(share, share.T)
        return (matches + matches.T) / np.maximum(points[:, None] + points, 1)


class Pairs(_Reader):
    """`pairs.h5`: the kept pairs of all scans.

    Attributes:
        scenes: scene ids.
        frame_scene: row of each frame's scene in `scenes`, u32 [T].
        frame_index: frame numbers in their scans, u32 [T].
        frame_points: number of points of each frame, u32 [T].
        a, b: rows of the two frames of each pair, u32 [P], a < b.
        matches_ab, matches_ba: points of a with a match in b, and of b in a, u32 [P].
        overlap: f32 [P].
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
    """`chunks/<scene>.h5`: the voxels of a surface, and for each frame those in its frustum box.

    Attributes:
        scene: scene id.
        voxel_m: edge of a voxel, meters.
        voxel: floor(p / voxel_m), unique, sorted by x, then y, then z, i32 [V, 3].
        color: u8 [V, 3].
        index: frame numbers in the scan, u32 [F].
        box: min and max voxel of each frame's frustum box, both inside, i32 [F, 2, 3].
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
        """Rows of `voxel` in the box of the frame at position `frame`, u32, ascending."""
        start, stop = (int(n) for n in self._offset[frame : frame + 2])
        return self.file["frames/rows"][start:stop]
