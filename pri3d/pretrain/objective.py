"""A term of the loss for the samples of a batch, and the contrast that most of them are.

Shapes: C channels, N matches, S samples of a batch.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pri3d.config import Pretrain
from pri3d.pretrain.batches import Matches
from pri3d.pretrain.losses import match_recall, point_info_nce


class LossTerm(NamedTuple):
    """One term of the loss for each of S samples: loss [S], and what to compare it with.

    loss_chance: of a network that knows nothing. recall: share of the anchors that find their own
    candidate first, by chance 1 / candidates. Some have the loss only, or no recall: [].
    """

    loss_S: Tensor
    loss_chance: list[float]
    recall: list[float]
    candidates: list[int]


def contrast(
    anchor_NC: Tensor, positive_NC: Tensor, matches: Matches, settings: Pretrain
) -> LossTerm:
    """PointInfoNCE for each sample on its own: negatives come from the same pair or chunk.

    anchor_NC, positive_NC: features of the matches, which `matches` only names and counts. Matches
    that share a feature are no negatives of each other, but for the rule `official`.
    """
    losses, recall, counts = [], [], matches.counts
    ids = [None] * len(counts), [None] * len(counts)
    if settings.match_rule == "paper":
        ids = matches.anchor_N.split(counts), matches.positive_N.split(counts)
    features = anchor_NC.split(counts), positive_NC.split(counts)
    for a_NC, p_NC, anchor_id_N, positive_id_N in zip(*features, *ids):
        loss = point_info_nce(
            a_NC,
            p_NC,
            settings.temperature,
            settings.normalize,
            settings.symmetric,
            settings.reduction,
            anchor_id_N,
            positive_id_N,
        )
        losses.append(loss)
        recall.append(match_recall(a_NC, p_NC, settings.normalize))
    loss_S = torch.stack(losses) if losses else anchor_NC.new_zeros(0)
    chance = [math.log(n) * (n if settings.reduction == "sum" else 1) for n in counts]
    return LossTerm(loss_S, chance, recall, counts)
