"""gupta: whole frames, squared difference from the features of a frozen 2D network.

Gupta et al., "Cross Modal Distillation for Supervision Transfer", CVPR 2016, equation 1, as a
baseline of PPKT (Liu et al., arXiv 2104.04687).

Shapes: B frames, C channels.
"""

from torch import nn

from pri3d.config import Pretrain
from pri3d.pretrain.frame_clouds import FrameCloudBatch, FrameClouds
from pri3d.pretrain.modes import Inputs
from pri3d.pretrain.objective import LossTerm
from pri3d.pretrain.whole_frames import frame_clouds_of, global_features, networks_to_teacher


def samples(inputs: Inputs, settings: Pretrain) -> FrameClouds:
    """Single frames, several in each micro-batch."""
    return frame_clouds_of("gupta", inputs, settings)


def networks(settings: Pretrain) -> nn.ModuleDict:
    """The 3D network, the frozen teacher, and a head from the one's features to the other's."""
    return networks_to_teacher(settings)


def after_initial_weights(nets: nn.ModuleDict) -> None:
    """Nothing to do."""


def loss(nets: nn.ModuleDict, batch: FrameCloudBatch, settings: Pretrain) -> dict[str, LossTerm]:
    """Mean squared difference of the mean features of each frame.

    Chance: the loss of the best output that is the same for all frames of the micro-batch, which
    is the variance of the teacher's features.
    """
    teacher_BC, student_BC = global_features(nets, batch, settings)
    loss_B = (nets["w3d"](student_BC) - teacher_BC).square().mean(dim=1)
    variance = teacher_BC.var(dim=0, correction=0).mean().item()
    return {"gupta": LossTerm(loss_B, [variance] * len(loss_B), [], [])}


def samples_per_term(batch: FrameCloudBatch, settings: Pretrain) -> dict[str, int]:
    """Number of frames."""
    return {"gupta": len(batch.cloud.counts)}


def is_complete(batch: FrameCloudBatch) -> bool:
    """Whether there is a frame."""
    return len(batch.cloud.counts) > 0


def after_step(nets: nn.ModuleDict, settings: Pretrain) -> None:
    """Nothing to do."""
