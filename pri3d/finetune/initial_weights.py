"""Initial weights of finetuned networks: random, ImageNet, a pretraining run, or a file."""

import logging
from pathlib import Path

from torch import nn

from pri3d.config import MODES, NAMED_WEIGHTS
from pri3d.errors import Pri3DError
from pri3d.models.minkunet import DECODER as DECODER_3D
from pri3d.run.folder import RANDOM, WEIGHTS, InitialWeights
from pri3d.weights.load import load_file_into, load_imagenet_into

ENCODER, DECODER = "backbone.encoder", "backbone.decoder"

_log = logging.getLogger(__name__)


def weights_file(initial_weights: str) -> Path | None:
    """The file that the setting `initial_weights` names; None for random and ImageNet."""
    if initial_weights in NAMED_WEIGHTS:
        return None
    path = Path(initial_weights)
    return path / WEIGHTS if path.is_dir() else path


def load_encoder(
    encoder: nn.Module, network2d: str, initial_weights: str, section: str
) -> InitialWeights:
    """Load initial weights into a ResNet encoder.

    Args:
        encoder: network to fill.
        network2d: its name, as in the setting.
        initial_weights: the setting.
        section: section of the settings, for messages.

    Returns:
        What was loaded. With `try_imagenet`, unavailable ImageNet weights leave it random.

    Raises:
        Pri3DError: the weights are not available, do not fit, or lack a part of the encoder.
    """
    if initial_weights == "random":
        return RANDOM
    file = weights_file(initial_weights)
    if file is None:
        return load_imagenet_into(encoder, network2d, initial_weights, f"{section}.initial_weights")
    return load_file_into(nn.ModuleDict({"encoder": encoder}), file, "backbone", (ENCODER,))


def load_unet(
    unet: nn.Module, network2d: str, initial_weights: str, section: str
) -> InitialWeights:
    """Load initial weights into the encoder and, where they have one, the decoder of a ResUNet.

    Arguments, result and errors are those of `load_encoder`.
    """
    file = weights_file(initial_weights)
    if file is None:
        encoder = unet.get_submodule("encoder")
        return load_encoder(encoder, network2d, initial_weights, section)
    return load_file_into(unet, file, "backbone", (ENCODER, DECODER))


def load_backbone3d(network: nn.Module, initial_weights: str, section: str) -> InitialWeights:
    """Load initial weights into a MinkUNet.

    A pretraining mode that trains the encoder alone leaves a random decoder in its file. It is not
    loaded: the decoder keeps the weights that every run of this seed starts with.

    Raises:
        Pri3DError: the weights are not available or do not fit.
    """
    if initial_weights == "random":
        return RANDOM
    file = weights_file(initial_weights)
    if file is None:
        raise Pri3DError(
            f"{section}.initial_weights: ImageNet has no 3D weights; give a run or a file"
        )
    own_decoder = {
        name: value.clone()
        for name, value in network.state_dict().items()
        if name.partition(".")[0] in DECODER_3D
    }
    loaded = load_file_into(network, file, "backbone3d")
    if loaded.mode not in MODES or not MODES[loaded.mode].encoder_only:
        return loaded
    network.load_state_dict(own_decoder, strict=False)
    reason = f"{loaded.mode} trains the encoder alone: the decoder stays random"
    _log.info("%s: %s", file, reason)
    return loaded._replace(
        loaded=("backbone3d.encoder",), description=f"{loaded.description}; {reason}"
    )
