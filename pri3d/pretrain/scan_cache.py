"""The artefacts of the scans that a process has open.

Shapes: V voxels.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pri3d.artefacts import Chunks, Clouds, Unposed
from pri3d.errors import Pri3DError
from pri3d.matching.voxels import rows_in_box
from pri3d.sources.images import decode_color

MAX_OPEN_SCANS = 16  # so many stay open


class Scan(NamedTuple):
    """One scan; axes: x, y and z of the surface's voxels, each [V]. Without chunks: None."""

    clouds: Clouds
    chunks: Chunks | None
    axes: list[np.ndarray] | None

    def chunk_of(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Voxels int32 [V, 3] in the box of the frame of this number, and their colours u8 [V, 3].

        They are sought in memory, which takes a tenth of the time of reading the rows in the file.
        """
        box = self.chunks.box[row_of(self.chunks, number)]
        rows = rows_in_box(self.axes, box).astype(np.int64)
        return self.chunks.voxel.take(rows, axis=0), self.chunks.color.take(rows, axis=0)


class ScanCache:
    """Opens scans on first use and keeps the last few open; chunks_dir None: without chunks.

    What another process gets of it has no open files. Raises Pri3DError where a file is missing or
    damaged.
    """

    def __init__(self, clouds_dir: Path, chunks_dir: Path | None):
        self.clouds_dir, self.chunks_dir = clouds_dir, chunks_dir
        self._scans: OrderedDict[str, Scan] = OrderedDict()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_scans": OrderedDict()}

    def __getitem__(self, scene: str) -> Scan:
        if scene not in self._scans:
            chunks, axes = None, None
            if self.chunks_dir is not None:
                chunks = Chunks(self.chunks_dir / f"{scene}.h5")
                axes = [np.ascontiguousarray(axis) for axis in chunks.voxel.T]
            self._scans[scene] = Scan(Clouds(self.clouds_dir / f"{scene}.h5"), chunks, axes)
            self.close(keep=MAX_OPEN_SCANS)
        self._scans.move_to_end(scene)
        return self._scans[scene]

    def close(self, keep: int = 0) -> None:
        """Close all but the last used."""
        while len(self._scans) > keep:
            _, scan = self._scans.popitem(last=False)
            for reader in filter(None, (scan.clouds, scan.chunks)):
                reader.close()


def row_of(reader: Clouds | Chunks, number: int) -> int:
    """Position of a frame number in an artefact; Pri3DError where it has no such frame."""
    row = int(np.searchsorted(reader.index, number))  # ascending, as frames are
    if row == len(reader.index) or reader.index[row] != number:
        raise Pri3DError(
            f"{reader.path}: has no frame {number}, which the pairs name; make clouds, overlap, "
            "pairs and chunks from the same scan"
        )
    return row


def stored_image(clouds: Clouds | Unposed, row: int, least_height: int | None = None) -> np.ndarray:
    """Colour of a frame, u8 [H, W, 3], perhaps smaller but at least so high (None: whole).

    Raises ValueError, whose text is the reason to leave the frame out.
    """
    data = clouds.color_jpeg(row)
    if not data:
        raise ValueError("no colour image")
    try:
        return decode_color(data, "jpeg", clouds.color_shape, least_height)
    except ValueError:
        raise ValueError("colour image does not decode") from None


@contextlib.contextmanager
def damage_is_named(scan: Scan, name: str) -> Iterator[None]:
    """What h5py raises on damage (a checksum) becomes a Pri3DError that names files and sample."""
    try:
        yield
    except OSError as error:
        paths = [reader.path for reader in (scan.clouds, scan.chunks) if reader]
        raise Pri3DError(
            f"{' or '.join(map(str, paths))}: {name} cannot be read ({error}); `pri3d verify` "
            "says which file is damaged, make it again"
        ) from None
