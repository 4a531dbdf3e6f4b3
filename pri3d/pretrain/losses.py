"""The contrastive loss and the figure that is logged beside it.

Shapes: N matches, C channels. Row i of the anchors and row i of the candidates belong together.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def point_info_nce(
    anchors_NC: Tensor,
    candidates_NC: Tensor,
    temperature: float,
    normalise: bool = True,
    symmetric: bool = False,
    ignore_NN: Tensor | None = None,
) -> Tensor:
    """PointInfoNCE: every anchor shall find its own candidate among all N, mean over the anchors.

    -1/N sum_i log( exp(a_i . c_i / t) / sum_k exp(a_i . c_k / t) )

    This is equation 1 of PointContrast (Xie et al., ECCV 2020), which Pri3D (Hou et al., ICCV 2021)
    uses for pixel-pixel and pixel-voxel matches; both papers write the sum over i instead of the
    mean. The N - 1 other candidates are the negatives, so that a network that knows nothing has a
    loss of ln(N).

    anchors_NC, candidates_NC: floating point [N, C]; half precision is computed in float32.
    temperature: t > 0. normalise: compare directions (cosine) instead of plain dot products.
    symmetric: mean of both directions, anchors among candidates and candidates among anchors.
    ignore_NN: bool [N, N], true where candidate k is no negative of anchor i; false for k = i.

    A row of length zero has no direction: with `normalise` it stays zero (similarity 0 to
    everything) and has a finite gradient. Without negatives (N = 1) the loss is 0.

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
    similarity_NN = _similarities(anchors_NC, candidates_NC, normalise, "point_info_nce")
    logits_NN = similarity_NN / temperature
    if ignore_NN is not None:
        logits_NN = logits_NN.masked_fill(ignore_NN, -torch.inf)
    own_N = torch.arange(len(logits_NN), device=logits_NN.device)
    loss = cross_entropy(logits_NN, own_N)
    if symmetric:
        loss = (loss + cross_entropy(logits_NN.t(), own_N)) / 2
    return loss


@torch.no_grad()
def match_recall(anchors_NC: Tensor, candidates_NC: Tensor, normalise: bool = True) -> float:
    """Share of the anchors whose own candidate is the most similar of all N: 1/N by chance, 1 best.

    Where k candidates tie for the best, an anchor counts 1/k: a network that maps everything to
    one point gets 1/N. Shapes, `normalise` and errors are those of `point_info_nce`.

    >>> match_recall(torch.eye(4), torch.eye(4))
    1.0
    """
    similarity_NN = _similarities(anchors_NC, candidates_NC, normalise, "match_recall")
    own_N1 = similarity_NN.diagonal()[:, None]
    found_N = (similarity_NN <= own_N1).all(dim=1)
    ties_N = (similarity_NN == own_N1).sum(dim=1).clamp(min=1)
    return (found_N / ties_N).mean().item()


def _similarities(anchors_NC: Tensor, candidates_NC: Tensor, normalise: bool, who: str) -> Tensor:
    shape = anchors_NC.shape
    if len(shape) != 2 or shape[0] == 0 or shape != candidates_NC.shape:
        raise ValueError(
            f"{who}: anchors {list(shape)} and candidates {list(candidates_NC.shape)}; expected "
            "the same [N, C] with N > 0"
        )
    with torch.autocast(anchors_NC.device.type, enabled=False):
        if anchors_NC.dtype != torch.float64:
            anchors_NC, candidates_NC = anchors_NC.float(), candidates_NC.float()
        if normalise:
            anchors_NC, candidates_NC = _directions(anchors_NC), _directions(candidates_NC)
        return anchors_NC @ candidates_NC.t()


def _directions(x_NC: Tensor) -> Tensor:
    length_N1 = torch.linalg.vector_norm(x_NC, dim=1, keepdim=True)
    return x_NC / torch.where(length_N1 > 0, length_N1, 1.0)
