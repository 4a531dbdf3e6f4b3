"""Infers the networks from the names and shapes of tensors, and checks that they fit."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pri3d.errors import Pri3DError
from pri3d.models.heads import ProjectionHeads
from pri3d.models.minkunet import minkunet
from pri3d.models.resunet import ENCODERS, resunet
from pri3d.weights.formats import BACKBONE3D, ENCODER

COUNTER = "num_batches_tracked"  # of batch norm; its value is not used here
_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
}
_HALF = 32  # channels of the first convolution

Shapes = dict[str, tuple[int, ...]]


class Fit(NamedTuple):
    """How weights compare with the networks that they belong to.

    networks: descriptions for people. read: part -> number of its entries in the file, and in the
    network. missing: names that a network has and the file lacks. left_out: names in the file that
    the network of their part does not have. unchecked: names of parts that are no network of this
    package.
    """

    networks: list[str]
    read: dict[str, tuple[int, int]]
    missing: list[str]
    left_out: list[str]
    unchecked: list[str]


def fit(path: str | Path, state: dict[str, Tensor]) -> Fit:
    """Compare weights under full names with their networks.

    A part of a network of which the file has no entry is not missing.

    Args:
        path: of the file, for messages.
        state: tensors by their full names.

    Raises:
        Pri3DError: the network is not known, or an entry has another shape than in it.
    """
    networks, shapes = _networks(path, state)
    wrong = [
        f"{name} {tuple(state[name].shape)}, not {shape}"
        for name, shape in shapes.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if wrong:
        raise Pri3DError(
            f"{path}: {len(wrong)} entries have other shapes than in {' and '.join(networks)} "
            f"({some(wrong)}); give weights of that network"
        )
    present = Counter(part_of(name) for name in shapes if name in state)
    expected = Counter(part_of(name) for name in shapes)
    others = [name for name in state if name not in shapes]
    known = [n for n in others if part_of(n) in expected or n.startswith("backbone.")]
    return Fit(
        networks=networks,
        read={part: (present[part], expected[part]) for part in expected if present[part]},
        missing=[name for name in shapes if name not in state and present[part_of(name)]],
        left_out=known,
        unchecked=[name for name in others if name not in known],
    )


def part_of(name: str) -> str:
    """`backbone.encoder`, `backbone.decoder`, or the first word of a full name."""
    words = name.split(".")
    return ".".join(words[:2]) if words[0] == "backbone" else words[0]


def under(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The entries whose names begin with a prefix, without it."""
    return {n.removeprefix(prefix): value for n, value in state.items() if n.startswith(prefix)}


def _networks(path: str | Path, state: dict[str, Tensor]) -> tuple[list[str], Shapes]:
    networks: list[str] = []
    shapes: Shapes = {}
    channels: dict[str, int] = {}
    if encoder := under(state, ENCODER):
        name = encoder_name(path, encoder)
        with torch.device("meta"):
            unet = resunet(name)
        networks.append(name)
        shapes |= _shapes(unet, "backbone.")
        channels["w2d"] = unet.channels
    if backbone3d := under(state, BACKBONE3D):
        settings = minkunet_settings(path, backbone3d)
        with torch.device("meta"):
            sparse_unet = minkunet(**settings)
        networks.append(f"a MinkUNet of {settings['blocks']} blocks")
        shapes |= _shapes(sparse_unet, BACKBONE3D)
        channels["w3d"] = sparse_unet.channels
    if "w2d" in channels:  # the heads of a 3D network alone are of other kinds
        weights = [state[name] for name in ("w2d.weight", "w3d.weight") if name in state]
        projection_channels = [len(weights[0])] if weights and weights[0].ndim else []
        with torch.device("meta"):
            heads = ProjectionHeads(channels["w2d"], channels.get("w3d", 1), *projection_channels)
        shapes |= {n: s for n, s in _shapes(heads, "").items() if n.split(".")[0] in channels}
    return networks, shapes


def _shapes(network: torch.nn.Module, prefix: str) -> Shapes:
    return {prefix + name: tuple(value.shape) for name, value in network.state_dict().items()}


def encoder_name(path: str | Path, names: dict[str, Tensor]) -> str:
    """The key of ENCODERS whose network has entries of these names (`layer1.0.conv1.weight` ...).

    Raises:
        Pri3DError: no encoder has them.
    """
    convolutions = [name.split(".") for name in names if name.endswith(".conv1.weight")]
    per_stage = Counter(words[0] for words in convolutions if len(words) == 4)
    blocks = tuple(per_stage[f"layer{stage}"] for stage in range(1, 5))
    bottleneck = "layer1.0.conv3.weight" in names
    if (bottleneck, blocks) not in _RESNETS:
        kind = "bottleneck" if bottleneck else "basic"
        raise Pri3DError(
            f"{path}: holds a ResNet of {blocks} {kind} blocks; the encoders here are "
            f"{', '.join(ENCODERS)}"
        )
    name = _RESNETS[bottleneck, blocks]
    if name == "resnet18" and "conv1.weight" in names and len(names["conv1.weight"]) == _HALF:
        return "resnet18_half"
    return name


def minkunet_settings(path: str | Path, state: dict[str, Tensor]) -> dict[str, Any]:
    """The arguments of `minkunet` for a network with the widths and blocks of these weights.

    Raises:
        Pri3DError: the weights lack a convolution that determines them.
    """
    blocks = Counter(
        name.split(".")[0]
        for name in state
        if name.startswith("block") and name.endswith(".conv1.kernel")
    )
    try:
        _, in_channels, _ = state["conv0p1s1.kernel"].shape
        kernel = round(len(state["conv0p1s1.kernel"]) ** (1 / 3))
        widths = [state[f"block{i}.0.conv1.kernel"].shape[2] for i in range(1, 9)]
        out_channels = state["final.kernel"].shape[-1]
    except (KeyError, IndexError, ValueError):
        raise Pri3DError(
            f"{path}: its 3D network lacks convolutions of a MinkUNet of eight stages; give "
            "weights of one"
        ) from None
    return {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "widths": widths,
        "blocks": [blocks[f"block{i}"] for i in range(1, 9)],
        "stem_kernel": kernel,
    }


def some(items: list[str]) -> str:
    """The first three, and dots if there are more."""
    return "; ".join(items[:3]) + ("; ..." if len(items) > 3 else "")


def grouped(names: list[str]) -> str:
    """Names as a short list: `fc.* (2), encoder_k.* (320), queue`."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(part_of(name), []).append(name)
    return ", ".join(
        items[0] if len(items) == 1 else f"{group}.* ({len(items)})"
        for group, items in groups.items()
    )


def grouped_absent(names: list[str]) -> str:
    """As `grouped`, with the counters of batch norms apart: many files lack them."""
    counters = [name for name in names if name.endswith(COUNTER)]
    others = grouped([name for name in names if not name.endswith(COUNTER)])
    return ", ".join(
        [*([others] if others else []), *([f"*.{COUNTER} ({len(counters)})"] if counters else [])]
    )
