"""What the modes that compare whole frames share: global_kd, crd and gupta.

They train the encoder of the 3D network only: the mean features of its deepest level are compared
with the mean features of the frame's image in a frozen 2D network. PPKT (Liu et al., arXiv
2104.04687) is compared with them.

Shapes: B frames, C channels.
"""

import torch
from torch import Tensor, nn

from pri3d.config import MODES, Pretrain
from pri3d.models.minkunet import MinkUNet, minkunet_of
from pri3d.models.teacher import Teacher
from pri3d.pretrain.frame_clouds import FrameCloudBatch, FrameClouds
from pri3d.pretrain.image_features import teacher_maps
from pri3d.pretrain.modes import Inputs
from pri3d.pretrain.voxel_features import sparse_tensor


def frame_clouds_of(mode: str, inputs: Inputs, settings: Pretrain) -> FrameClouds:
    """Single frames, in micro-batches of at least `min_frames` of the mode's record."""
    return FrameClouds(
        inputs.clouds_dir,
        settings,
        inputs.held_out,
        inputs.scenes,
        min_frames=MODES[mode].min_frames,
    )


def networks_with_teacher(settings: Pretrain) -> tuple[nn.ModuleDict, int, int]:
    """`backbone3d` with random weights, and the frozen `teacher`.

    Returns:
        The networks, the channels of the teacher's features, and those of the deepest level of the
        3D network.
    """
    backbone3d = minkunet_of(settings.network3d)
    teacher = Teacher(settings.teacher, (settings.height, settings.width))
    nets = nn.ModuleDict({"backbone3d": backbone3d, "teacher": teacher})
    return nets, teacher.channels, settings.network3d.widths[3]


def networks_to_teacher(settings: Pretrain) -> nn.ModuleDict:
    """Both networks, and a head `w3d` from the features of the 3D network to the teacher's."""
    nets, teacher_channels, deepest_channels = networks_with_teacher(settings)
    nets["w3d"] = nn.Linear(deepest_channels, teacher_channels)
    return nets


def global_features(
    nets: nn.ModuleDict, batch: FrameCloudBatch, settings: Pretrain
) -> tuple[Tensor, Tensor]:
    """Mean features of each frame.

    Returns:
        Those of its image in the teacher [B, C], and those of its cloud in the deepest level of the
        3D network [B, C].
    """
    teacher_BC = teacher_maps(nets, batch.image_BCHW, settings).mean(dim=(2, 3))
    backbone3d = nets["backbone3d"]
    assert isinstance(backbone3d, MinkUNet)
    deepest = backbone3d.encode(sparse_tensor(batch.cloud))[-1]
    frame_N = deepest.coordinates[:, 0].long()
    total_BC = deepest.features.new_zeros(len(teacher_BC), deepest.features.shape[1])
    total_BC = total_BC.index_add(0, frame_N, deepest.features)
    number_B = torch.bincount(frame_N, minlength=len(teacher_BC)).to(total_BC.dtype)
    return teacher_BC, total_BC / number_B[:, None]
