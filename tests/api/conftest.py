"""A small results folder, as `make demo` leaves a large one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NETWORK = ['network2d="resnet18_half"', "height=64", "width=96", "steps=1", "batch=2", "matches=64"]
NETWORK += ["threads=1", "workers=0"]
NETWORK_3D = ['network3d={"widths":[8,8,8,8,8,8,8,8],"blocks":[1,1,1,1,1,1,1,1]}']
NETWORK_3D += ['teacher="resnet18_half"']


def pri3d(folder, *words):
    subprocess.run(
        [sys.executable, "-m", "pri3d", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="session")
def small_results(tmp_path_factory) -> Path:
    """Folder with results/: a demo scan and all that docs/python.md opens."""
    folder = tmp_path_factory.mktemp("api")
    small = ("--frames", "40", "--height", "60", "--color-height", "80", "--scans", "1")
    pri3d(folder, "demo", "results/demo", *small)
    scan, name = "results/demo/scene0000_00/scene0000_00.sens", "scene0000_00.h5"
    pri3d(folder, "clouds", scan, f"results/clouds/{name}", "--every", "4")
    pri3d(folder, "overlap", f"results/clouds/{name}", f"results/overlap/{name}")
    pri3d(folder, "pairs", f"results/overlap/{name}", "results/pairs.h5", "--min-overlap", "0.1")
    surface = "results/demo/scene0000_00/scene0000_00_vh_clean_2.ply"
    pri3d(
        folder, "chunks", f"results/clouds/{name}", f"results/chunks/{name}", "--surface", surface
    )
    for mode, more in (("joint", NETWORK_3D), ("ppkt", NETWORK_3D)):
        words = [word for value in NETWORK + more for word in ("--set", value)]
        pri3d(folder, "pretrain", "--mode", mode, *words)
    return folder
