"""Recall of matches: how often the most similar position is at, or near, the true one.

A position is a cell of an image (row, column) or a voxel of a chunk (x, y, z). Distances are in
cells or voxels.

Shapes: N matches, M positions that are searched, C channels, D = 2 or 3 coordinates.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from scipy.spatial import cKDTree
from torch import Tensor, nn

from pri3d.pretrain.losses import match_recall

WITHIN = (1, 3, 5)  # cells or voxels

Figures = dict[str, float]  # recall_1, recall_3, recall_5, top1, candidates


def recall_of(
    anchor_NC: Float[Tensor, "n c"],
    searched_MC: Float[Tensor, "m c"],
    true_N: Int64[Tensor, " n"],
    position_MD: Float[Tensor, "m d"],
    normalize: bool,
) -> tuple[Figures, Int64[Tensor, " n"]]:
    """Recall of matches among all positions.

    Where several positions are equally similar, the mean over them counts.

    Args:
        anchor_NC: features of the anchors.
        searched_MC: features of all positions.
        true_N: the position that matches each anchor.
        position_MD: coordinates of all positions.
        normalize: compare directions (cosine) instead of plain dot products.

    Returns:
        recall_k, the share of anchors whose most similar position is within k of the true one;
        top1, the share whose own match is the most similar among the N matches (`candidates`);
        and the most similar position of each anchor.
    """
    top1 = match_recall(anchor_NC, searched_MC[true_N], normalize)
    if normalize:
        anchor_NC, searched_MC = (nn.functional.normalize(x) for x in (anchor_NC, searched_MC))
    similarity_NM = anchor_NC @ searched_MC.t()
    best_N1, predicted_N1 = similarity_NM.max(dim=1, keepdim=True)
    predicted_N = predicted_N1[:, 0]
    distance_N = (position_MD[predicted_N] - position_MD[true_N]).norm(dim=1)
    near_NK = (distance_N[:, None] <= distance_N.new_tensor(WITHIN)).float()
    for row in ((similarity_NM == best_N1).sum(dim=1) > 1).nonzero()[:, 0].tolist():
        ties = (similarity_NM[row] == best_N1[row]).nonzero()[:, 0]
        distance = (position_MD[ties] - position_MD[true_N[row]]).norm(dim=1)
        near_NK[row] = torch.stack([(distance <= k).float().mean() for k in WITHIN])
    recall = {f"recall_{k}": near_NK[:, i].mean().item() for i, k in enumerate(WITHIN)}
    return recall | {"top1": top1, "candidates": len(anchor_NC)}, predicted_N


def chance_of(true_N: Int64[Tensor, " n"], position_MD: Float[Tensor, "m d"]) -> Figures:
    """The figures of `recall_of` for guessing: shares of positions that are near the true ones."""
    tree = cKDTree(position_MD.cpu().numpy())
    true_ND = tree.data[true_N.cpu()]
    shares = {
        f"recall_{k}": float(tree.query_ball_point(true_ND, k, return_length=True).mean())
        / len(position_MD)
        for k in WITHIN
    }
    return shares | {"top1": 1 / len(true_N), "candidates": len(true_N)}


def cell_positions(cells: int, width: int, device: torch.device) -> Float[Tensor, "m 2"]:
    """Row and column of each cell of feature maps that are `width` cells wide."""
    cell_M = torch.arange(cells, device=device)
    return torch.stack([cell_M // width, cell_M % width], dim=1).float()


def mean_figures(figures: Sequence[dict[str, Figures]]) -> dict[str, Figures]:
    """Kind of match -> mean figures over the pairs that have matches of the kind."""
    kinds = sorted({kind for of_pair in figures for kind in of_pair})
    means = {}
    for kind in kinds:
        rows = [of_pair[kind] for of_pair in figures if kind in of_pair]
        means[kind] = {name: math.fsum(row[name] for row in rows) / len(rows) for name in rows[0]}
    return means
