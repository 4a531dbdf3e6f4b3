"""pointcontrast: points of one cloud against points of another cloud at the same place.

PointContrast, Xie et al., ECCV 2020: section 3.2 with PointInfoNCE (equation 1), or
hardest-contrastive (section 3.3).

Shapes: M voxels of a cloud, C channels, N matches, L known matches, S samples.
"""

import torch
from torch import Tensor, nn

from pri3d.config import Pretrain
from pri3d.models.minkunet import minkunet_of
from pri3d.pretrain.cloud_pairs import CloudPairBatch, CloudPairs
from pri3d.pretrain.losses import hardest_contrastive, match_recall
from pri3d.pretrain.modes import Inputs
from pri3d.pretrain.objective import LossTerm, contrast
from pri3d.pretrain.voxel_features import voxel_features

HARDEST_CANDIDATES = 1024  # rows among which hardest-contrastive seeks negatives
# Loss of equal features everywhere: no distance to a match, none to a negative.
HARDEST_CHANCE = 1.4**2


def samples(inputs: Inputs, settings: Pretrain) -> CloudPairs:
    """Pairs of clouds."""
    return CloudPairs(inputs.pairs, inputs.clouds_dir, settings, inputs.held_out)


def networks(settings: Pretrain) -> nn.ModuleDict:
    """The 3D network."""
    return nn.ModuleDict({"backbone3d": minkunet_of(settings.network3d)})


def after_initial_weights(nets: nn.ModuleDict) -> None:
    """Nothing to do."""


def loss(nets: nn.ModuleDict, batch: CloudPairBatch, settings: Pretrain) -> dict[str, LossTerm]:
    """Voxels of the first clouds are the anchors, voxels of the second the candidates."""
    a_MC = voxel_features(nets["backbone3d"], batch.voxels_a)
    b_MC = voxel_features(nets["backbone3d"], batch.voxels_b)
    if settings.contrast3d == "hardest":
        return {"pointcontrast": _hardest_term(a_MC, b_MC, batch)}
    a_NC, b_NC = a_MC[batch.pairs.anchor_N], b_MC[batch.pairs.positive_N]
    return {"pointcontrast": contrast(a_NC, b_NC, batch.pairs, settings)}


def samples_per_term(batch: CloudPairBatch, settings: Pretrain) -> dict[str, int]:
    """Number of pairs."""
    return {"pointcontrast": len(batch.voxels_a.counts)}


def is_complete(batch: CloudPairBatch) -> bool:
    """Whether there is a pair."""
    return len(batch.voxels_a.counts) > 0


def after_step(nets: nn.ModuleDict, settings: Pretrain) -> None:
    """Nothing to do."""


def _hardest_term(a_MC: Tensor, b_MC: Tensor, batch: CloudPairBatch) -> LossTerm:
    """Hardest-contrastive loss of each pair on its own."""
    voxels_a, voxels_b, counts = batch.voxels_a, batch.voxels_b, batch.pairs.counts
    first_a = torch.tensor([0, *voxels_a.counts]).cumsum(0)
    first_b = torch.tensor([0, *voxels_b.counts]).cumsum(0)
    clouds = zip(torch.split(a_MC, voxels_a.counts), torch.split(b_MC, voxels_b.counts))
    rows = zip(
        torch.split(batch.pairs.anchor_N, counts), torch.split(batch.pairs.positive_N, counts)
    )
    known = torch.split(batch.known_L2, batch.known_counts)
    losses, recall = [], []
    for i, ((cloud_a_MC, cloud_b_MC), (row_a_N, row_b_N)) in enumerate(zip(clouds, rows)):
        pairs_N2 = torch.stack([row_a_N - first_a[i], row_b_N - first_b[i]], dim=1)
        unit_a_MC = nn.functional.normalize(cloud_a_MC, dim=1)
        unit_b_MC = nn.functional.normalize(cloud_b_MC, dim=1)
        # Negatives are sought among rows that have a match. Matches are in random order, and so
        # are the first of them.
        candidates_N2 = pairs_N2[:HARDEST_CANDIDATES]
        positive, negative = hardest_contrastive(
            unit_a_MC,
            unit_b_MC,
            pairs_N2,
            candidates_N2[:, 0],
            candidates_N2[:, 1],
            known_L2=known[i],
        )
        losses.append(positive + negative)
        recall.append(match_recall(unit_a_MC[pairs_N2[:, 0]], unit_b_MC[pairs_N2[:, 1]]))
    loss_S = torch.stack(losses) if losses else a_MC.new_zeros(0)
    return LossTerm(loss_S, [HARDEST_CHANCE] * len(losses), recall, list(counts))
