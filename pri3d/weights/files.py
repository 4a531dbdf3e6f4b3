"""Files of weights from untrusted sources: reading one executes no code that it contains.

safetensors hold only tensors. torch's files are read with `weights_only=True`; objects of classes
that torch does not know, such as an omegaconf configuration beside the weights, become empty
stand-ins and are ignored. Pickles of numpy arrays, detectron2's format, are read by an unpickler
that can only make arrays.
"""

import codecs
import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from pri3d import store
from pri3d.errors import Pri3DError, first_line

# The first pickle of files that torch wrote before version 1.6 is this number.
_TORCH_MAGIC = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little")

# What pickled arrays import, under the module names of numpy 1 and 2.
_reconstruct, _frombuffer, _scalar = (
    np.empty(1).__reduce__()[0],
    np.empty(1).__reduce_ex__(5)[0],
    np.float32(0).__reduce__()[0],
)
_ARRAYS = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "_codecs.encode": codecs.encode,  # for bytes, in the pickles of Python 2
    "collections.OrderedDict": OrderedDict,
} | {
    f"numpy.{core}.{name}": function
    for core in ("core", "_core")
    for name, function in (
        ("multiarray._reconstruct", _reconstruct),
        ("multiarray.scalar", _scalar),
        ("numeric._frombuffer", _frombuffer),
    )
}


def read(path: Path) -> Any:
    """The content of a file of weights, on the CPU, with arrays as tensors.

    The kind of file is inferred from its content, not from its name.

    Raises:
        Pri3DError: the file cannot be read, or holds no weights.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(len(_TORCH_MAGIC))
    except OSError as error:
        raise Pri3DError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        # safetensors begin with the size of their header, which may look like any other beginning.
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000:
            return load_file(path)
        if head.startswith(b"PK") or head == _TORCH_MAGIC:
            return _read_torch(path)
        if head.startswith(b"\x80"):
            with open(path, "rb") as file:
                return _with_tensors(_ArraysOnly(file, encoding="latin1").load())
    except Exception as error:  # its type depends on which byte is damaged
        raise Pri3DError(
            f"{path}: cannot be read as weights ({first_line(error)}); download it again, or give "
            "another file"
        ) from None
    raise Pri3DError(f"{path}: is not a file of weights; give a .safetensors, .pth or .pkl file")


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ARRAYS:
            raise pickle.UnpicklingError(f"it imports {module}.{name}, which is no array")
        return _ARRAYS[f"{module}.{name}"]


def _with_tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_tensors(item) for name, item in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C"))
    return value


class _NoArray:
    """Stands in for numpy's scalars and types: numbers beside the weights are not needed."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _NoObject:
    """Stands in for any other object; a dictionary, since torch fills no other type."""

    def __new__(cls, *_: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


def _read_torch(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:  # torch.load ignores the checksums
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} fails its checksum")
            (tree,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            imported = _globals_of(io.BytesIO(archive.read(tree)))
    else:
        with open(path, "rb") as file:
            for _ in range(3):  # before the content: the number above, a version, sizes of integers
                _globals_of(file)
            imported = _globals_of(file)
    # torch looks in its own list first, so that no class that it knows is replaced.
    replaced: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (_NoArray if name.startswith("numpy.") else _NoObject, name) for name in imported
    ]
    try:
        with torch.serialization.safe_globals(replaced):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # torch's message advises to load it without a check.
        others = [name for name in imported if not name.startswith(("torch.", "collections."))]
        raise ValueError(f"not plain weights, it imports {', '.join(others)}") from None


def _globals_of(file: Any) -> list[str]:
    """The classes and functions that the next pickle in a file imports; nothing is executed."""
    names = {str(name) for op, name, _ in pickletools.genops(file) if op.name == "GLOBAL"}
    return sorted(n.replace(" ", ".").replace("__builtin__.", "builtins.") for n in names)


def write_arrays(path: Path, content: dict[str, Any]) -> None:
    """Pickle a dictionary with a dictionary `model` of tensors, as numpy arrays.

    numpy 1, which lacks the module that numpy 2 names, can read it too. Protocol 3 puts that name
    on a line of its own, before the bytes of any array.
    """
    arrays = {name: value.numpy() for name, value in content["model"].items()}
    data = pickle.dumps(content | {"model": arrays}, protocol=3)
    data = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n", 1)
    with store.atomic_path(path) as temporary:
        temporary.write_bytes(data)


def plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without gradients, contiguous, each with memory of its own size."""
    out = {}
    for name, value in state.items():
        value = value.detach().contiguous()
        whole = value.untyped_storage().nbytes() == value.nbytes
        out[name] = value if whole else value.clone()
    return out
