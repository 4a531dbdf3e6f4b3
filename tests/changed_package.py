"""A copy of the package to which a test adds a mode or a task, and its command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "pri3d"


def copy_package(root: Path) -> None:
    """Copy the package into a folder, with numba's compiled functions."""
    shutil.copytree(PACKAGE, root / "pri3d")


def insert(file: Path, before: str, text: str) -> None:
    """Insert a text into a file, before the first place that has another."""
    start, mark, end = file.read_text().partition(before)
    assert mark, before
    file.write_text(start + text + mark + end)


def command(package: Path, *words) -> str:
    """What `pri3d WORDS...` of the copy prints."""
    done = subprocess.run(
        [sys.executable, "-m", "pri3d", *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
        cwd=package,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
