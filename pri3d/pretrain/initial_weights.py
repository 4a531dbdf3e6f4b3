"""Initial weights of the networks of a pretraining: random, ImageNet, or a file of weights."""

import logging
from pathlib import Path

from torch import nn

from pri3d import store
from pri3d.config import NAMED_WEIGHTS, Pretrain, used_settings
from pri3d.errors import Pri3DError
from pri3d.models.teacher import Teacher
from pri3d.run.folder import RANDOM, WEIGHTS_SETTINGS, InitialWeights
from pri3d.weights.load import load_exactly, load_file_into, load_imagenet_into

_log = logging.getLogger(__name__)


def weights_digests(mode: str, settings: Pretrain) -> dict[str, str]:
    """Network -> SHA-256 of the file of its initial weights, of the networks that have one."""
    digests = {}
    for network, setting in WEIGHTS_SETTINGS.items():
        file = getattr(settings, setting)
        if setting in used_settings(mode) and file not in NAMED_WEIGHTS and Path(file).is_file():
            digests[network] = store.file_digest(Path(file))
    return digests


def load_initial_weights(nets: nn.ModuleDict, settings: Pretrain) -> dict[str, InitialWeights]:
    """Load the initial weights that the settings name into new networks.

    Returns:
        Network (backbone, backbone3d, teacher) -> where its weights come from. With
        `try_imagenet`, ImageNet weights that are not available leave a network random.

    Raises:
        Pri3DError: weights are not available, or do not fit the network.
    """
    weights = {}
    if "teacher" in nets:
        teacher = nets["teacher"]
        assert isinstance(teacher, Teacher)
        weights["teacher"] = _load_teacher(teacher, settings)
    elif "backbone" in nets:
        weights["backbone"] = _load_2d(nets["backbone"], settings)
    if "backbone3d" in nets:
        weights["backbone3d"] = _load_3d(nets["backbone3d"], settings)
    return weights


def _load_2d(backbone: nn.Module, settings: Pretrain) -> InitialWeights:
    source = settings.initial_weights_2d
    if source == "random":
        return RANDOM
    if source not in NAMED_WEIGHTS:
        return load_file_into(backbone, source, "backbone")
    encoder = backbone.get_submodule("encoder")
    return load_imagenet_into(encoder, settings.network2d, source, "pretrain.initial_weights_2d")


def _load_3d(backbone3d: nn.Module, settings: Pretrain) -> InitialWeights:
    if settings.initial_weights_3d == "random":
        return RANDOM
    return load_file_into(backbone3d, settings.initial_weights_3d, "backbone3d")


def _load_teacher(teacher: Teacher, settings: Pretrain) -> InitialWeights:
    """A ResNet takes what `initial_weights_2d` takes; others a file that has all their entries."""
    name, source, network = settings.teacher, settings.teacher_weights, teacher.network
    if source == "random":
        _log.warning(
            "the teacher %s has RANDOM weights, from which nothing can be learned; set "
            "pretrain.teacher_weights",
            name,
        )
        return RANDOM
    if not teacher.kind:
        if source in NAMED_WEIGHTS:
            setting = "pretrain.teacher_weights"
            return load_imagenet_into(network, name, source, setting, part="teacher")
        holder = nn.ModuleDict({"encoder": network})
        encoder = ("backbone.encoder",)
        return load_file_into(holder, source, "backbone", encoder, "pretrain.teacher")
    if source in NAMED_WEIGHTS:
        raise Pri3DError(
            f"pretrain.teacher_weights: for the teacher {name} give a file of its weights, as "
            f"{teacher.kind} has them"
        )
    return load_exactly(network, source, "teacher")
