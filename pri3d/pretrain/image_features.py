"""Features of images: of the network that is trained, and of a frozen teacher.

Shapes: B images, C channels, H x W pixels; h x w is the size of a feature map.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pri3d.config import Pretrain


def maps_of(network: Callable[[Tensor], Tensor], image_BCHW: Tensor, settings: Pretrain) -> Tensor:
    """Feature maps of a 2D network, float32 [B, C, h, w], computed at `settings.precision`."""
    bf16 = settings.precision == "bf16"
    with torch.autocast(image_BCHW.device.type, torch.bfloat16, enabled=bf16):
        map_BChw = network(image_BCHW.contiguous(memory_format=torch.channels_last))
    return map_BChw.float() if bf16 else map_BChw


def teacher_maps(nets: nn.ModuleDict, image_BCHW: Tensor, settings: Pretrain) -> Tensor:
    """Feature maps of the frozen 2D network `teacher`, float32 [B, C, h, w]."""
    bf16 = settings.precision == "bf16"
    with torch.autocast(image_BCHW.device.type, torch.bfloat16, enabled=bf16):
        map_BChw = nets["teacher"](image_BCHW)
    return map_BChw.float() if bf16 else map_BChw


def cell_features(map_BChw: Tensor) -> Tensor:
    """The features of every cell as rows, [B * h * w, C], row by row of each image."""
    return map_BChw.permute(0, 2, 3, 1).flatten(0, 2)
