"""Weights of a run into the forms of other libraries, and theirs into safetensors with full names.

What is exported and imported again has the same names and the same bits.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from pri3d.errors import Pri3DError
from pri3d.models.resunet import ENCODERS
from pri3d.run import checkpoint
from pri3d.weights.files import plain, write_arrays
from pri3d.weights.formats import BACKBONE3D, ENCODER, Weights, load, recognize, to_detectron2
from pri3d.weights.networks import COUNTER, encoder_name, fit, grouped, grouped_absent, some, under


def import_file(file: str | Path, out: str | Path) -> list[str]:
    """Write the weights of a file, in any form that is known, as safetensors with full names.

    Returns what was read and what not, a line each. Raises Pri3DError when the file cannot be read,
    has no weights that are known, or when their shapes are not those of their networks.
    """
    out = _checked_name(Path(out), "safetensors")
    weights = load(file)
    found = fit(file, weights.state)
    for name in found.left_out:
        del weights.state[name]
    checkpoint.save_tensors(out, plain(weights.state))
    lines = [f"{file}: {weights.format}, {' and '.join(found.networks)}"]
    lines += [f"{part}: {had} of {n} entries" for part, (had, n) in found.read.items()]
    if found.missing:
        lines.append(f"not in the file: {grouped_absent(found.missing)}")
    for what, names in (
        ("taken over unchecked", found.unchecked),
        ("left out", found.left_out + weights.left_out),
    ):
        if names:
            lines.append(f"{what}: {grouped(names)}")
    return lines


def export(source: str | Path, out: str | Path, to: str) -> list[str]:
    """Write the weights of a run (its folder) or of a file in one of `FORMS`.

    Returns what was written and what not, a line each. Raises Pri3DError when the source cannot be
    read, when it lacks what the form holds, and when the name of the file to be written does not
    end as the form's readers ask.
    """
    out = _checked_name(Path(out), to)
    weights = _weights_of(Path(source))
    found = fit(source, weights.state)
    content, used = FORMS[to].make(source, weights)
    _write(out, content, to)
    lines = [f"{out}: {to}, {len(used)} entries, {' and '.join(found.networks)}"]
    left_out = [name for name in weights.state if name not in used] + weights.left_out
    if left_out:
        lines.append(f"left out: {grouped(left_out)}")
    return lines


def _checked_name(out: Path, form: str) -> Path:
    endings = FORMS[form].endings
    if out.suffix not in endings:
        raise Pri3DError(
            f"{out}: {form} is read from files that end in {' or '.join(endings)}; name it so"
        )
    return out


def _weights_of(source: Path) -> Weights:
    """The final weights of a run, else those of its newest checkpoint; or those of a file."""
    if not source.is_dir():
        return load(source)
    final, settings = source / "model.safetensors", source / "settings.json"
    if final.exists():
        weights = load(final)
        steps = json.loads(settings.read_text())["steps"] if settings.exists() else None
        return weights._replace(step=steps)
    found = checkpoint.newest(source / "checkpoints")
    if found is None:
        raise Pri3DError(
            f"{source}: is no run (neither model.safetensors nor a checkpoint that can be read); "
            "give the folder that `pri3d pretrain` wrote, or a file"
        )
    return recognize(*found)


def _write(out: Path, content: dict[str, Any], to: str) -> None:
    if to == "safetensors":
        checkpoint.save_tensors(out, content)
    elif to == "detectron2":
        write_arrays(out, content)
    else:
        checkpoint.save_torch(out, content)


def _part(source: str | Path, state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A network that is to stand alone, without its prefix; it must be there, and whole."""
    found = under(state, prefix)
    if not found:
        raise Pri3DError(
            f"{source}: has no {prefix[:-1]}, only {grouped(list(state))}; give a run that has one"
        )
    missing = [name for name in fit(source, state).missing if name.startswith(prefix)]
    missing = [name for name in missing if not name.endswith(COUNTER)]
    if missing:
        raise Pri3DError(
            f"{source}: lacks {len(missing)} entries of {prefix[:-1]} ({some(missing)}); give "
            "whole weights"
        )
    return plain(found)


def _encoder(source: str | Path, weights: Weights) -> tuple[dict[str, Any], set[str]]:
    encoder = _part(source, weights.state, ENCODER)
    name = encoder_name(source, encoder)
    if ENCODERS[name][0] is None:
        raise Pri3DError(
            f"{source}: holds a {name}, which other libraries do not have; export it as published "
            "or safetensors"
        )
    return encoder, {ENCODER + name for name in encoder}


def _detectron2(source: str | Path, weights: Weights) -> tuple[dict[str, Any], set[str]]:
    encoder, used = _encoder(source, weights)
    model = {"backbone.bottom_up." + to_detectron2(name): v for name, v in encoder.items()}
    # Names are whole, so that detectron2 need not guess by their endings.
    return {"model": model, "__author__": "Pri3D", "matching_heuristics": False}, used


def _published(source: str | Path, weights: Weights) -> tuple[dict[str, Any], set[str]]:
    about = {"step": weights.step, "optimizer": weights.optimizer, "scheduler": None}
    return about | {"model": plain(weights.state)}, set(weights.state)


def _minkowski(source: str | Path, weights: Weights) -> tuple[dict[str, Any], set[str]]:
    network = _part(source, weights.state, BACKBONE3D)
    return {"state_dict": network}, {BACKBONE3D + name for name in network}


def _safetensors(source: str | Path, weights: Weights) -> tuple[dict[str, Any], set[str]]:
    return plain(weights.state), set(weights.state)


class Form(NamedTuple):
    """How a form's content is made, (source, weights) -> (content, names used), and how the files
    end that its readers take.
    """

    make: Callable[[str | Path, Weights], tuple[dict[str, Any], set[str]]]
    endings: tuple[str, ...]


FORMS = {
    "torchvision": Form(_encoder, (".pth", ".pt")),
    "timm": Form(_encoder, (".pth", ".pt")),
    "detectron2": Form(_detectron2, (".pkl",)),
    "published": Form(_published, (".pth", ".pt")),
    "minkowski": Form(_minkowski, (".pth", ".pt")),
    "safetensors": Form(_safetensors, (".safetensors",)),
}
