"""Checks of the folder of a run, `runs/<name>/`; no torch is needed."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pri3d import store
from pri3d.run.folder import (
    METRICS,
    PROVENANCE,
    WEIGHTS,
    InitialWeights,
    Provenance,
    Run,
    read_metrics,
    read_run,
)
from pri3d.verify.checks import check, wrong


def check_run(path: Path, beside: Path) -> list[str]:
    """Check that the weights are finite, all files parse, and inputs that exist are unchanged.

    Args:
        path: folder of the run.
        beside: folder with the artefacts.

    Returns:
        What was checked, one sentence each. Labels of data sets are not compared.

    Raises:
        Pri3DError: something is wrong; it names the file and the first line or tensor.
    """
    run = read_run(path)
    check(run.weights, "the file", run.weights.is_file(), "does not exist; the run is not finished")
    number, tensors = _check_weights(run.weights)
    lines = read_metrics(path)
    complete = (path / METRICS).read_bytes().endswith(b"\n")
    check(path / METRICS, f"line {len(lines) + 1}", complete, "is cut")
    if run.provenance is None:
        raise wrong(path / PROVENANCE, "the file", "does not exist; the run is not finished")
    compared, recorded = _check_inputs(run, run.provenance, beside)
    return [
        f"{number} weights in {tensors} arrays are finite",
        f"{len(lines)} lines of metrics parse",
        f"{compared} of {recorded} inputs exist and have the digests that the run recorded",
        *(
            f"labels of {name} are not compared"
            for name in run.provenance.inputs.get("dataset", ())
        ),
    ]


def _check_weights(path: Path) -> tuple[int, int]:
    """The number of weights, and of the arrays that hold them."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise wrong(path, "the file", f"cannot be read ({error})") from None
    check(path, "the file", len(tensors) > 0, "has no weights")
    for name, values in sorted(tensors.items()):
        check(path, name, np.isfinite(values), "is not finite")
    return sum(values.size for values in tensors.values()), len(tensors)


def _check_inputs(run: Run, provenance: Provenance, beside: Path) -> tuple[int, int]:
    """Compare the inputs that exist; their number, and the number of those recorded."""
    artefacts = _artefacts(provenance, beside)
    compared = 0
    for file, digest in artefacts.items():
        if file.exists():
            same = store.artefact_digest(file) == digest
            check(run.folder / PROVENANCE, str(file), same, "is not the one that was trained on")
            compared += 1
    weights = {network: each for network, each in provenance.initial_weights.items() if each.sha256}
    for network, each in weights.items():
        files = [file for file in _candidates(run, network, each) if file.is_file()]
        if files:
            same = any(store.file_digest(file) == each.sha256 for file in files)
            check(run.folder / PROVENANCE, str(files[0]), same, "is not what the run started from")
            compared += 1
    return compared, len(artefacts) + len(weights)


def _artefacts(provenance: Provenance, beside: Path) -> dict[Path, str]:
    """The artefacts that a run was trained on, with their digests."""
    artefacts = {}
    if "pairs" in provenance.inputs:
        artefacts[beside / "pairs.h5"] = provenance.inputs["pairs"]["digest"]
    for kind in ("clouds", "chunks"):
        for scene, origin in provenance.inputs.get(kind, {}).items():
            artefacts[beside / kind / f"{scene}.h5"] = origin["digest"]
    return artefacts


def _candidates(run: Run, network: str, weights: InitialWeights) -> list[Path]:
    """Where the file of initial weights may be: as recorded, and beside the run."""
    recorded = Path(run.weights_setting(network))
    if weights.kind == "run" and recorded.name != WEIGHTS:
        recorded /= WEIGHTS
    if weights.kind != "run":
        return [recorded]
    return [run.folder.absolute().parent / recorded.parent.name / WEIGHTS, recorded]
