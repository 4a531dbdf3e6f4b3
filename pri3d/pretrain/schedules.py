"""Learning rate and momentum of batch norm, step by step."""

import math

from pri3d.config import Pretrain

BN_FIRST, BN_MIN = 0.5, 0.001  # momentum of batch norm
BN_HALVED_EVERY = 20  # steps


def learning_rate(settings: Pretrain, step: int) -> float:
    """The learning rate of a step, by the setting `schedule`.

    polynomial: lr * (1 - (step - 1) / (steps + 1))^power, as in Pri3D's release: the last step has
        a rate above zero.
    cosine: lr * (1 + cos(pi * (step - 1) / steps)) / 2 (SLidR).
    exponential: lr * 0.99^floor((step - 1) / 250) (PointContrast).

    Args:
        settings: schedule, lr, steps and power.
        step: counted from 1.
    """
    done = step - 1
    if settings.schedule == "cosine":
        return settings.lr * (1 + math.cos(math.pi * done / settings.steps)) / 2
    if settings.schedule == "exponential":
        return settings.lr * 0.99 ** (done // 250)
    return settings.lr * (1 - done / (settings.steps + 1)) ** settings.power


def bn_momentum(settings: Pretrain, step: int) -> float:
    """Weight of a step's statistics in the running statistics of batch norm.

    fixed: 0.1, torch's default.
    decaying: max(0.5 * 0.5^floor(n / 20), 0.001) with n = 0, 0, 1, 2, ... in steps 1, 2, 3, 4, ...:
        the release's scheduler sets the first value twice.

    Args:
        settings: the setting `bn_momentum`.
        step: counted from 1.
    """
    if settings.bn_momentum == "fixed":
        return 0.1
    return max(BN_FIRST * 0.5 ** (max(step - 2, 0) // BN_HALVED_EVERY), BN_MIN)
