"""The engine that is written in Triton: its kernels, and where it is chosen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pri3d.errors import Pri3DError
from pri3d.sparse.convolution import SparseConv, engine_for, use_engine
from pri3d.sparse.coordinates import collate

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MODULE = "pri3d.sparse.engine_triton"


def test_kernels():
    pytest.importorskip("triton")
    cases = Path(__file__).with_name("triton_cases.py")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", str(cases)]
    interpreted = {} if DEVICE == "cuda" else {"TRITON_INTERPRET": "1"}
    done = subprocess.run(words, env=os.environ | interpreted, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "skipped" not in done.stdout


@pytest.fixture
def a_cloud():
    cells = torch.randint(-3, 3, (60, 3), generator=torch.Generator().manual_seed(0)).unique(dim=0)
    return collate([(cells, torch.rand(len(cells), 3))]).to(DEVICE)


def test_needs_a_gpu(a_cloud, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    layer = SparseConv(3, 4, 3)
    use_engine(layer, "triton")
    with pytest.raises(Pri3DError, match="Triton computes on a GPU, not on cpu; choose torch"):
        layer(a_cloud.to("cpu"))


def test_where_triton_is_missing_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(Pri3DError, match=r"Triton cannot be imported .* choose torch"):
        use_engine(SparseConv(3, 4, 3), "triton")


CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("capability", "compiles", "chosen", "warning"),
    [
        ((9, 0), True, "triton", ""),
        ((7, 5), True, "torch", "need an NVIDIA GPU, Ampere or newer"),
        ((9, 0), False, "torch", "cannot compile here (no gcc); it needs a C compiler"),
    ],
)
def test_auto_takes_triton_where_it_runs(
    monkeypatch, caplog, capability, compiles, chosen, warning
):
    engine = pytest.importorskip(MODULE)

    def launch(*arguments, **named):
        if not compiles:
            raise RuntimeError("no gcc\n...")

    zeros = torch.zeros
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch, "zeros", lambda *shape, dtype, device: zeros(*shape, dtype=dtype))
    monkeypatch.setattr(engine, "_search", {(1, 1): launch})
    assert engine_for("auto", GPU) == chosen
    assert warning in caplog.text
    assert ("using torch" in caplog.text) == (chosen == "torch")


def test_auto_is_torch_without_a_gpu_and_without_triton(monkeypatch, caplog):
    assert engine_for("auto", CPU) == "torch"
    assert not caplog.records
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    assert engine_for("auto", GPU) == "torch"
    assert "Triton cannot be imported" in caplog.text


@pytest.mark.parametrize("name", ["torch", "triton", "minkowski"])
def test_what_is_asked_for_is_taken(name):
    assert engine_for(name, CPU) == name
