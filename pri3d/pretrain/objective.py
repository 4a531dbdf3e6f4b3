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
    """One term of the loss for each of S samples, and what to compare it with.

    loss_S: float. loss_chance: loss of a network that cannot tell candidates apart. recall: share
    of the anchors that find their own candidate first; 1 / candidates by chance. candidates:
    number of them. The lists have S entries, or none if the term has no such value.
    """

    loss_S: Tensor
    loss_chance: list[float]
    recall: list[float]
    candidates: list[int]


def contrast(
    anchor_NC: Tensor, positive_NC: Tensor, matches: Matches, settings: Pretrain
) -> LossTerm:
    """PointInfoNCE of each sample on its own: negatives come from the same pair or chunk.

    Matches that share a feature are no negatives of each other, except under the rule `official`.

    Args:
        anchor_NC: features of the anchors of all matches.
        positive_NC: features of their positives.
        matches: ids and counts of the matches.
        settings: temperature, normalize, symmetric, reduction and match_rule.
    """
    counts = matches.counts
    anchor_id_N, positive_id_N = (
        torch.split(matches.anchor_N, counts),
        torch.split(matches.positive_N, counts),
    )
    losses, recall = [], []
    for i, (a_NC, p_NC) in enumerate(
        zip(torch.split(anchor_NC, counts), torch.split(positive_NC, counts))
    ):
        exclude_shared = settings.match_rule == "paper"
        loss = point_info_nce(
            a_NC,
            p_NC,
            settings.temperature,
            normalize=settings.normalize,
            symmetric=settings.symmetric,
            reduction=settings.reduction,
            anchor_id_N=anchor_id_N[i] if exclude_shared else None,
            candidate_id_N=positive_id_N[i] if exclude_shared else None,
        )
        losses.append(loss)
        recall.append(match_recall(a_NC, p_NC, settings.normalize))
    loss_S = torch.stack(losses) if losses else anchor_NC.new_zeros(0)
    chance = [math.log(n) * (n if settings.reduction == "sum" else 1) for n in counts]
    return LossTerm(loss_S, chance, recall, counts)
