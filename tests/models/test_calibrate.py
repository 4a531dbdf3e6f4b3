"""Running statistics of batch norm from batches."""

import torch
from torch import nn

from pri3d.models.calibrate import calibrate_batch_norm


def test_statistics_are_the_mean_over_batches():
    network = nn.Sequential(nn.BatchNorm1d(4))
    batches = [torch.randn(8, 4), 3 + 2 * torch.randn(20, 4)]
    network(torch.randn(8, 4))  # these statistics are forgotten
    calibrate_batch_norm(network, network, batches)
    assert not network.training
    norm = network[0]
    means = torch.stack([batch.mean(dim=0) for batch in batches])
    variances = torch.stack([batch.var(dim=0) for batch in batches])
    torch.testing.assert_close(norm.running_mean, means.mean(dim=0))
    torch.testing.assert_close(norm.running_var, variances.mean(dim=0))
