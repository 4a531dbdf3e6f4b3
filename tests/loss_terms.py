"""The loss of a batch, as the step computes it."""

import torch
from torch import Tensor

from pri3d.pretrain.objective import LossTerm


def total(terms: dict[str, LossTerm]) -> Tensor | None:
    """The sum over terms of the mean over their samples; None if no sample has any."""
    means = [term.loss_S.mean() for term in terms.values() if len(term.loss_S)]
    return torch.stack(means).sum() if means else None
