"""What a finetuned network starts from: random weights, ImageNet's, a run, or a file of weights."""

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from pri3d.config import INIT, Insseg, Semseg
from pri3d.errors import Pri3DError
from pri3d.finetune import insseg
from pri3d.models.resunet import imagenet_weights
from pri3d.weights.load import load_file_into

ENCODER, DECODER = "backbone.encoder", "backbone.decoder"


def file_of(init: str) -> Path | None:
    """The file of weights that `init` names, if it names one."""
    if init in INIT:
        return None
    path = Path(init)
    return path / "model.safetensors" if path.is_dir() else path


class Start(NamedTuple):
    """What a network started from, for people; decoder: whether its decoder is not random."""

    said: str
    decoder: bool


def load_start(nets: nn.ModuleDict, settings: Semseg | Insseg) -> Start:
    """Load what `init` says into new networks, and tell it on stderr.

    Raises Pri3DError where weights cannot be had, or where a file lacks a part of the encoder, or
    has a part of the decoder only; with `try_imagenet` the former is a warning, and the answer says
    so.
    """
    if settings.init == "random":
        return Start("random", False)
    encoder = insseg.encoder(nets) if isinstance(settings, Insseg) else nets["backbone"].encoder
    file = file_of(settings.init)
    if file is None:
        return Start(_load_imagenet(encoder, settings), False)
    with_decoder = (
        isinstance(settings, Semseg)
        and settings.net == "unet"
        and settings.transfer == "encoder_decoder"
    )
    section = "insseg" if isinstance(settings, Insseg) else "semseg"
    if not with_decoder:
        alone = nn.ModuleDict({"encoder": encoder})
        return Start(load_file_into(alone, file, "backbone", (ENCODER,), section), False)
    decoder = nets["backbone"].decoder
    before = decoder.conv0.weight.clone()
    said = load_file_into(nets["backbone"], file, "backbone", (ENCODER, DECODER), section)
    return Start(said, not torch.equal(before, decoder.conv0.weight))


def _load_imagenet(encoder: nn.Module, settings: Semseg | Insseg) -> str:
    try:
        weights = imagenet_weights(settings.net2d)
    except Pri3DError as error:
        if settings.init == "imagenet":
            section = "insseg" if isinstance(settings, Insseg) else "semseg"
            raise Pri3DError(f"{section}.init: {error}") from None
        print(f"pri3d: starting from RANDOM weights: {error}", file=sys.stderr)
        return "random: ImageNet weights could not be had"
    lacking, _ = encoder.load_state_dict(weights, strict=False)
    if lacking := [name for name in lacking if not name.endswith("num_batches_tracked")]:
        raise Pri3DError(f"the ImageNet weights of {settings.net2d} lack {', '.join(lacking[:3])}")
    return "ImageNet (torchvision IMAGENET1K_V1)"
