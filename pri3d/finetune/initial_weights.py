"""What a finetuned network starts from: random weights, ImageNet's, a run, or a file of weights."""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from pri3d.config import MODES, NAMED_WEIGHTS, Det3d, Insseg, Semseg, Semseg3d
from pri3d.errors import Pri3DError
from pri3d.finetune import insseg
from pri3d.models.minkunet import DECODER as DECODER_3D
from pri3d.weights.load import load_file_into, load_imagenet_into

ENCODER, DECODER = "backbone.encoder", "backbone.decoder"


def file_of(init: str) -> Path | None:
    """The file of weights that `init` names, if it names one."""
    if init in NAMED_WEIGHTS:
        return None
    path = Path(init)
    return path / "model.safetensors" if path.is_dir() else path


class Start(NamedTuple):
    """What a network started from, for people; decoder: whether its decoder is not random."""

    said: str
    decoder: bool


def load_initial_weights(
    nets: nn.ModuleDict, settings: Semseg | Insseg | Semseg3d | Det3d
) -> Start:
    """Load what `init` says into new networks, and tell it on stderr.

    Raises Pri3DError where weights cannot be had, or where a file lacks a part of the encoder, or
    has a part of the decoder only; with `try_imagenet` the former is a warning, and the answer says
    so.
    """
    if settings.initial_weights == "random":
        return Start("random", False)
    if isinstance(settings, Semseg3d | Det3d):
        section = "semseg3d" if isinstance(settings, Semseg3d) else "det3d"
        if (file := file_of(settings.initial_weights)) is None:
            raise Pri3DError(f"{section}.init: ImageNet has no 3D weights; give a run or a file")
        return _load_3d(nets["backbone3d"], file, section)
    encoder = insseg.encoder(nets) if isinstance(settings, Insseg) else nets["backbone"].encoder
    section = "insseg" if isinstance(settings, Insseg) else "semseg"
    file = file_of(settings.initial_weights)
    if file is None:
        said = load_imagenet_into(
            encoder, settings.network2d, settings.initial_weights, f"{section}.init"
        )
        return Start(said, False)
    with_decoder = (
        isinstance(settings, Semseg)
        and settings.architecture == "unet"
        and settings.transfer == "encoder_decoder"
    )
    if not with_decoder:
        alone = nn.ModuleDict({"encoder": encoder})
        return Start(load_file_into(alone, file, "backbone", (ENCODER,), section), False)
    decoder = nets["backbone"].decoder
    before = decoder.conv0.weight.clone()
    said = load_file_into(nets["backbone"], file, "backbone", (ENCODER, DECODER), section)
    return Start(said, not torch.equal(before, decoder.conv0.weight))


def _load_3d(network: nn.Module, file: Path, section: str) -> Start:
    """The decoder of a run that trained the encoder alone stays as it is: that run's is random too,
    and the same for all that start from it."""
    fresh = {
        name: value.clone()
        for name, value in network.state_dict().items()
        if name.partition(".")[0] in DECODER_3D
    }
    said = load_file_into(network, file, "backbone3d", section=section)
    try:
        mode = json.loads((file.parent / "settings.json").read_text()).get("mode")
    except (OSError, ValueError, AttributeError):
        mode = None  # no run, but a file of weights
    if mode not in MODES or not MODES[mode].encoder_only:
        return Start(said, True)
    network.load_state_dict(fresh, strict=False)
    told = f"{mode} trains the encoder alone: the decoder stays random"
    print(f"{file.name}: {told}", file=sys.stderr)
    return Start(f"{said}; {told}", False)
