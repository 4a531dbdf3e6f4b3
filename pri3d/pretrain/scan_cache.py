"""The artefacts of the scans that a process has open.

Shapes: V voxels, H x W pixels.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pri3d.artefacts import Chunks, Clouds, Unposed
from pri3d.errors import Pri3DError
from pri3d.matching.voxels import rows_in_box
from pri3d.sources.images import decode_color

MAX_OPEN_SCANS = 16


class Surface(NamedTuple):
    """The chunks of a scan. axes_3V: x, y and z of all voxels, one contiguous array each."""

    chunks: Chunks
    axes_3V: list[np.ndarray]


class Scan(NamedTuple):
    """The open artefacts of one scan. surface: None if chunks are not read."""

    clouds: Clouds
    surface: Surface | None

    @property
    def paths(self) -> list[Path]:
        """Files of this scan."""
        return [self.clouds.path] + ([self.surface.chunks.path] if self.surface else [])

    def chunk_of(self, number: int) -> tuple[np.ndarray, np.ndarray, float]:
        """The chunk of a frame.

        Voxels are searched in memory, which takes a tenth of the time of reading the file's rows.

        Args:
            number: frame number in the scan.

        Returns:
            Voxels int32 [V, 3], their colors u8 [V, 3], and the size of a voxel in meters.

        Raises:
            Pri3DError: there is no such frame.
        """
        if self.surface is None:
            raise ValueError("chunk_of: this scan was opened without chunks")
        chunks = self.surface.chunks
        box = chunks.box[row_of(chunks, number)]
        rows = rows_in_box(self.surface.axes_3V, box).astype(np.int64)
        return chunks.voxel.take(rows, axis=0), chunks.color.take(rows, axis=0), chunks.voxel_m


class ScanCache:
    """Opens scans on first use and keeps the most recently used ones open.

    A copy in another process (by pickle) starts without open files.

    Args:
        clouds_dir: folder with <scene>.h5 made by `pri3d clouds`.
        chunks_dir: likewise by `pri3d chunks`; None: chunks are not read.

    Raises:
        Pri3DError: on access, a file is missing or damaged.
    """

    def __init__(self, clouds_dir: Path, chunks_dir: Path | None):
        self.clouds_dir, self.chunks_dir = clouds_dir, chunks_dir
        self._scans: OrderedDict[str, Scan] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_scans": OrderedDict()}

    def __getitem__(self, scene: str) -> Scan:
        if scene not in self._scans:
            surface = None
            if self.chunks_dir is not None:
                chunks = Chunks(self.chunks_dir / f"{scene}.h5")
                surface = Surface(chunks, [np.ascontiguousarray(axis) for axis in chunks.voxel.T])
            self._scans[scene] = Scan(Clouds(self.clouds_dir / f"{scene}.h5"), surface)
            self.close(keep=MAX_OPEN_SCANS)
        self._scans.move_to_end(scene)
        return self._scans[scene]

    def close(self, keep: int = 0) -> None:
        """Close all scans but the `keep` most recently used ones."""
        while len(self._scans) > keep:
            _, scan = self._scans.popitem(last=False)
            scan.clouds.close()
            if scan.surface:
                scan.surface.chunks.close()


def row_of(reader: Clouds | Chunks, number: int) -> int:
    """Row of a frame number in an artefact.

    Raises:
        Pri3DError: the artefact has no such frame.
    """
    row = int(np.searchsorted(reader.index, number))  # frame numbers are ascending
    if row == len(reader.index) or reader.index[row] != number:
        raise Pri3DError(
            f"{reader.path}: has no frame {number}, which the pairs name; make clouds, overlap, "
            "pairs and chunks from the same scan"
        )
    return row


def stored_image(clouds: Clouds | Unposed, row: int, min_height: int | None = None) -> np.ndarray:
    """The color image of a frame, u8 [H, W, 3].

    Args:
        clouds: where it is stored.
        row: row of the frame in `clouds`.
        min_height: a smaller image of at least this height is enough; None: full size.

    Raises:
        ValueError: the image cannot be used; the text is the reason.
    """
    data = clouds.color_jpeg(row)
    if not data:
        raise ValueError("no color image")
    try:
        return decode_color(data, "jpeg", clouds.color_shape, min_height)
    except ValueError:
        raise ValueError("color image does not decode") from None


@contextlib.contextmanager
def named_errors(scan: Scan, name: str) -> Iterator[None]:
    """Name files and sample where h5py cannot read (a wrong checksum).

    Raises:
        Pri3DError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise Pri3DError(
            f"{' or '.join(map(str, scan.paths))}: {name} cannot be read ({error}); find the "
            "damaged file with `pri3d verify` and make it again"
        ) from None
