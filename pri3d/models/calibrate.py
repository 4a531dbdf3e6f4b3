"""Running statistics of batch norm, computed from batches without training."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn

T = TypeVar("T")


@torch.no_grad()
def calibrate_batch_norm(
    network: nn.Module, forward: Callable[[T], object], batches: Iterable[T]
) -> None:
    """Replace the running statistics by the mean over batches, all with the same weight.

    Networks with random weights have no meaningful running statistics otherwise. The network is
    left in evaluation mode.

    Args:
        network: its batch norms are changed in place.
        forward: runs the network, or parts of it, on one batch.
        batches: if there are none, the statistics are reset.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # a cumulative mean
    network.train()
    for batch in batches:
        forward(batch)
    network.eval()
