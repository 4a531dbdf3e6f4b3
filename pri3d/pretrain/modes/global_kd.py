"""global_kd: whole frames, softened outputs of a frozen 2D network.

Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, section 2, as a
baseline of PPKT (Liu et al., arXiv 2104.04687).

Shapes: B frames, C channels.
"""

import math

from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from pri3d.config import Pretrain
from pri3d.pretrain.frame_clouds import FrameCloudBatch, FrameClouds
from pri3d.pretrain.modes import Inputs
from pri3d.pretrain.objective import LossTerm
from pri3d.pretrain.whole_frames import frame_clouds_of, global_features, networks_to_teacher


def samples(inputs: Inputs, settings: Pretrain) -> FrameClouds:
    """Single frames, several in each micro-batch."""
    return frame_clouds_of("global_kd", inputs, settings)


def networks(settings: Pretrain) -> nn.ModuleDict:
    """The 3D network, the frozen teacher, and a head from the one's features to the other's."""
    return networks_to_teacher(settings)


def after_initial_weights(nets: nn.ModuleDict) -> None:
    """Nothing to do."""


def loss(nets: nn.ModuleDict, batch: FrameCloudBatch, settings: Pretrain) -> dict[str, LossTerm]:
    """T^2 KL(softmax(t / T) || softmax(s / T)) of the mean features t and s of each frame.

    Chance: the loss of an output that is the same for all frames of the micro-batch, the mean of
    their softmaxes.
    """
    temperature = settings.kd_temperature
    teacher_BC, student_BC = global_features(nets, batch, settings)
    target_BC = log_softmax(teacher_BC / temperature, dim=1)
    output_BC = log_softmax(nets["w3d"](student_BC) / temperature, dim=1)
    mean_1C = target_BC.logsumexp(0, keepdim=True) - math.log(len(target_BC))

    def divergence(log_BC: Tensor) -> Tensor:
        kl_BC = kl_div(log_BC, target_BC, reduction="none", log_target=True)
        return temperature**2 * kl_BC.sum(dim=1)

    chance_B = divergence(mean_1C.expand_as(target_BC))
    return {"global_kd": LossTerm(divergence(output_BC), chance_B.tolist(), [], [])}


def samples_per_term(batch: FrameCloudBatch, settings: Pretrain) -> dict[str, int]:
    """Number of frames."""
    return {"global_kd": len(batch.cloud.counts)}


def is_complete(batch: FrameCloudBatch) -> bool:
    """Whether there is a frame."""
    return len(batch.cloud.counts) > 0


def after_step(nets: nn.ModuleDict, settings: Pretrain) -> None:
    """Nothing to do."""
