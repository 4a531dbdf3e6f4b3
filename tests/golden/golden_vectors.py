"""Reading golden vectors: `NAME.npz` with a sidecar `NAME.json`, weights made from their names.

Everything that can differ between two sets of this form (salt, shapes, cases, inputs) is read from
the JSON; the form itself is described in the README beside the vectors.
"""

import json
import math
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

TOLERANCE = 1e-9


def cases(pattern: str) -> list:
    """Test parameters (file, case) of every golden file whose name matches; none, without data."""
    folder = os.environ.get("PRI3D_REAL_DATA")
    if not folder:
        return []
    files = sorted((Path(folder) / "golden").glob(pattern + ".json"))
    return [
        pytest.param(str(file), case, id=f"{file.stem}-{case}")
        for file in files
        for case in json.loads(file.read_text())["cases"]
    ]


class Golden:
    """One golden file: its sidecar as `about`, its arrays, and the numbers made from names."""

    def __init__(self, file: str) -> None:
        self.about = json.loads(Path(file).read_text())
        self.arrays = np.load(Path(file).with_suffix(".npz"))

    def __contains__(self, name: str) -> bool:
        return name in self.arrays.files or f"{name}.val" in self.arrays.files

    def tensor(self, name: str) -> torch.Tensor:
        """A stored input: floats as float64, integers as int64."""
        array = self.arrays[name]
        wide = (
            array.dtype if array.dtype == bool else (np.float64, np.int64)[array.dtype.kind == "i"]
        )
        return torch.from_numpy(array.astype(wide))

    def normal(self, name: str, shape) -> np.ndarray:
        seed = zlib.crc32((self.about["salt"] + name).encode())
        return np.random.default_rng(seed).standard_normal(tuple(shape))

    def projected(self, projection: str, output: torch.Tensor) -> torch.Tensor:
        """The objective whose gradients are stored."""
        return (output * torch.from_numpy(self.normal(projection, output.shape))).sum()

    def weight(self, name: str, shape) -> torch.Tensor:
        last = name.rsplit(".", 1)[-1]
        if last == "num_batches_tracked":
            return torch.zeros(tuple(shape), dtype=torch.int64)
        z = self.normal(name, shape)
        if last in ("running_mean", "bias"):
            z *= 0.1
        elif last == "running_var":
            z = 1 + 0.1 * np.abs(z)
        elif last == "weight" and len(shape) == 1:
            z = 1 + 0.1 * z
        else:
            z *= math.sqrt(2 / math.prod(shape[:-1] if last == "kernel" else shape[1:]))
        return torch.from_numpy(z)

    def fill(self, network: torch.nn.Module) -> None:
        """Check the names and shapes of a float64 network's state dict, and fill it."""
        state = network.state_dict()
        expected = {p["name"]: tuple(p["shape"]) for p in self.about["parameters"]}
        assert {name: tuple(value.shape) for name, value in state.items()} == expected
        for name, value in state.items():
            value.copy_(self.weight(name, value.shape))

    def check(self, name: str, result: torch.Tensor) -> None:
        """Compare with a stored array (or what is stored of it), relative to its largest entry."""
        result = result.detach().numpy()
        if f"{name}.val" not in self.arrays.files:
            expected = self.arrays[name]
            assert result.shape == expected.shape, name
            assert np.abs(result - expected).max() <= TOLERANCE * np.abs(expected).max(), name
            return
        stored = {key: self.arrays[f"{name}.{key}"] for key in ("idx", "val", "l2", "sum", "shape")}
        assert result.shape == tuple(stored["shape"]), name
        largest = np.abs(result).max()
        assert np.abs(result.ravel()[stored["idx"]] - stored["val"]).max() <= TOLERANCE * largest, (
            name
        )
        assert abs(np.linalg.norm(result) - stored["l2"]) <= TOLERANCE * stored["l2"], name
        assert abs(result.sum() - stored["sum"]) <= TOLERANCE * np.abs(result).sum(), name

    def check_buffers(self, prefix: str, state: dict[str, torch.Tensor], inner: str = "") -> None:
        """Compare running statistics after one training step; `inner` is put before the leaf."""
        names = [name for name in self.arrays.files if name.startswith(prefix)]
        assert names
        for name in names:
            module, _, leaf = name.removeprefix(prefix).rpartition(".")
            if module:
                self.check(name, state[f"{module}.{inner}{leaf}"])
                continue
            buffer = leaf.removeprefix("all_").removesuffix("_l2")
            everything = [value.ravel() for key, value in state.items() if key.endswith(buffer)]
            assert everything
            self.check(name, torch.linalg.vector_norm(torch.cat(everything)))
