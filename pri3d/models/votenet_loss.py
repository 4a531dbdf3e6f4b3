"""VoteNet's losses (Qi et al., ICCV 2019, section 4.3 and supplement; numbers of its release).

10 * (vote + 0.5 objectness + box + 0.1 class), where box = centre + 0.1 heading bin + heading
residual + 0.1 size cluster + size residual.

Shapes: B scenes, P points, S seeds, K proposals, G places for true boxes, Z size clusters.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from pri3d.models.votenet import Proposals

NEAR, FAR = 0.3, 0.6  # metres from a true centre: objects within, nothing beyond
OBJECTNESS = (0.2, 0.8)  # weights of nothing, and of an object
SOME = 1e-6


class Truth(NamedTuple):
    """True boxes. center, size_residual [B, G, 3] metres; mask [B, G]: 1 for a box, 0 for a place
    without one; heading_bin, size_cluster, kind int64 [B, G]; heading_residual [B, G] radians;
    votes [B, P, 9]: three offsets from each point to centres; in_object [B, P].
    """

    center: Tensor
    mask: Tensor
    heading_bin: Tensor
    heading_residual: Tensor
    size_cluster: Tensor
    size_residual: Tensor
    kind: Tensor
    votes: Tensor
    in_object: Tensor


class Assignment(NamedTuple):
    """label, counted [B, K]: whether a proposal is an object, and whether it counts as either;
    box int64 [B, K]: the true box that is nearest to its votes.
    """

    label: Tensor
    counted: Tensor
    box: Tensor


def assign(aggregated_BK3: Tensor, truth: Truth, with_padding: bool = False) -> Assignment:
    """Which proposals are objects. with_padding: places without a box take part at the origin, as
    in the published code.
    """
    squared = _squared(aggregated_BK3, truth.center)
    if not with_padding:
        squared = squared.masked_fill(truth.mask[:, None] == 0, torch.inf)
    nearest, box = squared.min(dim=2)
    distance = (nearest + SOME).sqrt()
    return Assignment(distance < NEAR, (distance < NEAR) | (distance > FAR), box)


def losses(
    proposals: Proposals,
    seed_BS3: Tensor,
    seed_row_BS: Tensor,
    vote_BS3: Tensor,
    truth: Truth,
    mean_size_Z3: Tensor,
    with_padding: bool = False,
) -> dict[str, Tensor]:
    """All terms by name, unweighted, and `loss`. seed_row_BS: the point that each seed is."""
    assignment = assign(proposals.aggregated, truth, with_padding)
    label = assignment.label.to(vote_BS3.dtype)
    counted = assignment.counted.to(vote_BS3.dtype)
    terms = {"vote": vote_loss(seed_BS3, seed_row_BS, vote_BS3, truth)}
    weights = torch.tensor(OBJECTNESS, dtype=vote_BS3.dtype, device=vote_BS3.device)
    scores = proposals.objectness.transpose(1, 2)
    objectness = cross_entropy(scores, assignment.label.long(), weights, reduction="none")
    terms["objectness"] = _mean(objectness, counted)
    terms["center"] = center_loss(proposals.center, label, truth, with_padding)

    def of_box(values: Tensor) -> Tensor:
        """Of each proposal's true box."""
        return values.gather(1, assignment.box)

    def chosen(scores_BKN: Tensor, target_BK: Tensor) -> Tensor:
        return _mean(cross_entropy(scores_BKN.transpose(1, 2), target_BK, reduction="none"), label)

    headings = proposals.heading_scores.shape[2]
    heading_bin, cluster = of_box(truth.heading_bin), of_box(truth.size_cluster)
    terms["heading_bin"] = chosen(proposals.heading_scores, heading_bin)
    wanted = of_box(truth.heading_residual) / (math.pi / headings)
    given = (proposals.heading_residuals * one_hot(heading_bin, headings)).sum(dim=2)
    terms["heading"] = _mean(huber(given - wanted), label)
    terms["size_cluster"] = chosen(proposals.size_scores, cluster)
    index = assignment.box[..., None].expand(-1, -1, 3)
    wanted = truth.size_residual.gather(1, index) / mean_size_Z3.to(vote_BS3)[cluster]
    hot = one_hot(cluster, proposals.size_scores.shape[2])[..., None]
    given = (proposals.size_residuals * hot).sum(dim=2)
    terms["size"] = _mean(huber(given - wanted).mean(dim=2), label)
    terms["class"] = chosen(proposals.classes, of_box(truth.kind))
    box = terms["center"] + 0.1 * terms["heading_bin"] + terms["heading"]
    box = box + 0.1 * terms["size_cluster"] + terms["size"]
    total = terms["vote"] + 0.5 * terms["objectness"] + box + 0.1 * terms["class"]
    return terms | {"loss": 10 * total}


def vote_loss(seed_BS3: Tensor, seed_row_BS: Tensor, vote_BS3: Tensor, truth: Truth) -> Tensor:
    """Sum of |dx|, |dy|, |dz| to the nearest of three true votes, mean over seeds in objects."""
    on_object = truth.in_object.gather(1, seed_row_BS).to(vote_BS3.dtype)
    offsets = truth.votes.gather(1, seed_row_BS[..., None].expand(-1, -1, 9)).unflatten(2, (3, 3))
    distance = (vote_BS3[:, :, None] - (seed_BS3[:, :, None] + offsets)).abs().sum(dim=3)
    return _mean(distance.min(dim=2).values, on_object)


def center_loss(
    center_BK3: Tensor, label_BK: Tensor, truth: Truth, with_padding: bool = False
) -> Tensor:
    """Squared distances of proposals to the nearest true centre, and of those to the nearest
    proposal."""
    squared = _squared(center_BK3, truth.center)
    mask = truth.mask.to(center_BK3.dtype)
    to_proposal = squared.min(dim=1).values
    if not with_padding:
        squared = squared.masked_fill(truth.mask[:, None] == 0, torch.inf)
    to_truth = squared.min(dim=2).values
    to_truth = torch.where(label_BK > 0, to_truth, torch.zeros_like(to_truth))
    return _mean(to_truth, label_BK) + _mean(to_proposal, mask)


def huber(error: Tensor, delta: float = 1.0) -> Tensor:
    """0.5 e^2 up to delta, then linear."""
    size = error.abs()
    quadratic = size.clamp(max=delta)
    return 0.5 * quadratic.square() + delta * (size - quadratic)


def _squared(a_BK3: Tensor, b_BG3: Tensor) -> Tensor:
    return (a_BK3[:, :, None] - b_BG3[:, None]).square().sum(dim=3)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / (weights.sum() + SOME)
