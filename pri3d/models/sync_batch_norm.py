"""Batch norm with the statistics of all training processes together.

Shapes: N samples, C channels, then any other axes.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose statistics are over all processes (Ioffe and Szegedy, ICML 2015).

    Unlike torch's it also works on CPUs. Processes may have different numbers of samples, but each
    must call it the same number of times. In a single process it is torch's batch norm.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(
                f"batch norm of a tensor of shape {list(x.shape)}; expected [N, C, ...]"
            )

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        other_axes = [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        wide = x if x.dtype == torch.float64 else x.float()
        count = wide.new_tensor([x.numel() // x.shape[1]])
        total = _sum_over_processes(torch.cat([wide.sum(other_axes), count]))
        n = total[-1].detach()
        mean = total[:-1] / n
        centered = wide - mean.view(shape)
        var = _sum_over_processes(centered.square().sum(other_axes)) / n
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            unbiased = var * (n / (n - 1).clamp(min=1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return (centered * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


def synchronize_batch_norm(network: nn.Module) -> None:
    """Turn every batch norm of a network into a SyncBatchNorm, in place, with its parameters."""
    for module in network.modules():
        # Subclasses from other libraries do more than normalize; frozen ones are only in teachers.
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d):
            module.__class__ = SyncBatchNorm


class _Sum(torch.autograd.Function):
    """The sum over processes. The loss of each process depends on all terms of the sum, so the
    gradients are summed as well.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone()
        dist.all_reduce(total)
        return total


def _sum_over_processes(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)
    return total
