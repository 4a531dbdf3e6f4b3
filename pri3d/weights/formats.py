"""The forms in which weights are found, told by their names, and the names that they have here.

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

# What stands before a ResNet's names, and whose file it then is.
_RESNETS = {
    "": "a ResNet as in torchvision and timm",
    "encoder_q.": "MoCo",
    "backbone.": "a ResNet of a larger network",
    "backbone.body.": "a detector of torchvision",
}
_RESNET_NAME = re.compile(r"(conv1|bn1|layer[1-4])\.")
_DETECTRON2 = ("backbone.bottom_up.", "backbone.", "")

# Names of ResNets here and in detectron2, whose batch norms belong to their convolutions and whose
# stages are counted with the stem.
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
    """What a file holds: tensors by their full names, names in the file that are no part of them,
    and what a training needs to go on (None where the file does not say).
    """

    format: str
    state: dict[str, Tensor]
    left_out: list[str]
    step: int | None
    optimizer: Any


def load(path: str | Path) -> Weights:
    """Weights in any format that is known. Raises Pri3DError when they cannot be read or are none."""
    return recognize(path, read(Path(path)))


def recognize(path: str | Path, content: Any) -> Weights:
    """The weights in what was read from a file; the path is for messages.

    Raises Pri3DError when nothing in it is known.
    """
    held = content if isinstance(content, dict) else {}
    for key in ("model", "state_dict"):
        if isinstance(held.get(key), dict):
            held = held[key]
            break
    state = {name: value.detach() for name, value in held.items() if isinstance(value, Tensor)}
    others = [str(name) for name in held if name not in state]
    if state and all(name.startswith("module.") for name in state):  # written under DDP
        state = {name.removeprefix("module."): value for name, value in state.items()}

    format, renamed = _renamed(state, str(content.get("__author__", "")) if state else "")
    if not renamed:
        names = ", ".join(list(state)[:3]) or "no tensors"
        raise Pri3DError(
            f"{path}: no weights whose names are known ({names}); give a checkpoint of Pri3D or of "
            "PointContrast's family, or a ResNet of torchvision, timm, MoCo or detectron2"
        )
    found = {renamed[name]: value for name, value in state.items() if name in renamed}
    left_out = others + [name for name in state if name not in renamed]
    step = content.get("step")
    step = step if isinstance(step, int) else None
    return Weights(format, found, left_out, step, content.get("optimizer"))


def _renamed(state: dict[str, Tensor], author: str) -> tuple[str, dict[str, str]]:
    """The format of weights, and name -> full name of those that belong to a network of ours."""
    if any(name.startswith((ENCODER, BACKBONE3D)) for name in state):
        return "Pri3D", {name: name for name in state}
    if "conv0p1s1.kernel" in state:
        return "a MinkUNet", {name: BACKBONE3D + name for name in state}
    for prefix, format in _RESNETS.items():
        if prefix + "layer1.0.conv1.weight" in state:
            return format, {
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
            format = f"detectron2, by {author}" if author else "detectron2"
            return format, {name: ENCODER + value for name, value in new.items() if value}
    return "", {}


def to_detectron2(name: str) -> str:
    """detectron2's name, without `backbone.bottom_up.`, of an entry of torchvision's ResNet."""
    return _stages_moved(name, _TO_DETECTRON2, 1)


def from_detectron2(name: str) -> str | None:
    """torchvision's name of an entry of detectron2's ResNet; None where there is none."""
    return _stages_moved(name, _FROM_DETECTRON2, -1)


def _stages_moved(name: str, rules: tuple[tuple[str, str], ...], by: int) -> str | None:
    for pattern, replacement in rules:
        if match := re.fullmatch(pattern, name):
            new = match.expand(replacement)
            return re.sub(r"^(res|layer)(\d)", lambda m: f"{m[1]}{int(m[2]) + by}", new)
    return None
