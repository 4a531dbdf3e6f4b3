"""Artefacts: HDF5 files that are whole or not there, and that notice damage.

An artefact is written under a temporary name beside its target, flushed to disk, and renamed; a
reader never sees half of one, whatever was killed when. Every data set carries a Fletcher-32
checksum, so that a flipped bit is an error and not a number. The root attributes are

    format    "pri3d-clouds", "pri3d-overlap", "pri3d-pairs" or "pri3d-chunks"
    schema    1
    settings  JSON of the settings that made it
    inputs    JSON, name -> digest of each input
    digest    SHA-256 of the content: data sets and other attributes, not settings or inputs, and
              nothing that depends on time, machine or number of cores
    complete  true, written last

After the HDF5 data come 40 bytes that HDF5 does not look at, the seal: "pri3dend" and the SHA-256
of all before. Attributes have no checksum of their own.
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

# What h5py raises on a damaged file, depending on where the damage is.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)


class ArtefactWriter:
    """Adds data sets to an artefact that `publish` opened; each is checksummed."""

    def __init__(self, file: h5py.File):
        self.file = file

    def attribute(self, name: str, value: Any) -> None:
        """A root attribute that belongs to the content (and hence to the digest)."""
        self.file.attrs[name] = value

    def dataset(
        self, name: str, data: np.ndarray, compress: bool = False, chunks: tuple | None = None
    ) -> None:
        """One array, whole. Compression is gzip after a byte shuffle (lossless)."""
        data = np.asarray(data)
        self._create(name, data.shape, data.dtype, compress, chunks)[...] = data

    def empty(
        self,
        name: str,
        shape: tuple,
        dtype: Any,
        compress: bool = False,
        chunks: tuple | None = None,
    ) -> h5py.Dataset:
        """A data set of the given shape to be filled piece by piece."""
        return self._create(name, shape, np.dtype(dtype), compress, chunks)

    def _create(self, name, shape, dtype, compress, chunks) -> h5py.Dataset:
        if chunks is None:
            # A file of a few arrays: one chunk a MiB or so keeps the index small.
            row = max(1, int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize)
            rows = max(1, min(shape[0] if shape else 1, (1 << 20) // row))
            chunks = tuple(max(1, n) for n in (rows, *shape[1:]))
        if 0 in shape:
            # HDF5 cannot make a chunk larger than a fixed empty extent; let the extent grow.
            maxshape = tuple(None if n == 0 else n for n in shape)
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

    settings: what made it, JSON-able. inputs: name -> digest of every file it was made from.
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
    """A file that keeps a failed write to itself: HDF5 crashes where the disk is full."""

    error: OSError | None = None

    def write(self, data) -> int:
        rest = memoryview(data).cast("B")
        try:
            while rest and self.error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return len(data)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path`; renamed to it when the block ends, removed when it fails.

    A killed writer cannot remove its temporary file; the next writer of the same artefact does.
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
    """Remove temporary files of writers of `path` that live no more.

    A writer on another machine cannot be seen from here. It loses its file, and so fails when it
    renames: an artefact is never torn, and the writer that started last has its way.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.*.tmp"):
        try:
            os.kill(int(leftover.suffixes[-2][1:]), 0)
        except ProcessLookupError:
            leftover.unlink(missing_ok=True)
        except (ValueError, PermissionError):
            pass  # not one of ours, or alive and somebody else's


@contextlib.contextmanager
def sole_writer(folder: str | Path) -> Iterator[None]:
    """Nobody else writes into a folder while this block runs; Pri3DError when somebody does.

    For folders of many files that belong together. The operating system frees the lock when the
    process ends, however it ends; child processes do not hold it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Other errors are those of file systems that have no locks.
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
    """SHA-256 (hex) over names, types, shapes and values of all content, in name order."""
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
    """Variable-length strings have no fixed bytes; encode them with their lengths."""
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
    """Open an artefact for reading after checking that it is one, of this format, and complete.

    Raises Pri3DError naming the file and what to do.
    """
    try:
        file = h5py.File(path, "r")
        found, schema = file.attrs.get("format"), file.attrs.get("schema")
        complete = bool(file.attrs.get("complete", False))
    except FileNotFoundError:
        raise Pri3DError(f"{path}: no such file; run the stage that makes it") from None
    except DAMAGE:
        raise Pri3DError(
            f"{path}: not a readable HDF5 file (cut or overwritten?); remove it and run again"
        ) from None
    problem = None
    if found != format:
        problem = f"holds {found or 'something else'!r}, expected {format!r}; give the right file"
    elif schema != SCHEMA:
        problem = f"has schema {schema}, this version reads {SCHEMA}; remove it and run again"
    elif not complete:
        problem = "is incomplete; remove it and run again"
    if problem:
        file.close()
        raise Pri3DError(f"{path}: {problem}")
    return file


def artefact_digest(path: str | Path) -> str:
    """The recorded content digest of any artefact."""
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs["digest"])
    except DAMAGE:
        raise Pri3DError(f"{path}: not a complete artefact; remove it and run again") from None


def file_digest(path: str | Path) -> str:
    """SHA-256 (hex) of a plain file's bytes."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Pri3DError(f"{path}: cannot be read ({error.strerror})") from None


def check_content(path: str | Path, format: str) -> str:
    """Read everything back and compare with seal and digest; returns the digest.

    Raises Pri3DError when anything is not what was published.
    """
    # Before HDF5 looks at it: damage in its text heap can send the library into an endless loop.
    _check_seal(path)
    with open_artefact(path, format) as file:
        try:
            found, recorded = content_digest(file), file.attrs["digest"]
        except DAMAGE:
            raise Pri3DError(
                f"{path}: a data set fails its checksum; remove the file and run again"
            ) from None
        if found != recorded:
            raise Pri3DError(
                f"{path}: content does not match its digest (edited or damaged?); "
                "remove the file and run again"
            )
        return found


def _check_seal(path: str | Path) -> None:
    try:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # mmap refuses an empty file
        return  # open_artefact says what is wrong
    length = len(SEAL) + hashlib.sha256().digest_size
    with content, memoryview(content) as data, data[:-length] as body, data[-length:] as seal:
        # HDF5 cuts the seal off when it opens the file for writing; the digest is left to judge.
        sealed = seal[: len(SEAL)] == SEAL
        if sealed and seal[len(SEAL) :] != hashlib.sha256(body).digest():
            raise Pri3DError(
                f"{path}: not as it was published (damaged on disk?); remove it and run again"
            )
