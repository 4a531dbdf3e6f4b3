"""VoteNet after the backbone (Qi et al., "Deep Hough Voting for 3D Object Detection in Point
Clouds", ICCV 2019): points that vote (seeds) vote for centers, clusters of votes become boxes.

Shapes: B scenes, S seeds, K proposals, C channels, H heading bins, Z size clusters. Parameter names
are those of the published network.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


class Proposals(NamedTuple):
    """The output of the head for each proposal.

    aggregated: centers of the clusters [B, K, 3], center: of the boxes [B, K, 3], in meters;
    objectness: scores [B, K, 2]; heading_scores, heading_residuals: [B, K, H], residuals as shares
    of half a bin's width (times pi / H: radians); size_scores: [B, K, Z]; size_residuals: [B, K, Z,
    3], as shares of the mean sizes; classes: scores [B, K, classes].
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
    """The vote of each seed: the center of its object, and a feature."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, channels, 1)
        self.conv2 = nn.Conv1d(channels, channels, 1)
        self.conv3 = nn.Conv1d(channels, 3 + channels, 1)
        self.bn1, self.bn2 = nn.BatchNorm1d(channels), nn.BatchNorm1d(channels)

    def forward(self, seed_BS3: Tensor, feature_BCS: Tensor) -> tuple[Tensor, Tensor]:
        """Votes [B, S, 3] and their features [B, C, S], which the detector normalizes."""
        net = relu(self.bn1(self.conv1(feature_BCS)))
        net = relu(self.bn2(self.conv2(net)))
        net = self.conv3(net)
        vote_BS3 = seed_BS3 + net[:, :3].transpose(1, 2)
        return vote_BS3, feature_BCS + net[:, 3:]


class ProposalHead(nn.Module):
    """Three 1x1 convolutions that map the feature of a cluster of votes to a proposal."""

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
    """Split the channels of the head.

    Args:
        net_BCK: objectness (2), center (3), heading scores and residuals, size scores, size
            residuals (3 per size cluster), class scores.
        aggregated_BK3: centers of the clusters.
        headings: number of heading bins.
        sizes: number of size clusters.
    """
    net_BKC = net_BCK.transpose(1, 2)
    classes = net_BKC.shape[2] - 5 - 2 * headings - 4 * sizes
    parts = net_BKC.split([2, 3, headings, headings, sizes, 3 * sizes, classes], dim=2)
    objectness, offset, heading_scores, heading, size_scores, size, kinds = parts
    return Proposals(
        aggregated=aggregated_BK3,
        objectness=objectness,
        center=aggregated_BK3 + offset,
        heading_scores=heading_scores,
        heading_residuals=heading,
        size_scores=size_scores,
        size_residuals=size.unflatten(2, (sizes, 3)),
        classes=kinds,
    )


def boxes_of(proposals: Proposals, mean_size_Z3: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The most likely box of each proposal: center [B, K, 3], size [B, K, 3], heading [B, K].

    With one heading bin, boxes are aligned and the heading is 0.
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
    """Clusters votes around a few of them that are far from each other.

    A cluster has the first `samples` votes within `radius` of its center. Its feature is the max
    over its votes of three 1x1 convolutions of a vote's position (relative to the center, in units
    of the radius) and feature.

    Args:
        channels: of the votes' features.
        out: channels of the clusters' features.
        radius: meters.
        samples: number of votes per cluster.
    """

    def __init__(
        self, channels: int, out: int = 128, radius: float = 0.3, samples: int = 16
    ) -> None:
        super().__init__()
        self.radius, self.samples = radius, samples
        layers: list[nn.Module] = []
        before = channels + 3
        for _ in range(3):
            layers += [nn.Conv2d(before, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            before = out
        self.layers = nn.Sequential(*layers)

    def forward(
        self, vote_BS3: Tensor, feature_BCS: Tensor, clusters: int
    ) -> tuple[Tensor, Tensor]:
        """Centers of the clusters [B, K, 3] and their features [B, out, K]."""
        with torch.no_grad():
            chosen_BK = farthest_point_sampling(vote_BS3, clusters)
        center_BK3 = vote_BS3.gather(1, chosen_BK[..., None].expand(-1, -1, 3))
        with torch.no_grad():
            near_BKM = neighbors(center_BK3, vote_BS3, self.radius, self.samples)
        index = near_BKM.flatten(1)
        shape = near_BKM.shape
        relative = vote_BS3.gather(1, index[..., None].expand(-1, -1, 3)).unflatten(1, shape[1:])
        relative = (relative - center_BK3[:, :, None]) / self.radius
        features = feature_BCS.gather(
            2, index[:, None].expand(-1, feature_BCS.shape[1], -1)
        ).unflatten(2, shape[1:])
        grouped = torch.cat([relative.permute(0, 3, 1, 2), features], dim=1)
        cluster_BCK: Tensor = self.layers(grouped).amax(dim=3)
        return center_BK3, cluster_BCK


def farthest_point_sampling(point_BN3: Tensor, number: int) -> Tensor:
    """Farthest point sampling of a batch on its device (`pri3d.selection` has it for the CPU).

    Args:
        point_BN3: N points per scene.
        number: of points to choose.

    Returns:
        Rows int64 [B, number]: the first point, then always the one farthest from all chosen before
        it. If there are fewer points, they are repeated in order.
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


def neighbors(center_BK3: Tensor, point_BN3: Tensor, radius: float, count: int) -> Tensor:
    """The first points, in their order, within a radius of each center.

    Args:
        center_BK3: meters.
        point_BN3: N points per scene.
        radius: meters; points at this distance are excluded.
        count: number of points per center.

    Returns:
        Rows int64 [B, K, count]. If there are fewer points, the first one is repeated; if there are
        none, the nearest point is.
    """
    squared = (center_BK3[:, :, None] - point_BN3[:, None]).square().sum(dim=3)
    n = point_BN3.shape[1]
    order = torch.arange(n, device=center_BK3.device).expand_as(squared)
    order = torch.where(squared < radius**2, order, n)
    first = order.topk(min(count, n), dim=2, largest=False).values.sort(dim=2).values
    nearest = squared.argmin(dim=2, keepdim=True)
    filler = torch.where(first[..., :1] < n, first[..., :1], nearest)
    rows = torch.where(first < n, first, filler)
    return torch.cat([rows, filler.expand(-1, -1, count - rows.shape[2])], dim=2)
