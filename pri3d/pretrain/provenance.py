"""What determines a pretraining run: its settings and, by digest, its inputs and its code."""

import json
from pathlib import Path
from typing import Any

from pri3d import store
from pri3d.artefacts import CHUNKS, CLOUDS, PAIRS
from pri3d.code_digest import code_of_mode
from pri3d.config import MODES, Pretrain
from pri3d.errors import Pri3DError
from pri3d.pretrain.initial_weights import weights_digests
from pri3d.pretrain.modes import Samples
from pri3d.run.batches import micro_batch_of
from pri3d.run.identity import Identity


def run_identity(
    pairs: Path, samples: Samples, mode: str, settings: Pretrain, ranks: int
) -> Identity:
    """All that determines a run.

    Args:
        pairs: `pairs.h5`, for modes that read it.
        samples: of the run.
        mode: a key of MODES.
        settings: of the mode.
        ranks: number of processes, on which the micro-batch depends.

    Raises:
        Pri3DError: an input is missing or damaged, or the inputs do not belong together.
    """
    micro_batch = micro_batch_of(settings, ranks)  # batch norm sees it
    return Identity(
        kind="pretrain",
        name=mode,
        settings=settings.model_copy(update={"micro_batch": micro_batch}),
        inputs=_inputs(pairs if "pairs" in MODES[mode].reads else None, samples),
        weights=weights_digests(mode, settings),
        code=code_of_mode(mode),
    )


def _inputs(pairs: Path | None, samples: Samples) -> dict[str, Any]:
    """Digests of the artefacts that are trained on, and of what they were made from."""
    clouds = {s: _origin(samples.clouds_dir / f"{s}.h5", CLOUDS) for s in samples.used_scenes()}
    inputs: dict[str, Any] = {"clouds": clouds}
    if pairs is not None:
        inputs = {"pairs": _origin(pairs, PAIRS), **inputs}
    if samples.chunks_dir is not None:
        inputs["chunks"] = {}
        for scene in clouds:
            path = samples.chunks_dir / f"{scene}.h5"
            inputs["chunks"][scene] = _origin(path, CHUNKS)
            if inputs["chunks"][scene]["inputs"].get("clouds") != clouds[scene]["digest"]:
                raise Pri3DError(
                    f"{path}: was made from other clouds than {samples.clouds_dir / path.name}; "
                    "run chunks again"
                )
    return inputs


def _origin(path: Path, format: str) -> dict[str, Any]:
    with store.open_artefact(path, format) as file:
        return {"digest": str(file.attrs["digest"]), "inputs": json.loads(file.attrs["inputs"])}
