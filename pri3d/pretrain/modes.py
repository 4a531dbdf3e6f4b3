"""The modes of pretraining: which terms the loss has, each a short composition of named parts.

`view` compares the 2D features of matching cells of two images; `geo` compares 2D features of cells
with 3D features of the voxels they lie on, after a linear head each; `joint` does both with one
shared 2D network (Pri3D, Hou et al., ICCV 2021, section 3). A mode is a function
(nets, batch, settings) -> {name of the term: Terms}.

Shapes: B images, C channels, H x W pixels, N matches or rows, S samples of a batch.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pri3d.config import Pretrain
from pri3d.models.heads import ProjectionHeads
from pri3d.models.minkunet import minkunet
from pri3d.models.resunet import resnet_encoder, resunet
from pri3d.pretrain.losses import match_recall, point_info_nce
from pri3d.pretrain.moco import FrameBatch, Moco
from pri3d.pretrain.samples import Batch, Matches, Side
from pri3d.sparse.coordinates import collate

CHANNELS_3D = 96


class Terms(NamedTuple):
    """One term of the loss for each of S samples: loss [S]; recall and number of candidates.

    recall: share of the anchors that find their own candidate first, by chance 1 / candidates;
    a network that knows nothing has a loss of ln(candidates).
    """

    loss_S: Tensor
    recall: list[float]
    candidates: list[int]


def networks(mode: str, settings: Pretrain, engine: str = "torch") -> nn.ModuleDict:
    """The trainable parts with random weights, under their published names: backbone, backbone3d,
    w2d, w3d. moco has the encoder alone, and what else it needs under `moco`.

    engine: setting `sparse.engine`. The same state of torch's generator gives the same weights.
    Raises Pri3DError where the engine is not installed and the mode needs it.
    """
    if mode == "moco":
        backbone = nn.ModuleDict({"encoder": resnet_encoder(settings.net2d)})
        return nn.ModuleDict({"backbone": backbone, "moco": Moco(settings)})
    nets = nn.ModuleDict({"backbone": resunet(settings.net2d)})
    if mode != "view":
        nets["backbone3d"] = minkunet(
            3, CHANNELS_3D, settings.width3d, settings.blocks3d, engine=engine
        )
        heads = ProjectionHeads(nets["backbone"].channels, CHANNELS_3D)
        nets["w2d"], nets["w3d"] = heads.w2d, heads.w3d
    return nets


def view(nets: nn.ModuleDict, batch: Batch, settings: Pretrain) -> dict[str, Terms]:
    """Cells of the first image against matching cells of the second."""
    cells_a, cells_b = _cells_of_both(nets, batch, settings)
    return {"view": contrast(cells_a, cells_b, batch.view, settings)}


def geo(nets: nn.ModuleDict, batch: Batch, settings: Pretrain) -> dict[str, Terms]:
    """Cells of each image against the voxels of its own chunk; the mean over all images."""
    cells_a, cells_b = _cells_of_both(nets, batch, settings)
    sides = [
        _on_surface(nets, cells_a, batch.side_a, settings),
        _on_surface(nets, cells_b, batch.side_b, settings),
    ]
    return {"geo": _join(sides)}


def joint(nets: nn.ModuleDict, batch: Batch, settings: Pretrain) -> dict[str, Terms]:
    """Both: view + (geo of the first image + geo of the second) / 2, on the same 2D features."""
    cells_a, cells_b = _cells_of_both(nets, batch, settings)
    sides = [
        _on_surface(nets, cells_a, batch.side_a, settings),
        _on_surface(nets, cells_b, batch.side_b, settings),
    ]
    return {"view": contrast(cells_a, cells_b, batch.view, settings), "geo": _join(sides)}


def moco(nets: nn.ModuleDict, batch: FrameBatch, settings: Pretrain) -> dict[str, Terms]:
    """Two crops of each frame against crops of other frames (the baseline, see `moco`)."""
    bf16 = settings.precision == "bf16"
    with torch.autocast(batch.query_BCHW.device.type, torch.bfloat16, enabled=bf16):
        loss_B, found_B = nets["moco"].loss(nets["backbone"]["encoder"], batch, settings)
    candidates = [1 + settings.moco_queue] * len(loss_B)
    return {"moco": Terms(loss_B, found_B.float().tolist(), candidates)}


MODES = {"view": view, "geo": geo, "joint": joint, "moco": moco}


def counts(mode: str, batch: Any, settings: Pretrain) -> dict[str, int]:
    """How many samples of a micro-batch have each term: the lengths of what the mode returns."""
    if mode == "moco":
        return {"moco": len(batch.query_BCHW)}
    number = {}
    if mode != "geo":
        number["view"] = len(batch.view.counts)
    if mode != "view":
        number["geo"] = len(batch.side_a.counts) + len(batch.side_b.counts)
    return number


def is_complete(mode: str, batch: Any) -> bool:
    """Whether every network of the mode has something to do in a micro-batch."""
    if mode == "moco":
        return len(batch.query_BCHW) > 0
    with_chunks = mode == "view" or (batch.side_a.counts and batch.side_b.counts)
    return len(batch.image_a_BCHW) > 0 and bool(with_chunks)


def total(terms: dict[str, Terms]) -> Tensor | None:
    """The sum over the terms of their mean over the samples; None where no sample has any."""
    means = [term.loss_S.mean() for term in terms.values() if len(term.loss_S)]
    return torch.stack(means).sum() if means else None


def pixel_features(backbone: nn.Module, image_BCHW: Tensor, settings: Pretrain) -> Tensor:
    """Features of every cell of a batch, [B * cells, C] float32, cells row by row."""
    bf16 = settings.precision == "bf16"
    with torch.autocast(image_BCHW.device.type, torch.bfloat16, enabled=bf16):
        features_BCHW = backbone(image_BCHW.contiguous(memory_format=torch.channels_last))
    if bf16:
        features_BCHW = features_BCHW.float()
    return features_BCHW.permute(0, 2, 3, 1).flatten(0, 2)


def voxel_features(backbone3d: nn.Module, side: Side) -> Tensor:
    """Features of every voxel of a batch of chunks, [V, C] float32, in the order given."""
    chunks = zip(side.voxel_V3.split(side.counts), side.color_V3.split(side.counts))
    return backbone3d(collate(list(chunks))).features


def contrast(anchor_NC: Tensor, positive_NC: Tensor, matches: Matches, settings: Pretrain) -> Terms:
    """PointInfoNCE for each sample on its own: negatives come from the same pair or chunk."""
    losses, recall = [], []
    anchors = anchor_NC[matches.anchor_N].split(matches.counts)
    positives = positive_NC[matches.positive_N].split(matches.counts)
    for a_NC, p_NC in zip(anchors, positives):
        losses.append(
            point_info_nce(a_NC, p_NC, settings.temperature, settings.normalise, settings.symmetric)
        )
        recall.append(match_recall(a_NC, p_NC, settings.normalise))
    loss_S = torch.stack(losses) if losses else anchor_NC.new_zeros(0)
    return Terms(loss_S, recall, matches.counts)


def _cells_of_both(nets: nn.ModuleDict, batch: Batch, settings: Pretrain) -> tuple[Tensor, Tensor]:
    # One call for the first images and one for the second, as published: batch norm sees each
    # batch by itself.
    return (
        pixel_features(nets["backbone"], batch.image_a_BCHW, settings),
        pixel_features(nets["backbone"], batch.image_b_BCHW, settings),
    )


def _on_surface(nets: nn.ModuleDict, cells_NC: Tensor, side: Side, settings: Pretrain) -> Terms:
    if not side.counts:
        return Terms(cells_NC.new_zeros(0), [], [])
    voxels_NC = voxel_features(nets["backbone3d"], side)
    # Heads act on the matched rows only; they are linear, so nothing else changes.
    anchor_NC = nets["w2d"](cells_NC[side.matches.anchor_N])
    positive_NC = nets["w3d"](voxels_NC[side.matches.positive_N])
    rows = torch.arange(len(anchor_NC), device=anchor_NC.device)
    return contrast(anchor_NC, positive_NC, Matches(rows, rows, side.matches.counts), settings)


def _join(sides: list[Terms]) -> Terms:
    return Terms(
        torch.cat([side.loss_S for side in sides]),
        [value for side in sides for value in side.recall],
        [value for side in sides for value in side.candidates],
    )
