"""Every benchmark runs in its --quick form, and its results have the form of the committed ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
# Words of the command line, and the committed results. forecast.py reads these results itself.
SCRIPTS = {
    "effect": ["effect.py"],
    "effect3d": ["effect3d.py"],
    "gpu": ["gpu.py"],
    "ingest": ["ingest.py"],
    "loading": ["loading.py"],
    "overlap": ["overlap.py"],
    "recall_demo": ["recall.py", "demo"],
    "recall_real": ["recall.py", "real"],
    "sparse": ["sparse.py"],
    "stages": ["stages.py"],
}
HELPERS = {"commands.py", "machine.py", "forecast.py"}


def missing(committed, quick, where: str) -> list[str]:
    """Keys of the committed results that the quick ones lack.

    Tables, whose keys are names of runs or sizes, are compared by the entries that both have, or by
    their first.
    """
    if isinstance(committed, list) and isinstance(quick, list):
        return missing(committed[0], quick[0], f"{where}[0]") if committed and quick else []
    if not isinstance(committed, dict) or not isinstance(quick, dict):
        return []
    tables = [
        values and all(isinstance(v, dict) for v in values.values())
        for values in (committed, quick)
    ]
    if all(tables) and committed.keys() != quick.keys():
        same = [(key, key) for key in committed if key in quick]
        pairs = same or [(next(iter(committed)), next(iter(quick)))]
        return [key for a, b in pairs for key in missing(committed[a], quick[b], f"{where}.{a}")]
    lacking = [f"{where}.{key}" for key in committed if key not in quick]
    for key in committed.keys() & quick.keys():
        if key != "settings":  # named as in the version that measured
            lacking += missing(committed[key], quick[key], f"{where}.{key}")
    return lacking


def run(words, tmp_path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    environment.pop("PRI3D_REAL_DATA", None)
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)


def test_every_script_is_tested():
    scripts = {path.name for path in FOLDER.glob("*.py")}
    assert scripts == {words[0] for words in SCRIPTS.values()} | HELPERS


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_runs_and_its_results_have_the_form_of_the_committed_ones(name, tmp_path):
    out = tmp_path / "out" / f"{name}.json"
    script, *words = SCRIPTS[name]
    process = run([FOLDER / script, *words, "--quick", "--json", out], tmp_path)
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:]
    committed = json.loads((FOLDER / "results" / f"{name}.json").read_text())
    assert missing(committed, json.loads(out.read_text()), name) == []
    assert list(tmp_path.glob("pri3d-*")) == []  # no temporary folder is left


def test_the_tables_of_the_documentation_can_be_made(tmp_path):
    process = run([FOLDER / "forecast.py"], tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("| --- |") > 10
