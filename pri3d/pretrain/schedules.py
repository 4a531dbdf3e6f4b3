"""What changes from step to step: the learning rate, and the momentum of batch norm."""

import math

from pri3d.config import Pretrain

BN_FIRST, BN_LEAST, BN_HALVED_EVERY = 0.5, 0.001, 20


def learning_rate(settings: Pretrain, step: int) -> float:
    """Of a step, counted from 1, by `schedule`:

    polynomial: lr * (1 - (step - 1) / (steps + 1))^power, as Pri3D's release computes it: the last
    step still has a rate above zero. cosine: lr * (1 + cos(pi * (step - 1) / steps)) / 2 (SLidR).
    exponential: lr * 0.99^floor((step - 1) / 250) (PointContrast).
    """
    done = step - 1
    if settings.schedule == "cosine":
        return settings.lr * (1 + math.cos(math.pi * done / settings.steps)) / 2
    if settings.schedule == "exponential":
        return settings.lr * 0.99 ** (done // 250)
    return settings.lr * (1 - done / (settings.steps + 1)) ** settings.power


def bn_momentum(settings: Pretrain, step: int) -> float:
    """Share of a step's statistics in batch norm's running ones; steps count from 1.

    `decaying`: max(0.5 * 0.5^floor(n / 20), 0.001) with n = 0, 0, 1, 2, ... in steps 1, 2, 3, 4:
    the release's scheduler sets the first value twice. `fixed`: 0.1, torch's default.
    """
    if settings.bn_momentum == "fixed":
        return 0.1
    return max(BN_FIRST * 0.5 ** (max(step - 2, 0) // BN_HALVED_EVERY), BN_LEAST)
