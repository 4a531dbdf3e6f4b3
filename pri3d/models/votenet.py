"""VoteNet's parts after the backbone (Qi et al., "Deep Hough Voting for 3D Object Detection in
Point Clouds", ICCV 2019): seeds vote for centres, clusters of votes become boxes.

Shapes: B scenes, S seeds, K proposals, C channels, H heading bins, Z size clusters. Parameter names
are those of the published network.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


class Proposals(NamedTuple):
    """What the head says of each proposal. center, aggregated: [B, K, 3] metres; objectness [B, K,
    2]; heading_scores, heading_residuals [B, K, H] (of half a bin's width; times pi / H: radians);
    size_scores [B, K, Z]; size_residuals [B, K, Z, 3] (of the mean sizes); classes [B, K, classes].
    """

    aggregated: Tensor
    objectness: Tensor
    center: Tensor
    heading_scores: Tensor
    heading_residuals: Tensor
    size_scores: Tensor
    size_residuals: Tensor
    classes: Tensor


class Voting(nn.Module):
    """Each seed's vote: where its object's centre may be, and the feature that it brings there."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, channels, 1)
        self.conv2 = nn.Conv1d(channels, channels, 1)
        self.conv3 = nn.Conv1d(channels, 3 + channels, 1)
        self.bn1, self.bn2 = nn.BatchNorm1d(channels), nn.BatchNorm1d(channels)

    def forward(self, seed_BS3: Tensor, feature_BCS: Tensor) -> tuple[Tensor, Tensor]:
        """Votes [B, S, 3] and their features [B, C, S]; the detector takes their directions."""
        net = relu(self.bn1(self.conv1(feature_BCS)))
        net = relu(self.bn2(self.conv2(net)))
        net = self.conv3(net)
        vote_BS3 = seed_BS3 + net[:, :3].transpose(1, 2)
        return vote_BS3, feature_BCS + net[:, 3:]


class ProposalHead(nn.Module):
    """Three 1x1 convolutions that turn the feature of a cluster of votes into numbers of a box."""

    def __init__(self, headings: int, sizes: int, classes: int, channels: int = 128) -> None:
        super().__init__()
        out = 2 + 3 + 2 * headings + 4 * sizes + classes
        self.conv1 = nn.Conv1d(channels, channels, 1)
        self.conv2 = nn.Conv1d(channels, channels, 1)
        self.conv3 = nn.Conv1d(channels, out, 1)
        self.bn1, self.bn2 = nn.BatchNorm1d(channels), nn.BatchNorm1d(channels)
        self.headings, self.sizes = headings, sizes

    def forward(self, aggregated_BK3: Tensor, feature_BCK: Tensor) -> Proposals:
        net = relu(self.bn1(self.conv1(feature_BCK)))
        net = relu(self.bn2(self.conv2(net)))
        return decode(self.conv3(net), aggregated_BK3, self.headings, self.sizes)


def decode(net_BCK: Tensor, aggregated_BK3: Tensor, headings: int, sizes: int) -> Proposals:
    """The numbers of a head by name: objectness 2, centre 3, heading scores and residuals, size
    scores and residuals (3 of each cluster), class scores.
    """
    net_BKC = net_BCK.transpose(1, 2)
    classes = net_BKC.shape[2] - 5 - 2 * headings - 4 * sizes
    parts = net_BKC.split([2, 3, headings, headings, sizes, 3 * sizes, classes], dim=2)
    objectness, offset, heading_scores, heading, size_scores, size, kinds = parts
    return Proposals(
        aggregated_BK3,
        objectness,
        aggregated_BK3 + offset,
        heading_scores,
        heading,
        size_scores,
        size.unflatten(2, (sizes, 3)),
        kinds,
    )


def boxes_of(proposals: Proposals, mean_size_Z3: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The most likely box of each proposal: centre [B, K, 3], size [B, K, 3], heading [B, K].

    With one heading bin boxes are aligned: heading 0.
    """
    headings = proposals.heading_scores.shape[2]
    bin_BK = proposals.heading_scores.argmax(dim=2)
    residual_BK = proposals.heading_residuals.gather(2, bin_BK[..., None])[..., 0]
    heading_BK = bin_BK.to(residual_BK) * (2 * math.pi / headings) + residual_BK * (
        math.pi / headings
    )
    if headings == 1:
        heading_BK = torch.zeros_like(heading_BK)
    cluster_BK = proposals.size_scores.argmax(dim=2)
    index = cluster_BK[..., None, None].expand(-1, -1, 1, 3)
    residual_BK3 = proposals.size_residuals.gather(2, index)[:, :, 0]
    mean_BK3 = mean_size_Z3.to(residual_BK3)[cluster_BK]
    return proposals.center, mean_BK3 * (1 + residual_BK3), heading_BK


class VoteAggregation(nn.Module):
    """Clusters of votes: some of them, far from each other, take what lies around them.

    Of the votes within the radius the first `samples` count; the feature of a cluster is the
    maximum over what three 1x1 convolutions make of each vote's place (relative, by the radius) and
    feature.
    """

    def __init__(self, channels: int, out: int = 128, radius: float = 0.3, samples: int = 16):
        super().__init__()
        self.radius, self.samples = radius, samples
        layers, before = [], channels + 3
        for _ in range(3):
            layers += [nn.Conv2d(before, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            before = out
        self.layers = nn.Sequential(*layers)

    def forward(
        self, vote_BS3: Tensor, feature_BCS: Tensor, clusters: int
    ) -> tuple[Tensor, Tensor]:
        """Places of the clusters [B, K, 3] and their features [B, out, K]."""
        with torch.no_grad():
            chosen_BK = farthest_points(vote_BS3, clusters)
        place_BK3 = vote_BS3.gather(1, chosen_BK[..., None].expand(-1, -1, 3))
        with torch.no_grad():
            near_BKM = around(place_BK3, vote_BS3, self.radius, self.samples)
        index = near_BKM.flatten(1)
        shape = near_BKM.shape
        relative = vote_BS3.gather(1, index[..., None].expand(-1, -1, 3)).unflatten(1, shape[1:])
        relative = (relative - place_BK3[:, :, None]) / self.radius
        features = feature_BCS.gather(
            2, index[:, None].expand(-1, feature_BCS.shape[1], -1)
        ).unflatten(2, shape[1:])
        grouped = torch.cat([relative.permute(0, 3, 1, 2), features], dim=1)
        return place_BK3, self.layers(grouped).amax(dim=3)


def farthest_points(point_BN3: Tensor, number: int) -> Tensor:
    """Rows int64 [B, number] of points far from each other: the first, then always the one that is
    farthest from all chosen so far. With fewer points they are repeated in order.
    """
    batch, n = point_BN3.shape[:2]
    if n <= number:
        rows = torch.arange(number, device=point_BN3.device) % max(n, 1)
        return rows.expand(batch, number)
    chosen_BK = torch.zeros(batch, number, dtype=torch.int64, device=point_BN3.device)
    nearest_BN = torch.full_like(point_BN3[..., 0], torch.inf)
    for i in range(1, number):
        last = chosen_BK[:, i - 1, None, None].expand(-1, -1, 3)
        squared = (point_BN3 - point_BN3.gather(1, last)).square().sum(dim=2)
        nearest_BN = torch.minimum(nearest_BN, squared)
        chosen_BK[:, i] = nearest_BN.argmax(dim=1)
    return chosen_BK


def around(place_BK3: Tensor, point_BN3: Tensor, radius: float, most: int) -> Tensor:
    """int64 [B, K, most]: the first points, in their order, closer to each place than the radius;
    where there are fewer the first is repeated, and where there is none the nearest point is.
    """
    squared = (place_BK3[:, :, None] - point_BN3[:, None]).square().sum(dim=3)
    n = point_BN3.shape[1]
    order = torch.arange(n, device=place_BK3.device).expand_as(squared)
    order = torch.where(squared < radius**2, order, n)
    first = order.topk(min(most, n), dim=2, largest=False).values.sort(dim=2).values
    lone = squared.argmin(dim=2, keepdim=True)
    lead = torch.where(first[..., :1] < n, first[..., :1], lone)
    rows = torch.where(first < n, first, lead)
    return torch.cat([rows, lead.expand(-1, -1, most - rows.shape[2])], dim=2)
