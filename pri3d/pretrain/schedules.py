"""What changes from step to step: the learning rate, and the momentum of batch norm."""

from pri3d.config import Pretrain

BN_FIRST, BN_LEAST, BN_HALVED_EVERY = 0.5, 0.001, 20


def learning_rate(settings: Pretrain, step: int) -> float:
    """Polynomial decay from `lr`: lr * (1 - (step - 1) / (steps + 1))^power; steps count from 1.

    As Pri3D's release computes it: the last step still has a rate above zero.
    """
    return settings.lr * (1 - (step - 1) / (settings.steps + 1)) ** settings.power


def bn_momentum(settings: Pretrain, step: int) -> float:
    """Share of a step's statistics in batch norm's running ones; steps count from 1.

    `decaying`: max(0.5 * 0.5^floor(n / 20), 0.001) with n = 0, 0, 1, 2, ... in steps 1, 2, 3, 4:
    the release's scheduler sets the first value twice. `fixed`: 0.1, torch's default.
    """
    if settings.bn_momentum == "fixed":
        return 0.1
    return max(BN_FIRST * 0.5 ** (max(step - 2, 0) // BN_HALVED_EVERY), BN_LEAST)
