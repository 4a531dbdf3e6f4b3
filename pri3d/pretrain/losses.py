"""The contrastive losses and the figure that is logged beside them.

Shapes: N matches, M features, C channels, R rows of a block. Row i of the anchors and row i of the
candidates belong together.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import relu

BLOCK = 2**22  # similarities in memory at once: 16 MiB of float32


def point_info_nce(
    anchors_NC: Tensor,
    candidates_NC: Tensor,
    temperature: float,
    normalise: bool = True,
    symmetric: bool = False,
    reduction: Literal["mean", "sum"] = "mean",
    anchor_id_N: Tensor | None = None,
    candidate_id_N: Tensor | None = None,
    ignore_NN: Tensor | None = None,
) -> Tensor:
    """PointInfoNCE: every anchor shall find its own candidate among all N.

    -1/N sum_i log( exp(a_i . c_i / t) / sum_k exp(a_i . c_k / t) )

    This is equation 1 of PointContrast (Xie et al., ECCV 2020), which Pri3D (Hou et al., ICCV 2021)
    uses for pixel-pixel and pixel-voxel matches; both papers write the sum over i instead of the
    mean. The N - 1 other candidates are the negatives, so that a network that knows nothing has a
    loss of ln(N).

    anchors_NC, candidates_NC: floating point [N, C]; half precision is computed in float32.
    temperature: t > 0. normalise: compare directions (cosine) instead of plain dot products.
    symmetric: mean of both directions, anchors among candidates and candidates among anchors.
    reduction: mean or sum over the anchors.
    anchor_id_N, candidate_id_N: integers [N], which feature (cell, voxel) each row was read from.
    Two matches that share an anchor or a candidate are never each other's negatives.
    ignore_NN: bool [N, N], true where candidate k is no negative of anchor i; false for k = i.

    Similarities are formed in blocks of rows, forwards and again backwards: memory grows with
    N x C, not with N x N. A row of length zero has no direction: with `normalise` it stays zero
    (similarity 0 to everything) and has a finite gradient. Without negatives the loss is 0.

    Raises ValueError if the shapes differ, N is 0 (a mean over nothing would be NaN: leave such
    samples out, and count them) or the temperature is not positive.

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
        anchors_NC, candidates_NC = _comparable(anchors_NC, candidates_NC, normalise)
        ids = [_repeated(id_N) for id_N in (anchor_id_N, candidate_id_N)]
        loss = _Nce.apply(anchors_NC / temperature, candidates_NC, symmetric, ids, ignore_NN)
    return loss / len(anchors_NC) if reduction == "mean" else loss


class _Nce(torch.autograd.Function):
    """The sum over all rows. Backwards the logits are formed again: cheaper than keeping them."""

    @staticmethod
    def forward(ctx, anchors, candidates, symmetric, ids, ignore):
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
    def backward(ctx, grad):
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


def _logits(anchors, candidates, ids, ignore) -> Iterator[tuple[slice, Tensor]]:
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
    """None where all differ, which is the common case and needs no comparison."""
    return None if id_N is None or len(id_N.unique()) == len(id_N) else id_N


def hardest_contrastive(
    first_MC: Tensor,
    second_MC: Tensor,
    pairs_N2: Tensor,
    drawn_first: Tensor,
    drawn_second: Tensor,
    positive_margin: float = 0.1,
    negative_margin: float = 1.4,
    listed_N2: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Hardest-contrastive loss: (positive term, negative term), unweighted.

    Matches shall be closer than the positive margin (squared distance), and the closest of the
    drawn rows of the other side, unless it is a match itself, farther than the negative margin
    (distance). FCGF (Choy et al., ICCV 2019) equation 3; PointContrast (Xie et al., ECCV 2020)
    section 3.3.

    first_MC, second_MC: features of two views, numbers of rows may differ. pairs_N2: int64 rows of
    the two that match. drawn_first, drawn_second: int64 rows that may serve as negatives.
    listed_N2: all matches known, pairs_N2 included; a drawn row that matches is no negative.

    A side all of whose closest rows are matches adds 0 to the negative term.
    """
    listed_N2 = pairs_N2 if listed_N2 is None else listed_N2
    columns = len(second_MC)
    listed = listed_N2[:, 0] * columns + listed_N2[:, 1]
    a_NC, b_NC = first_MC[pairs_N2[:, 0]], second_MC[pairs_N2[:, 1]]
    positive = relu((a_NC - b_NC).square().sum(dim=1) - positive_margin).mean()
    distance_a, column = _closest(a_NC, second_MC[drawn_second])
    distance_b, row = _closest(b_NC, first_MC[drawn_first])
    found_a = pairs_N2[:, 0] * columns + drawn_second[column]
    found_b = drawn_first[row] * columns + pairs_N2[:, 1]
    sides = []
    for distance_N, found_N in ((distance_a, found_a), (distance_b, found_b)):
        kept_N = distance_N[~torch.isin(found_N, listed)]
        sides.append(relu(negative_margin - kept_N).square().sum() / max(1, len(kept_N)))
    return positive, (sides[0] + sides[1]) / 2


def _closest(a_NC: Tensor, b_MC: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the closest of b, and which it is, in blocks."""
    step = max(1, BLOCK // (len(b_MC) * a_NC.shape[1]))
    with torch.no_grad():
        nearest = [(rows[:, None] - b_MC).square().sum(-1).argmin(1) for rows in a_NC.split(step)]
    nearest_N = torch.cat(nearest)
    squared = (a_NC - b_MC[nearest_N]).square().sum(dim=1)
    return (squared + 1e-7).sqrt(), nearest_N  # at distance 0 the root has no gradient


@torch.no_grad()
def match_recall(anchors_NC: Tensor, candidates_NC: Tensor, normalise: bool = True) -> float:
    """Share of the anchors whose own candidate is the most similar of all N: 1/N by chance, 1 best.

    Where k candidates tie for the best, an anchor counts 1/k: a network that maps everything to
    one point gets 1/N. Shapes, `normalise` and errors are those of `point_info_nce`.

    >>> match_recall(torch.eye(4), torch.eye(4))
    1.0
    """
    _check(anchors_NC, candidates_NC, "match_recall")
    with torch.autocast(anchors_NC.device.type, enabled=False):
        anchors_NC, candidates_NC = _comparable(anchors_NC, candidates_NC, normalise)
        found = 0.0
        for rows, similarity_RN in _logits(anchors_NC, candidates_NC, [], None):
            own_R1 = similarity_RN.diagonal(rows.start)[:, None]
            best_R = (similarity_RN <= own_R1).all(dim=1)
            ties_R = (similarity_RN == own_R1).sum(dim=1).clamp(min=1)
            found += (best_R / ties_R).sum().item()
    return found / len(anchors_NC)


def _check(anchors_NC: Tensor, candidates_NC: Tensor, who: str) -> None:
    shape = anchors_NC.shape
    if len(shape) != 2 or shape[0] == 0 or shape != candidates_NC.shape:
        raise ValueError(
            f"{who}: anchors {list(shape)} and candidates {list(candidates_NC.shape)}; expected "
            "the same [N, C] with N > 0"
        )


def _comparable(a_NC: Tensor, c_NC: Tensor, normalise: bool) -> tuple[Tensor, Tensor]:
    if a_NC.dtype != torch.float64:
        a_NC, c_NC = a_NC.float(), c_NC.float()
    return (_directions(a_NC), _directions(c_NC)) if normalise else (a_NC, c_NC)


def _directions(x_NC: Tensor) -> Tensor:
    length_N1 = torch.linalg.vector_norm(x_NC, dim=1, keepdim=True)
    return x_NC / torch.where(length_N1 > 0, length_N1, 1.0)
