"""Whether a run that is found is the one that is asked for, and where it goes on."""

import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pri3d import code_digest, store
from pri3d.artefacts import CHUNKS, CLOUDS, PAIRS
from pri3d.config import MODES, NAMED_WEIGHTS, Pretrain, used_settings
from pri3d.errors import Pri3DError
from pri3d.pretrain.modes import Samples
from pri3d.pretrain.order import micro_batch_of
from pri3d.run import checkpoint, processes


def made_from(
    pairs: Path,
    samples: Samples,
    mode: str,
    settings: Pretrain,
    held_out: Collection[str],
    ranks: int,
) -> dict[str, Any]:
    """All that determines a run: mode, settings, digests of its inputs and of the code."""
    micro_batch = micro_batch_of(settings, ranks)  # batch norm sees it
    return {
        "mode": mode,
        "settings": settings.model_dump() | {"micro_batch": micro_batch},
        "held_out": sorted(held_out),
        "inputs": _inputs(pairs if "pairs" in MODES[mode].reads else None, samples),
        "weights": {
            name: store.file_digest(Path(file))
            for name in ("initial_weights_2d", "initial_weights_3d", "teacher_weights")
            if name in used_settings(mode)
            and (file := getattr(settings, name)) not in NAMED_WEIGHTS
            and Path(file).is_file()
        },
        "code": code_digest.code_of_mode(mode),
    }


def _inputs(pairs: Path | None, samples: Samples) -> dict[str, Any]:
    """Digests of everything that is trained on, and of what that was made from."""
    clouds = {s: _origin(samples.clouds_dir / f"{s}.h5", CLOUDS) for s in samples.used_scenes()}
    inputs = {"clouds": clouds}
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


def state_to_go_on_from(out: Path, origin: dict[str, Any]) -> dict[str, Any] | None:
    """The newest checkpoint of the run in the folder `out`, if it is the run `origin`.

    A finished run whose weights were removed is no obstacle: they are to be made anew. Code that
    changed under an unfinished run is told, and no reason to lose it. Raises Pri3DError if the run
    is another one.
    """
    folder = out / "checkpoints"
    found = checkpoint.newest(folder)
    steps = processes.gather(found and found[1]["step"])  # nobody removes anything before this
    if len(set(steps)) > 1:
        raise Pri3DError(
            f"{folder}: the processes found checkpoints of different steps ({steps}); the folder "
            "must be one that all machines see"
        )
    if found is None:
        return None
    path, state = found
    before = json.loads(state["made_from"])
    differences = _differences(before, origin)
    finished = state["step"] >= before["settings"]["steps"]
    if before.get("code") != origin["code"]:
        if finished:
            differences.append("the code")
        else:
            print(f"{out}: going on, but with other code than before", file=sys.stderr)
    if not differences:
        return state
    if finished and not (out / "model.safetensors").exists():
        print(f"{out}: beginning anew, changed: {', '.join(differences)}", file=sys.stderr)
        checkpoint.remove_all(folder)
        return None
    raise Pri3DError(
        f"{path}: is of a run that differs in {', '.join(differences)}; put that back to go on, or "
        f"remove {out} to begin anew"
    )


def _differences(before: dict[str, Any], origin: dict[str, Any]) -> list[str]:
    differences = [] if before["mode"] == origin["mode"] else ["the mode"]
    of_no_account = set(Pretrain.model_fields) - used_settings(origin["mode"])
    # Settings that are newer than the run were what their defaults are.
    settings_before = Pretrain().model_dump() | before["settings"]
    settings = checkpoint.changed(settings_before, origin["settings"], of_no_account)
    differences += [f"pretrain.{setting}" for setting in settings]
    if before.get("held_out", origin["held_out"]) != origin["held_out"]:
        differences.append("held_out")
    if before.get("weights", {}) != origin["weights"]:
        differences.append("the weights that it starts from")
    for name in ("pairs", "clouds", "chunks"):
        if before["inputs"].get(name) != origin["inputs"].get(name):
            differences.append(f"the content of {name}")
    return differences
