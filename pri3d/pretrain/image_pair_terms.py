"""Networks and loss terms of the modes that train on pairs of images: view, geo and joint.

Pri3D, Hou et al., ICCV 2021, section 3: the view term compares features of matching cells of two
images; the geo term compares features of cells with those of the voxels that they show, after a
linear head each. The published code adds a depth term.

Shapes: B images, C channels, H x W pixels, N matches or rows, S samples of a batch.
"""

import torch
from torch import Tensor, nn

from pri3d.config import Pretrain
from pri3d.models.heads import ProjectionHeads
from pri3d.models.minkunet import minkunet_of
from pri3d.models.resunet import resunet
from pri3d.pretrain.batches import VoxelBatch
from pri3d.pretrain.depth_loss import depth_head, depth_loss, has_depth
from pri3d.pretrain.image_features import cell_features, maps_of
from pri3d.pretrain.image_pairs import ImagePairBatch
from pri3d.pretrain.objective import LossTerm, contrast
from pri3d.pretrain.voxel_features import voxel_features

Maps = tuple[Tensor, Tensor]  # [B, C, H / 2, W / 2] of the first images, and of the second


def networks_of(
    settings: Pretrain, with_3d: bool = False, with_depth: bool = False
) -> nn.ModuleDict:
    """The 2D network `backbone`, and on request `backbone3d` with the heads w2d and w3d, and the
    depth head `headnet`, all with random weights.
    """
    backbone = resunet(settings.network2d)
    nets = nn.ModuleDict({"backbone": backbone})
    if with_3d:
        nets["backbone3d"] = minkunet_of(settings.network3d)
        heads = ProjectionHeads(
            backbone.channels, settings.network3d.channels, settings.projection_channels
        )
        nets["w2d"], nets["w3d"] = heads.w2d, heads.w3d
    if with_depth:
        nets["headnet"] = depth_head(backbone.channels)
    return nets


def feature_maps(nets: nn.ModuleDict, image_BCHW: Tensor, settings: Pretrain) -> Tensor:
    """Features of every cell of a batch of images, float32 [B, C, H / 2, W / 2]."""
    return maps_of(nets["backbone"], image_BCHW, settings)


def maps_of_both(nets: nn.ModuleDict, batch: ImagePairBatch, settings: Pretrain) -> Maps:
    """Feature maps of the first images and of the second.

    One call for each, as published: batch norm normalizes each batch by itself.
    """
    return (
        feature_maps(nets, batch.image_a_BCHW, settings),
        feature_maps(nets, batch.image_b_BCHW, settings),
    )


def view_term(maps: Maps, batch: ImagePairBatch, settings: Pretrain) -> LossTerm:
    """Cells of the first image against matching cells of the second; one sample per pair."""
    anchor_NC = cell_features(maps[0])[batch.view.anchor_N]
    positive_NC = cell_features(maps[1])[batch.view.positive_N]
    return contrast(anchor_NC, positive_NC, batch.view, settings)


def geo_term(
    nets: nn.ModuleDict, maps: Maps, batch: ImagePairBatch, settings: Pretrain
) -> LossTerm:
    """Cells of each image against voxels of its own chunk; one sample per image.

    First the samples of all first images, then those of the second.
    """
    first = _surface_term(nets, maps[0], batch.voxels_a, settings)
    second = _surface_term(nets, maps[1], batch.voxels_b, settings)
    return LossTerm(
        loss_S=torch.cat([first.loss_S, second.loss_S]),
        loss_chance=[*first.loss_chance, *second.loss_chance],
        recall=[*first.recall, *second.recall],
        candidates=[*first.candidates, *second.candidates],
    )


def depth_term(nets: nn.ModuleDict, maps: Maps, batch: ImagePairBatch) -> LossTerm:
    """Predicted against measured depth; one sample per batch of images that has any depth."""
    targets = batch.depth_a_BHW, batch.depth_b_BHW
    losses = [
        depth_loss(nets["headnet"](map_BCHW)[:, 0], target_BHW)
        for map_BCHW, target_BHW in zip(maps, targets)
        if has_depth(target_BHW)
    ]
    loss_S = torch.stack(losses) if losses else maps[0].new_zeros(0)
    return LossTerm(loss_S, loss_chance=[], recall=[], candidates=[])


def geo_count(batch: ImagePairBatch) -> int:
    """Number of samples of the geo term."""
    return len(batch.voxels_a.counts) + len(batch.voxels_b.counts)


def depth_count(batch: ImagePairBatch) -> int:
    """Number of samples of the depth term."""
    return has_depth(batch.depth_a_BHW) + has_depth(batch.depth_b_BHW)


def has_chunks(batch: ImagePairBatch) -> bool:
    """Whether some first image and some second image has a chunk."""
    return bool(batch.voxels_a.counts and batch.voxels_b.counts)


def _surface_term(
    nets: nn.ModuleDict, map_BCHW: Tensor, voxels: VoxelBatch, settings: Pretrain
) -> LossTerm:
    cells_NC = cell_features(map_BCHW)
    if not voxels.counts:
        return LossTerm(cells_NC.new_zeros(0), [], [], [])
    voxels_NC = voxel_features(nets["backbone3d"], voxels)
    # The heads are linear and act on single rows: apply them to the matched rows only.
    anchor_NC = nets["w2d"](cells_NC[voxels.matches.anchor_N])
    positive_NC = nets["w3d"](voxels_NC[voxels.matches.positive_N])
    return contrast(anchor_NC, positive_NC, voxels.matches, settings)
