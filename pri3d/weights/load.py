"""Weights from a file into a network that is about to be trained."""

import sys
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pri3d import store
from pri3d.errors import Pri3DError
from pri3d.models.resunet import imagenet_weights
from pri3d.weights.files import read
from pri3d.weights.formats import BACKBONE3D, load
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


def load_imagenet_into(encoder: nn.Module, network2d: str, init: str, setting: str) -> str:
    """Load torchvision's ImageNet weights into an encoder, and say what it starts from.

    init: "imagenet", which insists on them, or "try_imagenet", which warns on stderr and leaves the
    encoder as it is; setting: where it was read, for the Pri3DError of the former.
    """
    try:
        encoder.load_state_dict(imagenet_weights(network2d))
    except Pri3DError as error:
        if init == "imagenet":
            raise Pri3DError(f"{setting}: {error}") from None
        print(f"pri3d: starting from RANDOM weights: {error}", file=sys.stderr)
        return "random: ImageNet weights could not be had"
    return "ImageNet (torchvision IMAGENET1K_V1)"


def load_exactly(network: nn.Module, file: str | Path) -> str:
    """Load a file that has every entry of a network under its own names, and say what it was.

    Entries that the network does not have (a classifier, say) are told on stderr and left out.
    Raises Pri3DError when the file cannot be read, lacks an entry, or one has another shape.
    """
    path = Path(file)
    state = read(path)
    if isinstance(state, dict):
        state = next(
            (s for k in ("state_dict", "model") if isinstance(s := state.get(k), dict)), state
        )
        state = {
            name.removeprefix("module."): value  # of files written in several processes
            for name, value in state.items()
            if isinstance(value, Tensor)
        }
    own = network.state_dict()
    if not isinstance(state, dict):
        raise Pri3DError(f"{path}: holds no weights; give another file")
    lacking = [name for name in own if name not in state and not name.endswith(COUNTER)]
    if lacking:
        raise Pri3DError(
            f"{path}: lacks {len(lacking)} of {len(own)} entries ({some(lacking)}); give weights "
            "of this very network"
        )
    wrong = [name for name in own if name in state and state[name].shape != own[name].shape]
    if wrong:
        raise Pri3DError(
            f"{path}: {len(wrong)} entries have other shapes ({some(wrong)}); give weights of this "
            "very network"
        )
    chosen = OrderedDict((n, state[n]) for n in own if n in state)
    # Versions of layers, which files do not have: it is of this version of the library.
    chosen._metadata = getattr(own, "_metadata", None)
    network.load_state_dict(chosen, strict=False)
    left_out = [name for name in state if name not in own]
    print(
        f"{path.name}: {sum(name in state for name in own)} of {len(own)} entries loaded",
        *([f"left out: {grouped(left_out)}"] if left_out else []),
        sep="; ",
        file=sys.stderr,
    )
    return f"{path.name}, SHA-256 {store.file_digest(path)}: all {len(own)} entries loaded"


def load_file_into(
    network: nn.Module,
    file: str | Path,
    part: str,
    whole: Collection[str] = (),
    section: str = "pretrain",
    named: str | None = None,
) -> str:
    """Load what a file, in any form that `load` knows, has for a network.

    part: "backbone" for a ResUNet, or a module that has its `encoder` alone; "backbone3d" for a
    MinkUNet, whose stem and last layer may be of another size than the file's and then keep what
    they have. whole: parts of which the file must have every entry ("backbone.encoder"), or every
    or none ("backbone.decoder"). section: of the settings, whose network2d or width3d a message names;
    named: another setting in place of network2d. What was loaded and what not goes to stderr; returned
    is the first in short, with the file's SHA-256. Raises Pri3DError when the file cannot be read,
    has nothing for this part, or is of a network of another depth or width.
    """
    path, prefix = Path(file), f"{part}."
    weights = load(path)
    own = {prefix + name: value for name, value in network.state_dict().items()}
    found = {name: value for name, value in weights.state.items() if name.startswith(prefix)}
    if found:
        fit(path, found)
        _check_same_network(path, under(own, prefix), under(found, prefix), part, section, named)
    shaped = {n: value for n, value in found.items() if n in own and own[n].shape == value.shape}
    if not shaped:
        raise Pri3DError(
            f"{path}: has nothing for {part}, only {grouped(list(weights.state))}; give another "
            "file, or random"
        )
    there = {part_of(name) for name in shaped} | {"backbone.encoder"}
    lacking = [
        name
        for name in own
        if part_of(name) in there.intersection(whole)
        and name not in shaped
        and not name.endswith(COUNTER)
    ]
    if lacking:
        raise Pri3DError(
            f"{path}: lacks {len(lacking)} entries of {' and '.join(whole)} ({some(lacking)}); "
            "give a file with all of them"
        )
    network.load_state_dict(under(shaped, prefix), strict=False)

    loaded, absent, wrong = [], [], []
    for name in dict.fromkeys(map(part_of, own)):
        entries, label = (
            [key for key in own if part_of(key) == name],
            name.removeprefix("backbone."),
        )
        had = sum(key in shaped for key in entries)
        if had:
            loaded.append(f"{had} of {len(entries)} {label} entries loaded")
            absent += [key for key in entries if key not in found]
        else:
            absent.append(f"{label} ({len(entries)} entries)")
    for name in found:
        if name in own and name not in shaped:
            shapes = (tuple(state[name].shape) for state in (found, own))
            wrong.append("{} {}, here {}".format(name.removeprefix(prefix), *shapes))
    left_out = [name for name in weights.state if name not in own] + weights.left_out
    print(
        f"{path.name}: {', '.join(loaded)}",
        *([f"not in the file: {grouped_absent(absent)}"] if absent else []),
        *([f"of another shape: {', '.join(wrong)}"] if wrong else []),
        *([f"left out: {grouped(left_out)}"] if left_out else []),
        sep="; ",
        file=sys.stderr,
    )
    return f"{path.name} ({weights.form}), SHA-256 {store.file_digest(path)}: {', '.join(loaded)}"


def _check_same_network(
    path: Path,
    own: dict[str, Any],
    found: dict[str, Tensor],
    part: str,
    section: str,
    named: str | None,
) -> None:
    """Where only some shapes agree, loading those would mix two networks."""
    if part + "." == BACKBONE3D:
        here, there = (minkunet_settings(path, state) for state in (own, found))
        for what in ("widths", "blocks"):
            if here[what] != there[what]:
                raise Pri3DError(
                    f"{path}: its 3D network has the {what} {there[what]}, this one {here[what]}; "
                    f"set network3d.{what} to the file's, or give another file"
                )
    elif encoder := under(found, "encoder."):
        here, there = encoder_name(path, under(own, "encoder.")), encoder_name(path, encoder)
        if here != there:
            raise Pri3DError(
                f"{path}: holds a {there}, and the network here is a {here}; set "
                f"{named or 'network2d'} to {there}, or give another file"
            )
