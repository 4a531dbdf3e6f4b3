"""Optimizers and learning rates that several tasks share."""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import nn


class SgdSettings(Protocol):
    """The settings that SGD and its schedule read."""

    lr: float
    momentum: float
    weight_decay: float
    warmup: float
    power: float


def sgd(parameters: Iterable[nn.Parameter], settings: SgdSettings) -> torch.optim.Optimizer:
    """SGD with momentum and weight decay."""
    return torch.optim.SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def polynomial_rate(settings: SgdSettings, step: int, steps: int) -> float:
    """The learning rate of a step, counted from 1: warm-up, then polynomial decay to almost 0."""
    warmup = round(settings.warmup * steps)
    if step <= warmup:
        return warmup_rate(settings.lr, step, warmup)
    return settings.lr * (1 - (step - 1 - warmup) / (steps - warmup)) ** settings.power


def warmup_rate(lr: float, step: int, warmup: int) -> float:
    """The learning rate of a step of the warm-up, which rises linearly from 0 to `lr`."""
    return lr * step / (warmup + 1)
