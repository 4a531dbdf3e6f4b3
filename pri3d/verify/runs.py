"""Checks of the folder of a run, `runs/<name>/`; no torch is needed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pri3d import store
from pri3d.errors import Pri3DError
from pri3d.verify.checks import check, wrong


def check_run(path: Path, beside: Path) -> list[str]:
    """Weights are finite, metrics parse, and the inputs that are still there are those trained on.

    Raises Pri3DError naming the file and the line or tensor at the first thing that is wrong.
    """
    weights = path / "model.safetensors"
    if not weights.exists():
        raise Pri3DError(f"{weights}: no such file; give the folder of a finished run")
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise wrong(weights, "the file", f"cannot be read ({error})") from None
    check(weights, "the file", len(tensors) > 0, "has no weights")
    for name, values in sorted(tensors.items()):
        check(weights, name, np.isfinite(values), "is not finite")
    count = sum(values.size for values in tensors.values())
    _object(path / "settings.json", _text(path / "settings.json"))
    lines = _text(path / "metrics.jsonl").splitlines()
    for number, line in enumerate(lines, 1):
        _object(path / "metrics.jsonl", line, f"line {number}")
    origins = _origins(_object(path / "provenance.json", _text(path / "provenance.json")), beside)
    compared = 0
    for file, digest in origins.items():
        if file.exists():
            same = store.artefact_digest(file) == digest
            check(path / "provenance.json", str(file), same, "is not the one that was trained on")
            compared += 1
    return [
        f"{count} weights in {len(tensors)} arrays are finite",
        f"{len(lines)} lines of metrics parse",
        f"{compared} of {len(origins)} inputs are there and have the digests of the run",
    ]


def _origins(provenance: dict[str, Any], beside: Path) -> dict[Path, str]:
    """The artefacts that the run was trained on, with their digests."""
    origins = {}
    if "pairs" in provenance:
        origins[beside / "pairs.h5"] = provenance["pairs"]["digest"]
    for kind in ("clouds", "chunks"):
        for scene, origin in provenance.get(kind, {}).items():
            origins[beside / kind / f"{scene}.h5"] = origin["digest"]
    return origins


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise wrong(path, "the file", f"cannot be read ({error})") from None


def _object(path: Path, text: str, where: str = "the file") -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise wrong(path, where, "is no JSON object")
    return value
