"""The examples of docs/python.md and the tutorial run as they stand, on small results."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{code}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_examples_of_the_page_run(number, small_results):
    assert len(BLOCKS) >= 6
    run(BLOCKS[number], small_results)


def test_the_tutorial_runs_from_top_to_bottom(tmp_path):
    """Its parameters are replaced by smaller ones; everything else is as published."""
    notebook = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text())
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    parameters = [i for i, cell in enumerate(cells) if cell.startswith("# Parameters")]
    assert parameters == [0]
    cells[0] = "FRAMES, STEPS = 12, 2"
    output = run("\n".join(cells), tmp_path)
    assert "pairs" in output
    assert (tmp_path / "tutorial" / "runs" / "view" / "model.safetensors").is_file()
