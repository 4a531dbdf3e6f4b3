"""Loading of weights into a network that is about to be trained.

What was loaded, and what was not, is logged; the functions return it as `InitialWeights`.
"""

import logging
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from pri3d import store
from pri3d.errors import Pri3DError
from pri3d.models.resunet import imagenet_weights
from pri3d.run.folder import WEIGHTS, InitialWeights, is_run, read_run
from pri3d.weights.files import read
from pri3d.weights.formats import BACKBONE3D, Weights, load
from pri3d.weights.networks import (
    COUNTER,
    encoder_name,
    fit,
    grouped,
    grouped_absent,
    minkunet_settings,
    part_of,
    some,
    under,
)

_log = logging.getLogger(__name__)


def load_imagenet_into(
    encoder: nn.Module,
    network2d: str,
    initial_weights: str,
    setting: str,
    part: str = "backbone.encoder",
) -> InitialWeights:
    """Load torchvision's ImageNet weights into an encoder.

    Args:
        encoder: network to fill.
        network2d: its name, as in the setting `network2d`.
        initial_weights: "imagenet", which requires them, or "try_imagenet", which logs a warning
            and leaves the encoder as it is where they are not available.
        setting: name of the setting that `initial_weights` comes from, for messages.
        part: name of the encoder in what is returned.

    Raises:
        Pri3DError: the weights are required and not available.
    """
    try:
        encoder.load_state_dict(imagenet_weights(network2d))
    except Pri3DError as error:
        if initial_weights == "imagenet":
            raise Pri3DError(f"{setting}: {error}") from None
        _log.warning("training begins from RANDOM weights: %s", error)
        return InitialWeights("random", "scratch", "random: ImageNet weights are not available")
    description = "ImageNet (torchvision IMAGENET1K_V1)"
    return InitialWeights("imagenet", "imagenet", description, loaded=(part,))


def load_exactly(network: nn.Module, file: str | Path, part: str) -> InitialWeights:
    """Load a file that has every entry of a network, under the network's own names.

    Entries of the file that the network does not have, such as a classifier, are left out.

    Args:
        network: network to fill.
        file: safetensors, or a file of torch.
        part: name of the network in what is returned.

    Raises:
        Pri3DError: the file cannot be read, lacks an entry, or has one of another shape.
    """
    path = Path(file)
    state = _tensors(path)
    own = network.state_dict()
    missing = [name for name in own if name not in state and not name.endswith(COUNTER)]
    if missing:
        raise Pri3DError(
            f"{path}: lacks {len(missing)} of {len(own)} entries ({some(missing)}); give weights "
            "of this very network"
        )
    wrong = [name for name in own if name in state and state[name].shape != own[name].shape]
    if wrong:
        raise Pri3DError(
            f"{path}: {len(wrong)} entries have other shapes ({some(wrong)}); give weights of this "
            "very network"
        )
    chosen = OrderedDict((n, state[n]) for n in own if n in state)
    # Versions of layers, which files do not have: those of the installed library.
    chosen._metadata = getattr(own, "_metadata", None)  # type: ignore[attr-defined]
    network.load_state_dict(chosen, strict=False)
    left_out = [name for name in state if name not in own]
    loaded = f"{len(chosen)} of {len(own)} entries loaded"
    _log.info("%s", "; ".join([f"{path.name}: {loaded}", *_sentence("left out", left_out)]))
    return _origin(path, f"{path.name}: {loaded}", (part,))


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names, without the prefix of distributed training."""
    content = read(path)
    if not isinstance(content, dict):
        raise Pri3DError(f"{path}: holds no weights; give another file")
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    return {
        name.removeprefix("module."): value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }


def load_file_into(
    network: nn.Module,
    file: str | Path,
    part: str,
    complete: Collection[str] = (),
    setting: str = "network2d",
) -> InitialWeights:
    """Load what a file, in any format that `formats.load` knows, has for a network.

    Args:
        network: a ResUNet or a module that has its `encoder` alone (part "backbone"), or a MinkUNet
            (part "backbone3d"), whose stem and last layer keep their weights where the file has
            them in another size.
        file: the file.
        part: which network of the file it is.
        complete: parts of which the file must have every entry ("backbone.encoder"), or every
            entry or none ("backbone.decoder").
        setting: the setting that determines a 2D network, for messages.

    Raises:
        Pri3DError: the file cannot be read, has nothing for this part, lacks entries of a part in
            `complete`, or holds a network of another depth or width.
    """
    path, prefix = Path(file), f"{part}."
    weights = load(path)
    match = _match(path, network, weights, prefix, setting)
    _check_complete(path, match, complete)
    network.load_state_dict(under(match.usable, prefix), strict=False)
    counts = _loaded_counts(match)
    loaded = ", ".join(
        f"{number} of {total} {name.removeprefix('backbone.')} entries loaded"
        for name, (number, total) in counts.items()
        if number
    )
    sentences = _not_loaded(match, counts, weights, prefix)
    _log.info("%s", "; ".join([f"{path.name}: {loaded}", *sentences]))
    parts = tuple(name for name, (number, _) in counts.items() if number)
    return _origin(path, f"{path.name} ({weights.format}): {loaded}", parts)


class _Match(NamedTuple):
    """Entries under full names: of the network, of the file, and those that fit the network."""

    own: dict[str, Tensor]
    file: dict[str, Tensor]
    usable: dict[str, Tensor]


def _match(path: Path, network: nn.Module, weights: Weights, prefix: str, setting: str) -> _Match:
    own = {prefix + name: value for name, value in network.state_dict().items()}
    in_file = {name: value for name, value in weights.state.items() if name.startswith(prefix)}
    if in_file:
        fit(path, in_file)
        _check_same_network(path, under(own, prefix), under(in_file, prefix), prefix, setting)
    usable = {n: value for n, value in in_file.items() if n in own and own[n].shape == value.shape}
    if not usable:
        raise Pri3DError(
            f"{path}: has nothing for {prefix[:-1]}, only {grouped(list(weights.state))}; give "
            "another file, or random"
        )
    return _Match(own, in_file, usable)


def _check_same_network(
    path: Path, own: dict[str, Tensor], in_file: dict[str, Tensor], prefix: str, setting: str
) -> None:
    """Where only some shapes agree, loading them would mix two networks."""
    if prefix == BACKBONE3D:
        here, there = minkunet_settings(path, own), minkunet_settings(path, in_file)
        for name in ("widths", "blocks"):
            if here[name] != there[name]:
                raise Pri3DError(
                    f"{path}: its 3D network has the {name} {there[name]}, this one {here[name]}; "
                    f"set network3d.{name} to the file's, or give another file"
                )
    elif encoder := under(in_file, "encoder."):
        name, name_in_file = encoder_name(path, under(own, "encoder.")), encoder_name(path, encoder)
        if name != name_in_file:
            raise Pri3DError(
                f"{path}: holds a {name_in_file}, and the network here is a {name}; set {setting} "
                f"to {name_in_file}, or give another file"
            )


def _check_complete(path: Path, match: _Match, complete: Collection[str]) -> None:
    checked = {part_of(name) for name in match.usable} | {"backbone.encoder"}
    missing = [
        name
        for name in match.own
        if part_of(name) in checked.intersection(complete)
        and name not in match.usable
        and not name.endswith(COUNTER)
    ]
    if missing:
        raise Pri3DError(
            f"{path}: lacks {len(missing)} entries of {' and '.join(complete)} ({some(missing)}); "
            "give a file with all of them"
        )


def _loaded_counts(match: _Match) -> dict[str, tuple[int, int]]:
    """Part of the network -> number of its entries that are loaded, and of all its entries."""
    counts = {}
    for part in dict.fromkeys(map(part_of, match.own)):
        entries = [name for name in match.own if part_of(name) == part]
        counts[part] = sum(name in match.usable for name in entries), len(entries)
    return counts


def _not_loaded(
    match: _Match, counts: dict[str, tuple[int, int]], weights: Weights, prefix: str
) -> list[str]:
    """Sentences on entries that only the network or only the file has, and on other shapes."""
    absent = [n for n in match.own if counts[part_of(n)][0] and n not in match.file]
    absent += [
        f"{part.removeprefix('backbone.')} ({total} entries)"
        for part, (number, total) in counts.items()
        if not number
    ]
    other_shape = [
        f"{name.removeprefix(prefix)} {tuple(match.file[name].shape)}, here "
        f"{tuple(match.own[name].shape)}"
        for name in match.file
        if name in match.own and name not in match.usable
    ]
    left_out = [name for name in weights.state if name not in match.own] + weights.left_out
    return [
        *([f"not in the file: {grouped_absent(absent)}"] if absent else []),
        *([f"of another shape: {', '.join(other_shape)}"] if other_shape else []),
        *_sentence("left out", left_out),
    ]


def _sentence(reason: str, names: list[str]) -> list[str]:
    return [f"{reason}: {grouped(names)}"] if names else []


def _origin(path: Path, description: str, loaded: tuple[str, ...]) -> InitialWeights:
    """The record of what was loaded from a file, which may be the weights of a run."""
    file = InitialWeights(
        kind="file",
        name=path.stem,
        description=description,
        file=path.name,
        sha256=store.file_digest(path),
        loaded=loaded,
    )
    if path.name != WEIGHTS or not is_run(path.parent):
        return file
    run = read_run(path.parent)
    return file._replace(
        kind="run",
        name=run.variant or run.name,
        description=f"run {run.name}, {description}",
        mode=run.mode,
        seed=run.settings.seed,
    )
