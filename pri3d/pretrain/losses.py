"""The contrastive losses and the recall that is logged with them.

Row i of the anchors and row i of the candidates belong together.

Shapes: N matches, M features of a view, C channels, K rows, L pairs of rows, R rows of a block.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import relu

BLOCK = 2**22  # similarities in memory at once: 16 MiB of float32

Ids = tuple[Tensor | None, Tensor | None]  # of anchors and of candidates, see point_info_nce


def point_info_nce(
    anchors_NC: Float[Tensor, "n c"],
    candidates_NC: Float[Tensor, "n c"],
    temperature: float,
    normalize: bool = True,
    symmetric: bool = False,
    reduction: Literal["mean", "sum"] = "mean",
    anchor_id_N: Int[Tensor, " n"] | None = None,
    candidate_id_N: Int[Tensor, " n"] | None = None,
    ignore_NN: Bool[Tensor, "n n"] | None = None,
) -> Float[Tensor, ""]:
    """PointInfoNCE: each anchor has to identify its own candidate among all N.

    -1/N sum_i log( exp(a_i . c_i / t) / sum_k exp(a_i . c_k / t) )

    This is equation 1 of PointContrast (Xie et al., ECCV 2020), which Pri3D (Hou et al., ICCV 2021)
    uses for pixel-pixel and pixel-voxel matches; both papers write the sum over i instead of the
    mean. The N - 1 other candidates are the negatives: a network that cannot tell them apart has
    a loss of ln(N).

    Similarities are computed in blocks of rows, once forward and again backward: memory grows with
    N x C, not with N x N. A row of length zero has no direction: with `normalize` it stays zero
    (similarity 0 to everything) and has a finite gradient. Without negatives the loss is 0.

    Args:
        anchors_NC: floating point; half precision is computed in float32.
        candidates_NC: likewise.
        temperature: t > 0, no unit.
        normalize: compare directions (cosine) instead of plain dot products.
        symmetric: mean of both directions, anchors among candidates and candidates among anchors.
        reduction: mean or sum over the anchors.
        anchor_id_N: the feature (cell, voxel) that each anchor was read from. Two matches that
            share a feature are never each other's negatives.
        candidate_id_N: likewise of the candidates.
        ignore_NN: true where candidate k is no negative of anchor i; false for k = i.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: the shapes differ; N is 0 (a mean over nothing would be NaN: leave such samples
            out, and count them); or the temperature is not positive.

    Example:
        >>> anchors = torch.eye(4)
        >>> round(point_info_nce(anchors, anchors, temperature=0.1).item(), 6)
        0.000136
        >>> round(point_info_nce(anchors, anchors.roll(1, dims=0), temperature=0.1).item(), 3)
        10.0
    """
    if not temperature > 0:
        raise ValueError(f"point_info_nce: the temperature is {temperature}; it must be positive")
    _check(anchors_NC, candidates_NC, "point_info_nce")
    with torch.autocast(anchors_NC.device.type, enabled=False):
        anchors_NC, candidates_NC = _comparable(anchors_NC, candidates_NC, normalize)
        ids = _repeated(anchor_id_N), _repeated(candidate_id_N)
        loss: Tensor = _Nce.apply(  # type: ignore[no-untyped-call]
            anchors_NC / temperature, candidates_NC, symmetric, ids, ignore_NN
        )
    return loss / len(anchors_NC) if reduction == "mean" else loss


class _Nce(torch.autograd.Function):
    """The sum over all rows. Backward computes the logits again: cheaper than keeping them."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        candidates: Tensor,
        symmetric: bool,
        ids: Ids,
        ignore: Tensor | None,
    ) -> Tensor:
        row_N = anchors.new_empty(len(anchors))
        column_N = anchors.new_full((len(anchors),), -torch.inf)
        for rows, logits_RN in _logits(anchors, candidates, ids, ignore):
            row_N[rows] = logits_RN.logsumexp(dim=1)
            if symmetric:
                column_N = torch.logaddexp(column_N, logits_RN.logsumexp(dim=0))
        ctx.save_for_backward(anchors, candidates, row_N, column_N)
        ctx.symmetric, ctx.ids, ctx.ignore = symmetric, ids, ignore
        both = (row_N + column_N) / 2 if symmetric else row_N
        return (both - (anchors * candidates).sum(dim=1)).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        anchors, candidates, row_N, column_N = ctx.saved_tensors
        grad_anchors, grad_candidates = -candidates, -anchors
        for rows, logits_RN in _logits(anchors, candidates, ctx.ids, ctx.ignore):
            if ctx.symmetric:
                share_RN = (logits_RN - column_N).exp_()
                share_RN += logits_RN.sub_(row_N[rows, None]).exp_()
                share_RN /= 2
            else:
                share_RN = logits_RN.sub_(row_N[rows, None]).exp_()
            grad_anchors[rows] += share_RN @ candidates
            grad_candidates += share_RN.t() @ anchors[rows]
        return grad * grad_anchors, grad * grad_candidates, None, None, None


def _logits(
    anchors: Tensor, candidates: Tensor, ids: Ids, ignore: Tensor | None
) -> Iterator[tuple[slice, Tensor]]:
    """Rows, and their dot products with all candidates; -inf where a candidate is no negative."""
    n = len(anchors)
    step = max(1, BLOCK // n)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        logits_RN = anchors[rows] @ candidates.t()
        not_negative = [] if ignore is None else [ignore[rows]]
        for id_N in ids:
            if id_N is not None:
                not_negative.append(id_N[rows, None] == id_N)
        if not_negative:
            own = logits_RN.diagonal(start).clone()
            for mask_RN in not_negative:
                logits_RN.masked_fill_(mask_RN, -torch.inf)
            logits_RN.diagonal(start).copy_(own)
        yield rows, logits_RN


def _repeated(id_N: Tensor | None) -> Tensor | None:
    """The ids; None if all differ, which is the common case and needs no comparison."""
    return None if id_N is None or len(torch.unique(id_N)) == len(id_N) else id_N


def hardest_contrastive(
    first_MC: Float[Tensor, "m1 c"],
    second_MC: Float[Tensor, "m2 c"],
    pairs_N2: Int[Tensor, "n 2"],
    row_first_K: Int[Tensor, " k1"],
    row_second_K: Int[Tensor, " k2"],
    positive_margin: float = 0.1,
    negative_margin: float = 1.4,
    known_L2: Int[Tensor, "l 2"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Hardest-contrastive loss, positive term and negative term, unweighted.

    positive: mean over matches of max(0, |f_i - s_i|^2 - p)
    negative: mean over anchors of max(0, n - min_k |f_i - s_k|)^2, averaged over both directions

    The minimum is over the given rows of the other view. An anchor whose closest row is a match of
    it is left out of the mean; if all are, its direction adds 0. FCGF (Choy et al., ICCV 2019)
    equation 3; PointContrast (Xie et al., ECCV 2020) section 3.3.

    Args:
        first_MC: features of the first view.
        second_MC: features of the second view.
        pairs_N2: rows of the two views that match.
        row_first_K: rows of the first view that may be negatives.
        row_second_K: rows of the second view that may be negatives.
        positive_margin: p, of squared distances.
        negative_margin: n, of distances.
        known_L2: all matches that are known, pairs_N2 among them; None: pairs_N2.

    Returns:
        The positive and the negative term, scalars.
    """
    known_L2 = pairs_N2 if known_L2 is None else known_L2
    columns = len(second_MC)
    known_L = known_L2[:, 0] * columns + known_L2[:, 1]
    a_NC, b_NC = first_MC[pairs_N2[:, 0]], second_MC[pairs_N2[:, 1]]
    positive = relu((a_NC - b_NC).square().sum(dim=1) - positive_margin).mean()
    distance_a_N, column_N = _closest(a_NC, second_MC[row_second_K])
    distance_b_N, row_N = _closest(b_NC, first_MC[row_first_K])
    pair_a_N = pairs_N2[:, 0] * columns + row_second_K[column_N]
    pair_b_N = row_first_K[row_N] * columns + pairs_N2[:, 1]
    sides = []
    for distance_N, pair_N in ((distance_a_N, pair_a_N), (distance_b_N, pair_b_N)):
        kept_N = distance_N[~torch.isin(pair_N, known_L)]
        sides.append(relu(negative_margin - kept_N).square().sum() / max(1, len(kept_N)))
    return positive, (sides[0] + sides[1]) / 2


def _closest(a_NC: Tensor, b_MC: Tensor) -> tuple[Tensor, Tensor]:
    """Distance [N] of each row of a to the closest row of b, and that row, in blocks."""
    step = max(1, BLOCK // (len(b_MC) * a_NC.shape[1]))
    with torch.no_grad():
        nearest = [
            (rows[:, None] - b_MC).square().sum(-1).argmin(1) for rows in torch.split(a_NC, step)
        ]
    nearest_N = torch.cat(nearest)
    squared = (a_NC - b_MC[nearest_N]).square().sum(dim=1)
    return (squared + 1e-7).sqrt(), nearest_N  # at distance 0 the root has no gradient


@torch.no_grad()
def match_recall(
    anchors_NC: Float[Tensor, "n c"], candidates_NC: Float[Tensor, "n c"], normalize: bool = True
) -> float:
    """Share of the anchors whose own candidate is the most similar of all N.

    1/N by chance, at best 1. Where k candidates tie for the best, an anchor counts 1/k: a network
    that maps everything to one point gets 1/N.

    Args:
        anchors_NC: see `point_info_nce`.
        candidates_NC: likewise.
        normalize: likewise.

    Raises:
        ValueError: the shapes differ, or N is 0.

    Example:
        >>> match_recall(torch.eye(4), torch.eye(4))
        1.0
    """
    _check(anchors_NC, candidates_NC, "match_recall")
    with torch.autocast(anchors_NC.device.type, enabled=False):
        anchors_NC, candidates_NC = _comparable(anchors_NC, candidates_NC, normalize)
        recalled = 0.0
        for rows, similarity_RN in _logits(anchors_NC, candidates_NC, (None, None), None):
            own_R1 = similarity_RN.diagonal(rows.start)[:, None]
            best_R = (similarity_RN <= own_R1).all(dim=1)
            ties_R = (similarity_RN == own_R1).sum(dim=1).clamp(min=1)
            recalled += (best_R / ties_R).sum().item()
    return recalled / len(anchors_NC)


def _check(anchors_NC: Tensor, candidates_NC: Tensor, function: str) -> None:
    shape = anchors_NC.shape
    if len(shape) != 2 or shape[0] == 0 or shape != candidates_NC.shape:
        raise ValueError(
            f"{function}: anchors {list(shape)} and candidates {list(candidates_NC.shape)}; "
            "expected the same [N, C] with N > 0"
        )


def _comparable(a_NC: Tensor, c_NC: Tensor, normalize: bool) -> tuple[Tensor, Tensor]:
    if a_NC.dtype != torch.float64:
        a_NC, c_NC = a_NC.float(), c_NC.float()
    return (_directions(a_NC), _directions(c_NC)) if normalize else (a_NC, c_NC)


def _directions(x_NC: Tensor) -> Tensor:
    length_N1 = torch.linalg.vector_norm(x_NC, dim=1, keepdim=True)
    return x_NC / torch.where(length_N1 > 0, length_N1, 1.0)
