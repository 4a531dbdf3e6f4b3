"""The modes that pretrain a 3D network on clouds of single frames, and what they compare.

`ppkt`: points with the pixels that show them, in the features of a frozen 2D network (PPKT, Liu et
al., arXiv 2104.04687). `pointcontrast`: points of one place in two clouds (PointContrast, Xie et
al., ECCV 2020). Whole frames, with the same frozen network, and the 3D encoder alone: `global_kd`
(Hinton et al., arXiv 1503.02531), `crd` (Tian et al., ICLR 2020) and `gupta` (Gupta et al., CVPR
2016), which PPKT is compared with.

Shapes: B frames, C channels, N matches or rows, V voxels.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from pri3d.config import Pretrain
from pri3d.models.minkunet import minkunet_of
from pri3d.models.teacher import Teacher, UpsamplingProjection
from pri3d.pretrain.batches import Matches, Side
from pri3d.pretrain.cloud_pairs import CloudPairBatch
from pri3d.pretrain.frame_clouds import CloudBatch
from pri3d.pretrain.losses import hardest_contrastive, match_recall
from pri3d.pretrain.objective import LossTerm, contrast
from pri3d.sparse.coordinates import collate_counted

HARDEST_DRAWN = 1024  # rows among which hardest-contrastive seeks negatives


def networks(mode: str, settings: Pretrain) -> nn.ModuleDict:
    """The parts of a mode: backbone3d, and where there is a teacher that, w2d and w3d."""
    nets = nn.ModuleDict({"backbone3d": minkunet_of(settings.network3d)})
    if mode == "pointcontrast":
        return nets
    nets["teacher"] = Teacher(settings.teacher, (settings.height, settings.width))
    channels, deepest = nets["teacher"].channels, settings.network3d.widths[3]
    if mode == "ppkt":
        nets["w2d"] = UpsamplingProjection(channels, settings.projection_channels)
        nets["w3d"] = nn.Linear(settings.network3d.channels, settings.projection_channels)
    elif mode == "crd":
        nets["w2d"] = nn.Linear(channels, settings.projection_channels)
        nets["w3d"] = nn.Linear(deepest, settings.projection_channels)
    else:
        nets["w3d"] = nn.Linear(deepest, channels)
    return nets


def ppkt(nets: nn.ModuleDict, batch: CloudBatch, settings: Pretrain) -> dict[str, LossTerm]:
    """Points are the anchors, the pixels of the same frame the candidates."""
    matches, shape = batch.side.matches, tuple(batch.image_BCHW.shape[-2:])
    map_BChw = _teacher_map(nets, batch, settings)
    pixel_NC = nets["w2d"](map_BChw, matches.anchor_N, matches.counts, shape)
    point_NC = nets["w3d"](_voxels(nets, batch.side)[matches.positive_N])
    turned = Matches(matches.positive_N, matches.anchor_N, matches.counts)
    return {"ppkt": contrast(point_NC, pixel_NC, turned, settings)}


def pointcontrast(
    nets: nn.ModuleDict, batch: CloudPairBatch, settings: Pretrain
) -> dict[str, LossTerm]:
    """Points of the first clouds against points of the second."""
    features = [_voxels(nets, side) for side in (batch.side_a, batch.side_b)]
    if settings.contrast3d == "hardest":
        return {"pointcontrast": _hardest(features, batch)}
    a_NC, b_NC = features[0][batch.pairs.anchor_N], features[1][batch.pairs.positive_N]
    return {"pointcontrast": contrast(a_NC, b_NC, batch.pairs, settings)}


def _hardest(features: list[Tensor], batch: CloudPairBatch) -> LossTerm:
    losses, recall, counts = [], [], batch.pairs.counts
    starts = [torch.tensor([0, *side.counts]).cumsum(0) for side in (batch.side_a, batch.side_b)]
    sides = zip(*(f.split(s.counts) for f, s in zip(features, (batch.side_a, batch.side_b))))
    rows = zip(batch.pairs.anchor_N.split(counts), batch.pairs.positive_N.split(counts))
    listed = batch.listed_L2.split(batch.listed_counts)
    for i, ((a_MC, b_MC), (row_a, row_b), listed_L2) in enumerate(zip(sides, rows, listed)):
        pairs_N2 = torch.stack([row_a - starts[0][i], row_b - starts[1][i]], dim=1)
        a_MC, b_MC = (nn.functional.normalize(f, dim=1) for f in (a_MC, b_MC))
        # Negatives are sought among rows that match something. Matches are in random order: so are
        # the first of them.
        drawn = pairs_N2[:HARDEST_DRAWN]
        positive, negative = hardest_contrastive(
            *(a_MC, b_MC, pairs_N2, drawn[:, 0], drawn[:, 1]), listed_N2=listed_L2
        )
        losses.append(positive + negative)
        recall.append(match_recall(a_MC[pairs_N2[:, 0]], b_MC[pairs_N2[:, 1]]))
    loss_S = torch.stack(losses) if losses else features[0].new_zeros(0)
    # Equal features everywhere: no distance to a match, none to a negative.
    return LossTerm(loss_S, [1.4**2] * len(losses), recall, list(counts))


def global_kd(nets: nn.ModuleDict, batch: CloudBatch, settings: Pretrain) -> dict[str, LossTerm]:
    """KL divergence between softmaxes of the mean features, at a temperature.

    T^2 KL(softmax(t / T) || softmax(s / T)); chance: of an answer that is the same for all frames
    of the batch.
    """
    temperature = settings.kd_temperature
    teacher_BC, student_BC = _global_features(nets, batch, settings)
    wanted_BC = log_softmax(teacher_BC / temperature, dim=1)
    given_BC = log_softmax(nets["w3d"](student_BC) / temperature, dim=1)
    mean_1C = wanted_BC.logsumexp(0, keepdim=True) - math.log(len(wanted_BC))
    loss_B, chance_B = (
        temperature**2 * kl_div(answer_BC, wanted_BC, reduction="none", log_target=True).sum(dim=1)
        for answer_BC in (given_BC, mean_1C.expand_as(wanted_BC))
    )
    return {"global_kd": LossTerm(loss_B, chance_B.tolist(), [], [])}


def crd(nets: nn.ModuleDict, batch: CloudBatch, settings: Pretrain) -> dict[str, LossTerm]:
    """Each frame's cloud against its own image among those of the micro-batch.

    The publication keeps its negatives in a memory of all images; here they are the other images
    of the micro-batch.
    """
    teacher_BC, student_BC = _global_features(nets, batch, settings)
    of_cloud, of_image = nets["w3d"](student_BC), nets["w2d"](teacher_BC)
    of_cloud, of_image = (nn.functional.normalize(f, dim=1) for f in (of_cloud, of_image))
    logits_BB = of_cloud @ of_image.t() / settings.temperature
    own = torch.arange(len(logits_BB), device=logits_BB.device)
    loss_B = nn.functional.cross_entropy(logits_BB, own, reduction="none")
    number = [len(own)] * len(own)
    found_B = (logits_BB.argmax(dim=1) == own).float()
    return {"crd": LossTerm(loss_B, [math.log(n) for n in number], found_B.tolist(), number)}


def gupta(nets: nn.ModuleDict, batch: CloudBatch, settings: Pretrain) -> dict[str, LossTerm]:
    """Mean squared difference of the mean features; chance: of the best answer that is the same for
    all frames of the batch, which is their variance.
    """
    teacher_BC, student_BC = _global_features(nets, batch, settings)
    loss_B = (nets["w3d"](student_BC) - teacher_BC).square().mean(dim=1)
    variance = teacher_BC.var(dim=0, correction=0).mean().item()
    return {"gupta": LossTerm(loss_B, [variance] * len(loss_B), [], [])}


MODES = {
    "ppkt": ppkt,
    "pointcontrast": pointcontrast,
    "global_kd": global_kd,
    "crd": crd,
    "gupta": gupta,
}


def counts(mode: str, batch: CloudBatch | CloudPairBatch) -> dict[str, int]:
    """How many samples of a micro-batch have the mode's term."""
    side = batch.side_a if mode == "pointcontrast" else batch.side
    return {mode: len(side.counts)}


def _voxels(nets: nn.ModuleDict, side: Side) -> Tensor:
    """Features [V, C] of all voxels."""
    return nets["backbone3d"](sparse(side)).features


def sparse(side: Side):
    """Voxels of several clouds and their colours as a sparse tensor, a batch index for each."""
    return collate_counted(side.voxel_V3, side.color_V3, side.counts)


def _teacher_map(nets: nn.ModuleDict, batch: CloudBatch, settings: Pretrain) -> Tensor:
    bf16 = settings.precision == "bf16"
    with torch.autocast(batch.image_BCHW.device.type, torch.bfloat16, enabled=bf16):
        map_BChw = nets["teacher"](batch.image_BCHW)
    return map_BChw.float() if bf16 else map_BChw


def _global_features(
    nets: nn.ModuleDict, batch: CloudBatch, settings: Pretrain
) -> tuple[Tensor, Tensor]:
    """Mean features of each image in the teacher [B, C], and each cloud's deepest level [B, C]."""
    teacher_BC = _teacher_map(nets, batch, settings).mean(dim=(2, 3))
    deepest = nets["backbone3d"].encode(sparse(batch.side))[-1]
    of_frame = deepest.coordinates[:, 0].long()
    total = deepest.features.new_zeros(len(teacher_BC), deepest.features.shape[1])
    total = total.index_add(0, of_frame, deepest.features)
    number = torch.bincount(of_frame, minlength=len(teacher_BC)).to(total.dtype)
    return teacher_BC, total / number[:, None]
