"""ppkt: points of a frame against the pixels that show them, with features of a frozen 2D network.

PPKT, Liu et al., "Learning from 2D: Contrastive Pixel-to-Point Knowledge Transfer for 3D
Pretraining", arXiv 2104.04687, equation 1.

Shapes: C channels, N matches, h x w cells of the teacher.
"""

from torch import nn

from pri3d.config import Pretrain
from pri3d.models.minkunet import minkunet_of
from pri3d.models.teacher import Teacher, UpsamplingProjection
from pri3d.pretrain.batches import Matches
from pri3d.pretrain.frame_clouds import FrameCloudBatch, FrameClouds
from pri3d.pretrain.image_features import teacher_maps
from pri3d.pretrain.modes import Inputs
from pri3d.pretrain.objective import LossTerm, contrast
from pri3d.pretrain.voxel_features import voxel_features


def samples(inputs: Inputs, settings: Pretrain) -> FrameClouds:
    """Single frames."""
    return FrameClouds(inputs.clouds_dir, settings, inputs.held_out, inputs.scenes)


def networks(settings: Pretrain) -> nn.ModuleDict:
    """The 3D network, the frozen teacher, and a projection head each."""
    backbone3d = minkunet_of(settings.network3d)
    teacher = Teacher(settings.teacher, (settings.height, settings.width))
    return nn.ModuleDict(
        {
            "backbone3d": backbone3d,
            "teacher": teacher,
            "w2d": UpsamplingProjection(teacher.channels, settings.projection_channels),
            "w3d": nn.Linear(settings.network3d.channels, settings.projection_channels),
        }
    )


def after_initial_weights(nets: nn.ModuleDict) -> None:
    """Nothing to do."""


def loss(nets: nn.ModuleDict, batch: FrameCloudBatch, settings: Pretrain) -> dict[str, LossTerm]:
    """Points are the anchors, pixels of the same frame the candidates."""
    matches, shape = batch.cloud.matches, tuple(batch.image_BCHW.shape[-2:])
    map_BChw = teacher_maps(nets, batch.image_BCHW, settings)
    pixel_NC = nets["w2d"](map_BChw, matches.anchor_N, matches.counts, shape)
    point_NC = nets["w3d"](voxel_features(nets["backbone3d"], batch.cloud)[matches.positive_N])
    points_first = Matches(matches.positive_N, matches.anchor_N, matches.counts)
    return {"ppkt": contrast(point_NC, pixel_NC, points_first, settings)}


def samples_per_term(batch: FrameCloudBatch, settings: Pretrain) -> dict[str, int]:
    """Number of frames."""
    return {"ppkt": len(batch.cloud.counts)}


def is_complete(batch: FrameCloudBatch) -> bool:
    """Whether there is a frame."""
    return len(batch.cloud.counts) > 0


def after_step(nets: nn.ModuleDict, settings: Pretrain) -> None:
    """Nothing to do."""
