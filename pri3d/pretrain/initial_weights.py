"""What the networks of a run start from: random weights, ImageNet's, or a file of weights."""

import contextlib
import sys

from torch import nn

from pri3d.config import NAMED_WEIGHTS, Pretrain
from pri3d.errors import Pri3DError
from pri3d.models.teacher import Teacher
from pri3d.weights.load import load_exactly, load_file_into, load_imagenet_into


def load_initial_weights(
    nets: nn.ModuleDict, settings: Pretrain, told: bool = True
) -> dict[str, str]:
    """Load what `initial_weights_2d` and `initial_weights_3d` say into new networks, and tell what each started from.

    told: log what was loaded, and what was not; of several processes, one does.

    Raises Pri3DError when weights cannot be had or nothing in a file fits; with `try_imagenet` that
    is a warning, and the answer says so.
    """
    with contextlib.nullcontext():
        starts = {}
        if "teacher" in nets:
            starts["teacher_weights"] = _start_teacher(nets["teacher"], settings)
        elif "backbone" in nets:
            starts["initial_weights_2d"] = _start_2d(nets["backbone"], settings)
        if "backbone3d" in nets:
            starts["initial_weights_3d"] = settings.initial_weights_3d
            if settings.initial_weights_3d != "random":
                starts["initial_weights_3d"] = load_file_into(
                    nets["backbone3d"], settings.initial_weights_3d, "backbone3d"
                ).description
    return starts


def _start_2d(backbone: nn.Module, settings: Pretrain) -> str:
    if settings.initial_weights_2d == "random":
        return "random"
    if settings.initial_weights_2d not in NAMED_WEIGHTS:
        return load_file_into(backbone, settings.initial_weights_2d, "backbone").description
    encoder = backbone.get_submodule("encoder")
    return load_imagenet_into(
        encoder, settings.network2d, settings.initial_weights_2d, "pretrain.initial_weights_2d"
    ).description


def _start_teacher(teacher: Teacher, settings: Pretrain) -> str:
    """An encoder takes what `initial_weights_2d` takes; others a file that has exactly their entries."""
    name, init, network = settings.teacher, settings.teacher_weights, teacher.network
    if init == "random":
        print(
            f"pri3d: the teacher {name} has RANDOM weights and knows nothing; set "
            "pretrain.teacher_weights",
            file=sys.stderr,
        )
        return "random"
    if not teacher.kind:
        if init in NAMED_WEIGHTS:
            return load_imagenet_into(network, name, init, "pretrain.teacher_weights").description
        holder = nn.ModuleDict({"encoder": network})
        whole = ("backbone.encoder",)
        return load_file_into(holder, init, "backbone", whole, "pretrain.teacher").description
    if init in NAMED_WEIGHTS:
        raise Pri3DError(
            f"pretrain.teacher_weights: for the teacher {name} give a file of its weights, as "
            f"{teacher.kind} has them"
        )
    return load_exactly(network, init, "teacher").description
