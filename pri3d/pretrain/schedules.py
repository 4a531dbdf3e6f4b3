"""placeholder"""

from pri3d.config import Pretrain


def learning_rate(settings: Pretrain, step: int) -> float:
    return settings.lr * (1 - (step - 1) / (settings.steps + 1)) ** settings.power


def bn_momentum(settings: Pretrain, step: int) -> float:
    return 0.1
