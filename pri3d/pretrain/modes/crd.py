"""crd: each frame's cloud against its own image, among the images of the micro-batch.

Contrastive representation distillation, Tian et al., ICLR 2020, as a baseline of PPKT (Liu et al.,
arXiv 2104.04687). The paper keeps its negatives in a memory of all images; here they are the other
images of the micro-batch.

Shapes: B frames, C channels.
"""

import math

import torch
from torch import nn

from pri3d.config import Pretrain
from pri3d.pretrain.frame_clouds import FrameCloudBatch, FrameClouds
from pri3d.pretrain.modes import Inputs
from pri3d.pretrain.objective import LossTerm
from pri3d.pretrain.whole_frames import frame_clouds_of, global_features, networks_with_teacher


def samples(inputs: Inputs, settings: Pretrain) -> FrameClouds:
    """Single frames, several in each micro-batch."""
    return frame_clouds_of("crd", inputs, settings)


def networks(settings: Pretrain) -> nn.ModuleDict:
    """The 3D network, the frozen teacher, and a projection head each."""
    nets, teacher_channels, deepest_channels = networks_with_teacher(settings)
    nets["w2d"] = nn.Linear(teacher_channels, settings.projection_channels)
    nets["w3d"] = nn.Linear(deepest_channels, settings.projection_channels)
    return nets


def after_initial_weights(nets: nn.ModuleDict) -> None:
    """Nothing to do."""


def loss(nets: nn.ModuleDict, batch: FrameCloudBatch, settings: Pretrain) -> dict[str, LossTerm]:
    """InfoNCE: -log(exp(s_i . t_i / T) / sum_k exp(s_i . t_k / T)) of unit vectors s and t."""
    teacher_BC, student_BC = global_features(nets, batch, settings)
    cloud_BC = nn.functional.normalize(nets["w3d"](student_BC), dim=1)
    image_BC = nn.functional.normalize(nets["w2d"](teacher_BC), dim=1)
    logits_BB = cloud_BC @ image_BC.t() / settings.temperature
    own_B = torch.arange(len(logits_BB), device=logits_BB.device)
    loss_B = nn.functional.cross_entropy(logits_BB, own_B, reduction="none")
    recall_B = (logits_BB.argmax(dim=1) == own_B).float()
    candidates = [len(own_B)] * len(own_B)
    chance = [math.log(n) for n in candidates]
    return {"crd": LossTerm(loss_B, chance, recall_B.tolist(), candidates)}


def samples_per_term(batch: FrameCloudBatch, settings: Pretrain) -> dict[str, int]:
    """Number of frames."""
    return {"crd": len(batch.cloud.counts)}


def is_complete(batch: FrameCloudBatch) -> bool:
    """Whether there is a frame."""
    return len(batch.cloud.counts) > 0


def after_step(nets: nn.ModuleDict, settings: Pretrain) -> None:
    """Nothing to do."""
