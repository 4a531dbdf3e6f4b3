"""Weights from a file into a network that is about to be trained."""

import sys
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pri3d import store
from pri3d.errors import Pri3DError
from pri3d.weights.forms import BACKBONE3D, load
from pri3d.weights.networks import (
    COUNTER,
    encoder_name,
    grouped,
    minkunet_settings,
    part_of,
    some,
    under,
)


def load_file_into(network: nn.Module, file: str | Path, part: str) -> str:
    """Load what a file, in any form that `load` knows, has for a network.

    part: "backbone" for a ResUNet, or a module that has its `encoder` alone; "backbone3d" for a
    MinkUNet, whose stem and last layer may be of another size than the file's and then keep what
    they have. What was loaded and what not goes to stderr; returned is the same in short, with the
    file's SHA-256. Raises Pri3DError when the file cannot be read, has nothing for this part, or is
    of a network of another depth or width.
    """
    path = Path(file)
    weights = load(path)
    own, found = network.state_dict(), under(weights.state, f"{part}.")
    if not found:
        raise Pri3DError(
            f"{path}: has nothing for {part}, only {grouped(list(weights.state))}; give another "
            "file, or random"
        )
    _check_same_network(path, own, found, part)
    other = [name for name in found if name in own and found[name].shape != own[name].shape]
    wrong = [f"{n} {tuple(found[n].shape)}, not {tuple(own[n].shape)}" for n in other]
    fits = {name: value for name, value in found.items() if name in own and name not in other}
    if not any(value.is_floating_point() for value in fits.values()):
        raise Pri3DError(f"{path}: nothing of it fits {part} ({some(wrong)}); give another file")
    network.load_state_dict(fits, strict=False)

    loaded, absent = [], []
    for name in dict.fromkeys(part_of(f"{part}.{key}") for key in own):
        keys = [key for key in own if part_of(f"{part}.{key}") == name]
        had = sum(key in fits for key in keys)
        label = name.removeprefix("backbone.")
        if had:
            loaded.append(f"{had} of {len(keys)} {label} entries loaded")
        if any(key in found for key in keys):
            absent += [f"{part}.{key}" for key in keys if key not in found]
        else:
            absent.append(f"{label} ({len(keys)} entries)")
    unused = [f"{part}.{key}" for key in found if key not in own]
    unused += [name for name in weights.state if not name.startswith(f"{part}.")]
    said = "; ".join(
        [
            ", ".join(loaded),
            *([f"not in the file: {_listed(absent)}"] if absent else []),
            *([f"of another shape: {'; '.join(wrong)}"] if wrong else []),
            *(
                [f"left out: {grouped(unused + weights.left_out)}"]
                if unused + weights.left_out
                else []
            ),
        ]
    )
    print(f"{path.name}: {said}", file=sys.stderr)
    return f"{path.name} ({weights.form}), SHA-256 {store.file_digest(path)}: {', '.join(loaded)}"


def _listed(absent: list[str]) -> str:
    parts = [name for name in absent if name.endswith("entries)")]
    names = grouped([name for name in absent if name not in parts])
    return ", ".join([*parts, *([names] if names else [])])


def _check_same_network(
    path: Path, own: dict[str, Any], found: dict[str, Tensor], part: str
) -> None:
    """Where only some shapes agree, loading those would leave a network of two minds."""
    if part + "." == BACKBONE3D:
        here, there = (minkunet_settings(path, state) for state in (own, found))
        for what, setting in (("widths", "width3d"), ("blocks", "blocks3d")):
            if here[what] != there[what]:
                raise Pri3DError(
                    f"{path}: its 3D network has the {what} {there[what]}, this one {here[what]}; "
                    f"set pretrain.{setting} to them, or give another file"
                )
    elif encoder := under(found, "encoder."):
        here, there = encoder_name(path, under(own, "encoder.")), encoder_name(path, encoder)
        if here != there:
            raise Pri3DError(
                f"{path}: holds a {there}, and the network here is a {here}; set pretrain.net2d to "
                f"{there}, or give another file"
            )
