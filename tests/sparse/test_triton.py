"""The engine that is written in Triton: its kernels, and where it is chosen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pri3d.errors import Pri3DError
from pri3d.sparse.convolution import SparseConv, use_engine
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


def test_auto_takes_what_runs_here(a_cloud, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    torch.manual_seed(0)
    layer = SparseConv(3, 4, 3).to(DEVICE)
    expected = layer(a_cloud).features
    use_engine(layer, "auto")
    assert torch.allclose(layer(a_cloud).features, expected, rtol=1e-5, atol=1e-6)
    assert (MODULE in sys.modules) == (DEVICE == "cuda")
