"""The modes of pretraining: which terms the loss has, each a short composition of named parts.

`view` compares the 2D features of matching cells of two images; `geo` compares 2D features of cells
with 3D features of the voxels they lie on, after a linear head each; `joint` does both with one
shared 2D network (Pri3D, Hou et al., ICCV 2021, section 3). With `depth_loss`, view and joint also
predict depth. A mode is a function (nets, batch, settings) -> {name of the term: LossTerm}.

Shapes: B images, C channels, H x W pixels, N matches or rows, S samples of a batch.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from pri3d.config import MODES as RECORDS
from pri3d.config import Pretrain
from pri3d.models.heads import ProjectionHeads
from pri3d.models.minkunet import minkunet_of
from pri3d.models.resunet import resnet_encoder, resunet
from pri3d.pretrain import cloud_modes
from pri3d.pretrain.depth_loss import depth_head, depth_loss, has_depth
from pri3d.pretrain.moco import FrameBatch, Moco
from pri3d.pretrain.objective import LossTerm, contrast
from pri3d.pretrain.samples import Batch, Side


def networks(mode: str, settings: Pretrain) -> nn.ModuleDict:
    """The trainable parts with random weights, under their published names: backbone, backbone3d,
    w2d, w3d, headnet. moco has the encoder alone, and what else it needs under `moco`; modes of
    single frames are in `cloud_modes`.

    The same state of torch's generator gives the same weights.
    """
    if RECORDS[mode].trains == ("network3d",):
        return cloud_modes.networks(mode, settings)
    if mode == "moco":
        backbone = nn.ModuleDict({"encoder": resnet_encoder(settings.network2d)})
        return nn.ModuleDict({"backbone": backbone, "moco": Moco(settings)})
    nets = nn.ModuleDict({"backbone": resunet(settings.network2d)})
    if mode != "view":
        channels = settings.network3d.channels
        nets["backbone3d"] = minkunet_of(settings.network3d)
        heads = ProjectionHeads(nets["backbone"].channels, channels, settings.projection_channels)
        nets["w2d"], nets["w3d"] = heads.w2d, heads.w3d
    if _with_depth(mode, settings):
        nets["headnet"] = depth_head(nets["backbone"].channels)
    return nets


def view(nets: nn.ModuleDict, batch: Batch, settings: Pretrain) -> dict[str, LossTerm]:
    """Cells of the first image against matching cells of the second."""
    maps = _maps_of_both(nets, batch, settings)
    return _view(maps, batch, settings) | _depth(nets, maps, batch, settings)


def geo(nets: nn.ModuleDict, batch: Batch, settings: Pretrain) -> dict[str, LossTerm]:
    """Cells of each image against the voxels of its own chunk; the mean over all images."""
    return _geo(nets, _maps_of_both(nets, batch, settings), batch, settings)


def joint(nets: nn.ModuleDict, batch: Batch, settings: Pretrain) -> dict[str, LossTerm]:
    """Both: view + (geo of the first image + geo of the second) / 2, on the same 2D features."""
    maps = _maps_of_both(nets, batch, settings)
    terms = _view(maps, batch, settings) | _geo(nets, maps, batch, settings)
    return terms | _depth(nets, maps, batch, settings)


def moco(nets: nn.ModuleDict, batch: FrameBatch, settings: Pretrain) -> dict[str, LossTerm]:
    """Two crops of each frame against crops of other frames (the baseline, see `moco`)."""
    bf16 = settings.precision == "bf16"
    with torch.autocast(batch.query_BCHW.device.type, torch.bfloat16, enabled=bf16):
        loss_B, found_B = nets["moco"].loss(nets["backbone"]["encoder"], batch, settings)
    candidates = [1 + settings.moco_queue] * len(loss_B)
    chance = [math.log(n) for n in candidates]
    return {"moco": LossTerm(loss_B, chance, found_B.float().tolist(), candidates)}


MODES = {"view": view, "geo": geo, "joint": joint, "moco": moco, **cloud_modes.MODES}


def counts(mode: str, batch: Any, settings: Pretrain) -> dict[str, int]:
    """How many samples of a micro-batch have each term: the lengths of what the mode returns."""
    if RECORDS[mode].trains == ("network3d",):
        return cloud_modes.counts(mode, batch)
    if mode == "moco":
        return {"moco": len(batch.query_BCHW)}
    number = {}
    if mode != "geo":
        number["view"] = len(batch.view.counts)
    if mode != "view":
        number["geo"] = len(batch.side_a.counts) + len(batch.side_b.counts)
    if _with_depth(mode, settings):
        number["depth"] = has_depth(batch.depth_a_BHW) + has_depth(batch.depth_b_BHW)
    return number


def is_complete(mode: str, batch: Any) -> bool:
    """Whether every network of the mode has something to do in a micro-batch."""
    if RECORDS[mode].trains == ("network3d",):
        return sum(cloud_modes.counts(mode, batch).values()) > 0
    if mode == "moco":  # with fewer than four, keys are normalised in another way
        return len(batch.query_BCHW) == len(batch.names) > 0
    with_chunks = mode == "view" or (batch.side_a.counts and batch.side_b.counts)
    return len(batch.image_a_BCHW) > 0 and bool(with_chunks)


def total(terms: dict[str, LossTerm]) -> Tensor | None:
    """The sum over the terms of their mean over the samples; None where no sample has any."""
    means = [term.loss_S.mean() for term in terms.values() if len(term.loss_S)]
    return torch.stack(means).sum() if means else None


def feature_maps(backbone: nn.Module, image_BCHW: Tensor, settings: Pretrain) -> Tensor:
    """Features of a batch of images, [B, C, H / 2, W / 2] float32."""
    bf16 = settings.precision == "bf16"
    with torch.autocast(image_BCHW.device.type, torch.bfloat16, enabled=bf16):
        features_BCHW = backbone(image_BCHW.contiguous(memory_format=torch.channels_last))
    return features_BCHW.float() if bf16 else features_BCHW


def cell_features(maps_BCHW: Tensor) -> Tensor:
    """The features of every cell as rows, [B * cells, C], cells row by row."""
    return maps_BCHW.permute(0, 2, 3, 1).flatten(0, 2)


def voxel_features(backbone3d: nn.Module, side: Side) -> Tensor:
    """Features of every voxel of a batch of chunks, [V, C] float32, in the order given."""
    return backbone3d(cloud_modes.sparse(side)).features


def _with_depth(mode: str, settings: Pretrain) -> bool:
    return settings.depth_loss and mode in ("view", "joint")


def _maps_of_both(nets: nn.ModuleDict, batch: Batch, settings: Pretrain) -> tuple[Tensor, Tensor]:
    # One call for the first images and one for the second, as published: batch norm sees each
    # batch by itself.
    return (
        feature_maps(nets["backbone"], batch.image_a_BCHW, settings),
        feature_maps(nets["backbone"], batch.image_b_BCHW, settings),
    )


def _view(maps: tuple[Tensor, Tensor], batch: Batch, settings: Pretrain) -> dict[str, LossTerm]:
    anchor_NC = cell_features(maps[0])[batch.view.anchor_N]
    positive_NC = cell_features(maps[1])[batch.view.positive_N]
    return {"view": contrast(anchor_NC, positive_NC, batch.view, settings)}


def _geo(
    nets: nn.ModuleDict, maps: tuple[Tensor, Tensor], batch: Batch, settings: Pretrain
) -> dict[str, LossTerm]:
    sides = [
        _on_surface(nets, cell_features(map_BCHW), side, settings)
        for map_BCHW, side in zip(maps, (batch.side_a, batch.side_b))
    ]
    return {
        "geo": LossTerm(
            torch.cat([side.loss_S for side in sides]),
            *([*first, *second] for first, second in list(zip(*sides))[1:]),
        )
    }


def _on_surface(nets: nn.ModuleDict, cells_NC: Tensor, side: Side, settings: Pretrain) -> LossTerm:
    if not side.counts:
        return LossTerm(cells_NC.new_zeros(0), [], [], [])
    voxels_NC = voxel_features(nets["backbone3d"], side)
    # Heads act on the matched rows only; they are linear, so nothing else changes.
    anchor_NC = nets["w2d"](cells_NC[side.matches.anchor_N])
    positive_NC = nets["w3d"](voxels_NC[side.matches.positive_N])
    return contrast(anchor_NC, positive_NC, side.matches, settings)


def _depth(
    nets: nn.ModuleDict, maps: tuple[Tensor, Tensor], batch: Batch, settings: Pretrain
) -> dict[str, LossTerm]:
    if not settings.depth_loss:
        return {}
    targets = batch.depth_a_BHW, batch.depth_b_BHW
    losses = [
        depth_loss(nets["headnet"](map_BCHW)[:, 0], target_BHW)
        for map_BCHW, target_BHW in zip(maps, targets)
        if has_depth(target_BHW)
    ]
    return {"depth": LossTerm(torch.stack(losses) if losses else maps[0].new_zeros(0), [], [], [])}
