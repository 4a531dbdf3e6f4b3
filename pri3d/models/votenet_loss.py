"""VoteNet's losses (Qi et al., ICCV 2019, section 4.3 and supplement; constants of its release).

The total loss is the sum of WEIGHTS[name] * term over the terms of `losses`.

Shapes: B scenes, P points, S seeds, K proposals, G true boxes (padded), Z size clusters.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from pri3d.models.votenet import Proposals

# Of the terms: 10 * (vote + 0.5 objectness + box + 0.1 class), where box = center + 0.1 heading bin
# + heading + 0.1 size cluster + size.
WEIGHTS = {
    "vote": 10,
    "objectness": 5,
    "center": 10,
    "heading_bin": 1,
    "heading": 10,
    "size_cluster": 1,
    "size": 10,
    "class": 1,
}
# Meters from the nearest true center: a proposal within NEAR is an object, one beyond FAR is not,
# one in between is ignored.
NEAR, FAR = 0.3, 0.6
OBJECTNESS = (0.2, 0.8)  # weights of the classes "no object" and "object"
EPSILON = 1e-6


class Truth(NamedTuple):
    """The true boxes of a batch, padded to G per scene, and the votes of its points.

    center, size_residual: [B, G, 3] in meters; mask: [B, G], 1 for a box, 0 for padding;
    heading_bin, size_cluster, kind: int64 [B, G]; heading_residual: [B, G] in radians; votes: [B,
    P, 9], three offsets from each point to centers; in_object: [B, P]. Padding is matched by its
    center like a box, and therefore has `PADDING_CENTER`.
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


# Meters, on each axis: far from every proposal. (The published code leaves padding at the origin,
# where it turns proposals into objects.)
PADDING_CENTER = 1e9


class Assignment(NamedTuple):
    """The true box of each proposal.

    label: bool [B, K], whether the proposal is an object; counted: bool [B, K], whether it counts
    as an object or as none; box: int64 [B, K], the true box nearest to its cluster.
    """

    label: Tensor
    counted: Tensor
    box: Tensor


def assign(aggregated_BK3: Tensor, truth: Truth) -> Assignment:
    """Assign proposals to true boxes by the centers of their clusters."""
    squared, box = _squared_distances(aggregated_BK3, truth.center).min(dim=2)
    distance = (squared + EPSILON).sqrt()
    return Assignment(label=distance < NEAR, counted=(distance < NEAR) | (distance > FAR), box=box)


def losses(
    proposals: Proposals,
    seed_BS3: Tensor,
    seed_row_BS: Tensor,
    vote_BS3: Tensor,
    truth: Truth,
    mean_size_Z3: Tensor,
) -> dict[str, Tensor]:
    """All terms by name, unweighted.

    Args:
        proposals: of the network.
        seed_BS3: the points that vote, in meters.
        seed_row_BS: their rows among the points of `truth`, int64.
        vote_BS3: their votes, in meters.
        truth: what the network should predict.
        mean_size_Z3: of the size clusters, in meters.
    """
    assignment = assign(proposals.aggregated, truth)
    label = assignment.label.to(vote_BS3.dtype)
    counted = assignment.counted.to(vote_BS3.dtype)
    class_weights = torch.tensor(OBJECTNESS, dtype=vote_BS3.dtype, device=vote_BS3.device)
    scores = proposals.objectness.transpose(1, 2)
    objectness = cross_entropy(scores, assignment.label.long(), class_weights, reduction="none")

    def of_box(values_BG: Tensor) -> Tensor:
        """The value [B, K] of the true box of each proposal."""
        return values_BG.gather(1, assignment.box)

    def classification(scores_BKN: Tensor, target_BK: Tensor) -> Tensor:
        """Mean cross entropy over the proposals that are objects."""
        return _mean(cross_entropy(scores_BKN.transpose(1, 2), target_BK, reduction="none"), label)

    headings = proposals.heading_scores.shape[2]
    heading_bin, cluster = of_box(truth.heading_bin), of_box(truth.size_cluster)
    heading_target = of_box(truth.heading_residual) / (math.pi / headings)
    heading = (proposals.heading_residuals * one_hot(heading_bin, headings)).sum(dim=2)
    index = assignment.box[..., None].expand(-1, -1, 3)
    size_target = truth.size_residual.gather(1, index) / mean_size_Z3.to(vote_BS3)[cluster]
    is_cluster = one_hot(cluster, proposals.size_scores.shape[2])[..., None]
    size = (proposals.size_residuals * is_cluster).sum(dim=2)
    return {
        "vote": vote_loss(seed_BS3, seed_row_BS, vote_BS3, truth),
        "objectness": _mean(objectness, counted),
        "center": center_loss(proposals.center, label, truth),
        "heading_bin": classification(proposals.heading_scores, heading_bin),
        "heading": _mean(huber(heading - heading_target), label),
        "size_cluster": classification(proposals.size_scores, cluster),
        "size": _mean(huber(size - size_target).mean(dim=2), label),
        "class": classification(proposals.classes, of_box(truth.kind)),
    }


def vote_loss(seed_BS3: Tensor, seed_row_BS: Tensor, vote_BS3: Tensor, truth: Truth) -> Tensor:
    """L1 distance of votes to the nearest of three true votes, mean over the seeds in objects."""
    in_object = truth.in_object.gather(1, seed_row_BS).to(vote_BS3.dtype)
    offsets = truth.votes.gather(1, seed_row_BS[..., None].expand(-1, -1, 9)).unflatten(2, (3, 3))
    distance = (vote_BS3[:, :, None] - (seed_BS3[:, :, None] + offsets)).abs().sum(dim=3)
    return _mean(distance.min(dim=2).values, in_object)


def center_loss(center_BK3: Tensor, label_BK: Tensor, truth: Truth) -> Tensor:
    """Squared distances from proposals to the nearest true center, and from true centers to the
    nearest proposal; label_BK: 1 for the proposals that are objects.
    """
    squared = _squared_distances(center_BK3, truth.center)
    mask = truth.mask.to(center_BK3.dtype)
    to_proposal = torch.where(mask > 0, squared.min(dim=1).values, 0)
    to_truth = torch.where(label_BK > 0, squared.min(dim=2).values, 0)
    return _mean(to_truth, label_BK) + _mean(to_proposal, mask)


def huber(error: Tensor, delta: float = 1.0) -> Tensor:
    """0.5 e^2 up to delta, then linear."""
    size = error.abs()
    quadratic = size.clamp(max=delta)
    return 0.5 * quadratic.square() + delta * (size - quadratic)


def _squared_distances(a_BK3: Tensor, b_BG3: Tensor) -> Tensor:
    return (a_BK3[:, :, None] - b_BG3[:, None]).square().sum(dim=3)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / (weights.sum() + EPSILON)
