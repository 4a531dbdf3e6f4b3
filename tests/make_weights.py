"""Networks with weights that no initialisation would give, and files as others write them."""

import sys
import types

import numpy as np
import torch
from torch import nn

from pri3d.models.heads import ProjectionHeads
from pri3d.models.minkunet import minkunet
from pri3d.models.resunet import resnet_encoder, resunet

WIDTHS, BLOCKS = [8, 8, 16, 16, 16, 8, 8, 8], [1, 2, 1, 1, 1, 1, 2, 1]


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with random batch norms, their statistics and counters too."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            value.fill_(int(torch.randint(1, 10**6, (), generator=generator)))
        elif name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.ndim == 1:
            offset = 0.75 if name.endswith("weight") else 0
            value.copy_(offset + 0.5 * torch.rand(value.shape, generator=generator))
    return network.eval()


def networks(name: str, decoder: bool = True, with_3d: bool = True) -> nn.ModuleDict:
    """A run's networks: joint's, or fewer."""
    torch.manual_seed(len(name))
    nets = nn.ModuleDict({"backbone": resunet(name)}) if decoder else encoder_alone(name)
    if with_3d:
        nets["backbone3d"] = minkunet(3, 96, WIDTHS, BLOCKS)
        heads = ProjectionHeads(128 if name == "resnet50" else 32)
        nets["w2d"], nets["w3d"] = heads.w2d, heads.w3d
    return randomised(nets)


def encoder_alone(name: str) -> nn.ModuleDict:
    """As in a run of moco; ResNet-50's decoder alone would be 600 MB."""
    return nn.ModuleDict({"backbone": nn.ModuleDict({"encoder": resnet_encoder(name)})})


def pointcontrast_content(network: nn.Module) -> dict:
    """What PointContrast's trainer saves: its configuration is an object of a library's class, and
    some of its relatives keep a figure of numpy's type. Made while `foreign_library` is there.
    """
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return {
        "curr_iter": 60000,
        "state_dict": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99).state_dict(),
        "config": sys.modules["foreign_library"].Config(),
        "best_val": np.float64(0.5),
    }


def moco_content(encoder: dict[str, torch.Tensor]) -> dict:
    """What MoCo v2's trainer saves: two encoders with heads, under DDP, and the queue."""
    state = {}
    for branch in ("encoder_q", "encoder_k"):
        offset = 0 if branch == "encoder_q" else 1
        for name, value in encoder.items():
            state[f"module.{branch}.{name}"] = value + offset
        for name, shape in (("0.weight", (512, 512)), ("0.bias", (512,)), ("2.weight", (128, 512))):
            state[f"module.{branch}.fc.{name}"] = torch.zeros(shape)
    state["module.queue"], state["module.queue_ptr"] = torch.zeros(128, 64), torch.zeros(1).long()
    return {"epoch": 200, "arch": "resnet18", "state_dict": state, "optimizer": {"state": {}}}


class ForeignLibrary:
    """A library that is there while a file is written, and gone when it is read."""

    def __enter__(self):
        def kept(self):
            return {"_content": {"voxel": 0.025}, "_parent": None}

        module = types.ModuleType("foreign_library")
        module.Config = type("Config", (), {"__module__": module.__name__, "__getstate__": kept})
        sys.modules[module.__name__] = module

    def __exit__(self, *_):
        del sys.modules["foreign_library"]
