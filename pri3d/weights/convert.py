"""Converts weights of a run to the formats of other libraries, and theirs to safetensors.

What is exported and imported again has the same names and the same bits.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from pri3d.errors import Pri3DError
from pri3d.models.resunet import ENCODERS
from pri3d.run import checkpoint
from pri3d.run.folder import CHECKPOINTS, WEIGHTS, is_run, read_run
from pri3d.weights.files import plain, write_arrays
from pri3d.weights.formats import BACKBONE3D, ENCODER, Weights, load, recognize, to_detectron2
from pri3d.weights.networks import COUNTER, encoder_name, fit, grouped, grouped_absent, some, under


def import_file(file: str | Path, out: str | Path) -> list[str]:
    """Write the weights of a file, in any known format, as safetensors with full names.

    Returns:
        What was read, and what was not, one line each.

    Raises:
        Pri3DError: the file cannot be read, or its weights are of no known network.
    """
    out = _checked_name(Path(out), "safetensors")
    weights = load(file)
    fitted = fit(file, weights.state)
    for name in fitted.left_out:
        del weights.state[name]
    checkpoint.save_tensors(out, plain(weights.state))
    lines = [f"{file}: {weights.format}, {' and '.join(fitted.networks)}"]
    lines += [f"{part}: {number} of {n} entries" for part, (number, n) in fitted.read.items()]
    if fitted.missing:
        lines.append(f"not in the file: {grouped_absent(fitted.missing)}")
    if fitted.unchecked:
        lines.append(f"copied unchecked: {grouped(fitted.unchecked)}")
    if left_out := fitted.left_out + weights.left_out:
        lines.append(f"left out: {grouped(left_out)}")
    return lines


def export(source: str | Path, out: str | Path, to: str) -> list[str]:
    """Write the weights of a run (its folder) or of a file in one of `FORMATS`.

    Returns:
        What was written, and what was not, one line each.

    Raises:
        Pri3DError: the source cannot be read, lacks a network that the format holds, or the name of
            `out` does not end as readers of the format expect.
    """
    out = _checked_name(Path(out), to)
    weights = _weights_of(Path(source))
    fitted = fit(source, weights.state)
    content, used = FORMATS[to].make(source, weights)
    _write(out, content, to)
    lines = [f"{out}: {to}, {len(used)} entries, {' and '.join(fitted.networks)}"]
    left_out = [name for name in weights.state if name not in used] + weights.left_out
    if left_out:
        lines.append(f"left out: {grouped(left_out)}")
    return lines


def _checked_name(out: Path, to: str) -> Path:
    endings = FORMATS[to].endings
    if out.suffix not in endings:
        raise Pri3DError(
            f"{out}: {to} is read from files that end in {' or '.join(endings)}; rename it"
        )
    return out


def _weights_of(source: Path) -> Weights:
    """The weights of a file, or of a run: the final ones, or those of its newest checkpoint."""
    if not source.is_dir():
        return load(source)
    if (source / WEIGHTS).exists():
        steps = read_run(source).settings.steps if is_run(source) else None
        return load(source / WEIGHTS)._replace(step=steps)
    newest = checkpoint.newest(source / CHECKPOINTS)
    if newest is None:
        raise Pri3DError(
            f"{source}: is no run (neither {WEIGHTS} nor a checkpoint that can be read); give the "
            "folder that `pri3d pretrain` wrote, or a file"
        )
    return recognize(*newest)


def _write(out: Path, content: dict[str, Any], to: str) -> None:
    if to == "safetensors":
        checkpoint.save_tensors(out, content)
    elif to == "detectron2":
        write_arrays(out, content)
    else:
        checkpoint.save_torch(out, content)


def _part(source: str | Path, state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A complete network under names without its prefix."""
    network = under(state, prefix)
    if not network:
        raise Pri3DError(
            f"{source}: has no {prefix[:-1]}, only {grouped(list(state))}; give a run that has one"
        )
    missing = [name for name in fit(source, state).missing if name.startswith(prefix)]
    missing = [name for name in missing if not name.endswith(COUNTER)]
    if missing:
        raise Pri3DError(
            f"{source}: lacks {len(missing)} entries of {prefix[:-1]} ({some(missing)}); give "
            "complete weights"
        )
    return plain(network)


def _encoder(source: str | Path, weights: Weights) -> tuple[dict[str, Any], set[str]]:
    encoder = _part(source, weights.state, ENCODER)
    name = encoder_name(source, encoder)
    if ENCODERS[name].imagenet is None:
        raise Pri3DError(
            f"{source}: holds a {name}, which other libraries lack; export it as published "
            "or safetensors"
        )
    return encoder, {ENCODER + name for name in encoder}


def _detectron2(source: str | Path, weights: Weights) -> tuple[dict[str, Any], set[str]]:
    encoder, used = _encoder(source, weights)
    model = {f"backbone.bottom_up.{to_detectron2(name)}": v for name, v in encoder.items()}
    # Names are complete: detectron2 need not match them by their endings.
    return {"model": model, "__author__": "Pri3D", "matching_heuristics": False}, used


def _published(source: str | Path, weights: Weights) -> tuple[dict[str, Any], set[str]]:
    state = {"step": weights.step, "optimizer": weights.optimizer, "scheduler": None}
    return state | {"model": plain(weights.state)}, set(weights.state)


def _minkowski(source: str | Path, weights: Weights) -> tuple[dict[str, Any], set[str]]:
    network = _part(source, weights.state, BACKBONE3D)
    return {"state_dict": network}, {BACKBONE3D + name for name in network}


def _safetensors(source: str | Path, weights: Weights) -> tuple[dict[str, Any], set[str]]:
    return plain(weights.state), set(weights.state)


class Format(NamedTuple):
    """A format of files. make: (source, weights) -> (content, names of the entries used). endings:
    of the file names that its readers accept.
    """

    make: Callable[[str | Path, Weights], tuple[dict[str, Any], set[str]]]
    endings: tuple[str, ...]


FORMATS = {
    "torchvision": Format(_encoder, (".pth", ".pt")),
    "timm": Format(_encoder, (".pth", ".pt")),
    "detectron2": Format(_detectron2, (".pkl",)),
    "published": Format(_published, (".pth", ".pt")),
    "minkowski": Format(_minkowski, (".pth", ".pt")),
    "safetensors": Format(_safetensors, (".safetensors",)),
}
