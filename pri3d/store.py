"""Artefacts: HDF5 files that are written atomically and checksummed.

An artefact is written under a temporary name beside its target, flushed to disk, and renamed, so
that a reader never sees a partial file. Every data set has a Fletcher-32 checksum, so that a
flipped bit is reported as an error. The root attributes are

    format    "pri3d-clouds", "pri3d-overlap", "pri3d-pairs" or "pri3d-chunks"
    schema    1
    settings  JSON of the settings that made it
    inputs    JSON, name -> digest of each input
    digest    SHA-256 of the content: data sets and other attributes, not settings or inputs, and
              nothing that depends on time, machine or number of cores
    complete  true, written last

After the HDF5 data come 40 bytes that HDF5 ignores, the seal: "pri3dend" and the SHA-256 of all
bytes before it. It protects the attributes, which have no checksum of their own.
"""

import contextlib
import errno
import fcntl
import glob
import hashlib
import io
import json
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pri3d.errors import Pri3DError

SCHEMA = 1
_ENVELOPE = ("schema", "settings", "inputs", "digest", "complete")
_BLOCK_BYTES = 1 << 24
SEAL = b"pri3dend"
Shape = tuple[int, ...]

# Exceptions that h5py raises for a damaged file, depending on where the damage is.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)


class ArtefactWriter:
    """Adds data sets and attributes to an artefact that `publish` opened."""

    def __init__(self, file: h5py.File) -> None:
        self.file = file

    def attribute(self, name: str, value: Any) -> None:
        """Add a root attribute to the content, which the digest covers."""
        self.file.attrs[name] = value

    def dataset(
        self, name: str, data: np.ndarray, compress: bool = False, chunks: Shape | None = None
    ) -> None:
        """Add an array. Compression is gzip after a byte shuffle (lossless)."""
        data = np.asarray(data)
        self._create(name, data.shape, data.dtype, compress, chunks)[...] = data

    def empty(
        self,
        name: str,
        shape: Shape,
        dtype: np.typing.DTypeLike,
        compress: bool = False,
        chunks: Shape | None = None,
    ) -> h5py.Dataset:
        """Add a data set of the given shape, for the caller to fill."""
        return self._create(name, shape, np.dtype(dtype), compress, chunks)

    def _create(
        self, name: str, shape: Shape, dtype: np.dtype, compress: bool, chunks: Shape | None
    ) -> h5py.Dataset:
        if chunks is None:
            # About one MiB per chunk keeps the index of a file of a few arrays small.
            row = max(1, int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize)
            rows = max(1, min(shape[0] if shape else 1, (1 << 20) // row))
            chunks = tuple(max(1, n) for n in (rows, *shape[1:]))
        if 0 in shape:
            # HDF5 makes no chunk larger than a fixed empty extent, so the extent may grow.
            maxshape: tuple[int | None, ...] | None = tuple(None if n == 0 else n for n in shape)
        else:
            maxshape, chunks = None, tuple(min(c, n) for c, n in zip(chunks, shape))
        options = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
        return self.file.create_dataset(
            name,
            shape=shape,
            dtype=dtype,
            maxshape=maxshape,
            chunks=chunks,
            fletcher32=True,
            track_times=False,
            **(options if compress else {}),
        )


@contextlib.contextmanager
def publish(
    path: str | Path, format: str, settings: dict[str, Any], inputs: dict[str, str]
) -> Iterator[ArtefactWriter]:
    """Write an artefact atomically: nothing appears at `path` unless the block ends without error.

    Args:
        path, format: the artefact and its root attribute `format`.
        settings: settings that made it, JSON-able.
        inputs: name -> digest of each file that it was made from; read when the block ends.
    """
    path = Path(path)
    with atomic_path(path) as temporary:
        with _disk(temporary) as disk, h5py.File(disk, "w", libver="latest") as file:
            file.attrs["format"] = format
            yield ArtefactWriter(file)
            file.attrs["schema"] = SCHEMA
            file.attrs["settings"] = json.dumps(settings, sort_keys=True)
            file.attrs["inputs"] = json.dumps(inputs, sort_keys=True)
            file.flush()
            file.attrs["digest"] = content_digest(file)
            file.attrs["complete"] = True
        seal = SEAL + bytes.fromhex(file_digest(temporary))
        with open(temporary, "ab") as end:
            end.write(seal)


@contextlib.contextmanager
def _disk(path: Path) -> Iterator["_Disk"]:
    with _Disk(path, "w+b") as disk:
        try:
            yield disk
        finally:
            if disk.error is not None:
                raise OSError(disk.error.errno, disk.error.strerror, str(path.parent)) from None


class _Disk(io.FileIO):
    """A file that records a failed write and hides it from HDF5, which crashes on a full disk."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        try:
            while rest and self.error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return len(data)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path`: renamed to it when the block ends, removed when it fails.

    The temporary file of a killed writer is removed by the next writer of the same artefact.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    handle, name = tempfile.mkstemp(f".{os.getpid()}.tmp", f".{path.name}.", path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; artefacts are shared
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of earlier writers of `path` whose processes have ended.

    A writer on another machine is taken for ended. It loses its file and fails when it renames: an
    artefact is never torn, and the writer that started last succeeds.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.*.tmp"):
        try:
            os.kill(int(leftover.suffixes[-2][1:]), 0)
        except ProcessLookupError:
            leftover.unlink(missing_ok=True)
        except (ValueError, PermissionError):
            pass  # not a temporary file of this module, or its writer runs as another user


@contextlib.contextmanager
def sole_writer(folder: str | Path) -> Iterator[None]:
    """Lock a folder against other writers while the block runs; Pri3DError if one has the lock.

    The operating system frees the lock when the process ends, however it ends; child processes do
    not hold it. On file systems without locks nothing is locked.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Other errors come from file systems without locks.
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise Pri3DError(
                    f"{folder}: another process is writing here; wait until it ends, or end it"
                ) from None
        yield


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def content_digest(file: h5py.File) -> str:
    """SHA-256 (hex) of the names, types, shapes and values of all content, in order of names."""
    digest = hashlib.sha256()
    objects: list[tuple[str, h5py.Dataset | h5py.Group]] = [("", file)]
    file.visititems(lambda name, item: objects.append((name, item)))
    for name, item in sorted(objects, key=lambda pair: pair[0]):
        for key in sorted(item.attrs):
            if name or key not in _ENVELOPE:
                digest.update(f"@{name}:{key}={_plain(item.attrs[key])!r}\n".encode())
        if isinstance(item, h5py.Dataset):
            digest.update(f"#{name}:{item.dtype.str}:{item.shape}\n".encode())
            for block in _blocks(item):
                digest.update(np.ascontiguousarray(block).tobytes())
    return digest.hexdigest()


def _blocks(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    if dataset.shape == () or 0 in dataset.shape:
        if dataset.shape == ():
            yield _as_bytes(dataset[()])
        return
    row_bytes = max(1, dataset.nbytes // dataset.shape[0])
    step = max(1, _BLOCK_BYTES // row_bytes)
    for start in range(0, dataset.shape[0], step):
        yield _as_bytes(dataset[start : start + step])


def _as_bytes(values: Any) -> np.ndarray:
    """The values; variable-length strings, which have no fixed bytes, with their lengths."""
    array = np.asarray(values)
    if array.dtype.kind == "O":
        encoded = [v if isinstance(v, bytes) else str(v).encode() for v in array.ravel()]
        return np.frombuffer(b"".join(b"%d:%s" % (len(v), v) for v in encoded), np.uint8)
    return array


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value


def open_artefact(path: str | Path, format: str) -> h5py.File:
    """Open a complete artefact of the given format for reading.

    Raises:
        Pri3DError: the file is missing, damaged, incomplete, or of another format or schema.
    """
    try:
        file = h5py.File(path, "r")
        stored_format, schema = file.attrs.get("format"), file.attrs.get("schema")
        complete = bool(file.attrs.get("complete", False))
    except FileNotFoundError:
        raise Pri3DError(f"{path}: no such file; run the stage that makes it") from None
    except DAMAGE:
        raise Pri3DError(
            f"{path}: not a readable HDF5 file (cut or overwritten?); remove it and run again"
        ) from None
    problem = None
    if stored_format != format:
        content = stored_format or "something else"
        problem = f"holds {content!r}, expected {format!r}; give the right file"
    elif schema != SCHEMA:
        problem = f"has schema {schema}, this version reads {SCHEMA}; remove it and run again"
    elif not complete:
        problem = "is incomplete; remove it and run again"
    if problem:
        file.close()
        raise Pri3DError(f"{path}: {problem}")
    return file


def artefact_digest(path: str | Path) -> str:
    """The recorded content digest of any artefact; raises Pri3DError if it has none."""
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs["digest"])
    except DAMAGE:
        raise Pri3DError(f"{path}: not a complete artefact; remove it and run again") from None


def file_digest(path: str | Path) -> str:
    """SHA-256 (hex) of a file's bytes; raises Pri3DError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Pri3DError(f"{path}: cannot be read ({error.strerror})") from None


def check_content(path: str | Path, format: str) -> str:
    """The digest of an artefact; raises Pri3DError unless all of it is as it was published."""
    # Before HDF5 reads the file: damage in its text heap can put the library in an endless loop.
    _check_seal(path)
    with open_artefact(path, format) as file:
        try:
            computed, recorded = content_digest(file), str(file.attrs["digest"])
        except DAMAGE:
            raise Pri3DError(
                f"{path}: a data set fails its checksum; remove the file and run again"
            ) from None
        if computed != recorded:
            raise Pri3DError(
                f"{path}: content does not match its digest (edited or damaged?); "
                "remove the file and run again"
            )
        return computed


def _check_seal(path: str | Path) -> None:
    try:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # mmap refuses an empty file
        return  # open_artefact reports the problem
    length = len(SEAL) + hashlib.sha256().digest_size
    with content, memoryview(content) as data, data[:-length] as body, data[-length:] as seal:
        # HDF5 removes the seal when it opens the file for writing; then only the digest is checked.
        sealed = seal[: len(SEAL)] == SEAL
        if sealed and seal[len(SEAL) :] != hashlib.sha256(body).digest():
            raise Pri3DError(
                f"{path}: not as it was published (damaged on disk?); remove it and run again"
            )
