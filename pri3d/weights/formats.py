"""The formats of weight files, inferred from the names of their tensors, and the names used here.

Full names are those of Pri3D's published checkpoints: `backbone.encoder.*` (torchvision's ResNet),
`backbone.decoder.*`, `backbone3d.*` (MinkowskiEngine's MinkUNet), `w2d.*`, `w3d.*`.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from pri3d.errors import Pri3DError
from pri3d.weights.files import read

ENCODER, BACKBONE3D = "backbone.encoder.", "backbone3d."

# Prefix of a ResNet's names -> the format of the file.
_RESNETS = {
    "": "a ResNet as in torchvision and timm",
    "encoder_q.": "MoCo",
    "backbone.": "a ResNet of a larger network",
    "backbone.body.": "a detector of torchvision",
}
_RESNET_NAME = re.compile(r"(conv1|bn1|layer[1-4])\.")
_DETECTRON2 = ("backbone.bottom_up.", "backbone.", "")

# Names of ResNets here and in detectron2, where batch norms belong to their convolutions and the
# stem counts as a stage.
_TO_DETECTRON2 = (
    (r"conv1\.(.*)", r"stem.conv1.\1"),
    (r"bn1\.(.*)", r"stem.conv1.norm.\1"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.(.*)", r"res\1.\2.conv\3.\4"),
    (r"layer(\d)\.(\d+)\.bn(\d)\.(.*)", r"res\1.\2.conv\3.norm.\4"),
    (r"layer(\d)\.(\d+)\.downsample\.0\.(.*)", r"res\1.\2.shortcut.\3"),
    (r"layer(\d)\.(\d+)\.downsample\.1\.(.*)", r"res\1.\2.shortcut.norm.\3"),
)
_FROM_DETECTRON2 = (
    (r"stem\.conv1\.norm\.(.*)", r"bn1.\1"),
    (r"stem\.conv1\.(weight)", r"conv1.\1"),
    (r"res(\d)\.(\d+)\.conv(\d)\.norm\.(.*)", r"layer\1.\2.bn\3.\4"),
    (r"res(\d)\.(\d+)\.conv(\d)\.(weight)", r"layer\1.\2.conv\3.\4"),
    (r"res(\d)\.(\d+)\.shortcut\.norm\.(.*)", r"layer\1.\2.downsample.1.\3"),
    (r"res(\d)\.(\d+)\.shortcut\.(weight)", r"layer\1.\2.downsample.0.\3"),
)


class Weights(NamedTuple):
    """The content of a file of weights.

    format: name of the format. state: tensors by their full names. left_out: names of other
    entries. step, optimizer: of the training, None where the file lacks them.
    """

    format: str
    state: dict[str, Tensor]
    left_out: list[str]
    step: int | None
    optimizer: Any


def load(path: str | Path) -> Weights:
    """Weights in any known format.

    Raises:
        Pri3DError: the file cannot be read, or holds no weights with known names.
    """
    return recognize(path, read(Path(path)))


def recognize(path: str | Path, content: Any) -> Weights:
    """The weights in the content of a file.

    Args:
        path: of the file, for messages.
        content: of the file, as `files.read` returns it.

    Raises:
        Pri3DError: none of its names is known.
    """
    entries = content if isinstance(content, dict) else {}
    for key in ("model", "state_dict"):
        if isinstance(entries.get(key), dict):
            entries = entries[key]
            break
    state = {name: value.detach() for name, value in entries.items() if isinstance(value, Tensor)}
    others = [str(name) for name in entries if name not in state]
    if state and all(name.startswith("module.") for name in state):  # written under DDP
        state = {name.removeprefix("module."): value for name, value in state.items()}

    name_of_format, renamed = _renamed(state, str(content.get("__author__", "")) if state else "")
    if not renamed:
        names = ", ".join(list(state)[:3]) or "no tensors"
        raise Pri3DError(
            f"{path}: no weights whose names are known ({names}); give a checkpoint of Pri3D or of "
            "PointContrast's family, or a ResNet of torchvision, timm, MoCo or detectron2"
        )
    known = {renamed[name]: value for name, value in state.items() if name in renamed}
    left_out = others + [name for name in state if name not in renamed]
    step = content.get("step")
    step = step if isinstance(step, int) else None
    return Weights(
        format=name_of_format,
        state=known,
        left_out=left_out,
        step=step,
        optimizer=content.get("optimizer"),
    )


def _renamed(state: dict[str, Tensor], author: str) -> tuple[str, dict[str, str]]:
    """The format of weights, and name -> full name of the entries of networks of this package."""
    if any(name.startswith((ENCODER, BACKBONE3D)) for name in state):
        return "Pri3D", {name: name for name in state}
    if "conv0p1s1.kernel" in state:
        return "a MinkUNet", {name: BACKBONE3D + name for name in state}
    for prefix, library in _RESNETS.items():
        if prefix + "layer1.0.conv1.weight" in state:
            return library, {
                name: ENCODER + name.removeprefix(prefix)
                for name in state
                if name.startswith(prefix) and _RESNET_NAME.match(name.removeprefix(prefix))
            }
    for prefix in _DETECTRON2:
        if prefix + "res2.0.conv1.weight" in state:
            new = {
                name: from_detectron2(name.removeprefix(prefix))
                for name in state
                if name.startswith(prefix)
            }
            library = f"detectron2, by {author}" if author else "detectron2"
            return library, {name: ENCODER + value for name, value in new.items() if value}
    return "", {}


def to_detectron2(name: str) -> str | None:
    """detectron2's name, without `backbone.bottom_up.`, of an entry of torchvision's ResNet; None
    where it has no counterpart.
    """
    return _renamed_entry(name, _TO_DETECTRON2, stage_offset=1)


def from_detectron2(name: str) -> str | None:
    """torchvision's name of an entry of detectron2's ResNet; None where it has no counterpart."""
    return _renamed_entry(name, _FROM_DETECTRON2, stage_offset=-1)


def _renamed_entry(name: str, rules: tuple[tuple[str, str], ...], stage_offset: int) -> str | None:
    """A name by the first rule that matches, with another number of its stage."""
    for pattern, replacement in rules:
        if match := re.fullmatch(pattern, name):
            new = match.expand(replacement)
            return re.sub(r"^(res|layer)(\d)", lambda m: f"{m[1]}{int(m[2]) + stage_offset}", new)
    return None
