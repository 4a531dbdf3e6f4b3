"""moco: the 2D-only baseline, momentum contrast of two crops of one image.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
equation 1; version 2: Chen et al., arXiv 2003.04297. The two crops of an image are each other's
positives; the negatives are crops of other images, kept in a queue.

Shapes: B images, C channels, K keys in the queue, H x W pixels.
"""

import math

import torch
from torch import Tensor, nn

from pri3d.config import Pretrain
from pri3d.models.resunet import ENCODERS, encode, resnet_encoder
from pri3d.pretrain.frame_crops import FrameCropBatch, FrameCropSamples
from pri3d.pretrain.image_features import maps_of
from pri3d.pretrain.matches import CELL
from pri3d.pretrain.modes import Inputs
from pri3d.pretrain.objective import LossTerm
from pri3d.run.processes import gather

CHANNELS = 128  # of the compared features


class Moco(nn.Module):
    """The parts of momentum contrast beside the trained encoder: heads, key encoder, queue.

    `encoder_k` and `head_k` follow the trained ones: after each step they become
    momentum * themselves + (1 - momentum) * the trained ones (equation 2). `queue_KC` holds unit
    vectors.
    """

    queue_KC: Tensor
    place: Tensor

    def __init__(self, settings: Pretrain) -> None:
        super().__init__()
        self.head = _head(settings.network2d)
        self.encoder_k, self.head_k = resnet_encoder(settings.network2d), _head(settings.network2d)
        for parameter in (*self.encoder_k.parameters(), *self.head_k.parameters()):
            parameter.requires_grad_(False)
        queue_KC = nn.functional.normalize(torch.randn(settings.moco_queue, CHANNELS))
        self.register_buffer("queue_KC", queue_KC)
        # Row of the queue that is replaced next; its name is part of the format of weights.
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self.new_keys: list[Tensor] = []  # of the step's micro-batches

    def loss(
        self, encoder: nn.Module, batch: FrameCropBatch, settings: Pretrain
    ) -> tuple[Tensor, Tensor]:
        """InfoNCE of each image.

        Returns:
            The loss [B], and bool [B]: whether the own key is more similar than all of the queue.
        """
        query_BC = _features(encoder, self.head, batch.query_BCHW)
        with torch.no_grad():
            key_BC = self._keys(batch.key_BCHW)
        with torch.autocast(query_BC.device.type, enabled=False):
            own_B1 = (query_BC * key_BC).sum(1, keepdim=True)
            logits = torch.cat([own_B1, query_BC @ self.queue_KC.t()], 1)
            logits = logits / settings.moco_temperature
            first_B = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
            loss_B = nn.functional.cross_entropy(logits, first_B, reduction="none")
        self.new_keys.append(key_BC)
        recalled_B = (logits[:, 1:] < logits[:, :1]).all(1)
        return loss_B, recalled_B

    def _keys(self, image_BCHW: Tensor) -> Tensor:
        """Keys from two interleaved halves.

        If batch norm normalized queries and keys in the same groups, its statistics would reveal
        which belong together (the paper's "shuffling BN", section 3.3).
        """
        if len(image_BCHW) < 4:
            return _features(self.encoder_k, self.head_k, image_BCHW)
        key_BC = image_BCHW.new_empty(len(image_BCHW), CHANNELS)
        for start in (0, 1):
            part = image_BCHW[start::2]
            key_BC[start::2] = _features(self.encoder_k, self.head_k, part).to(key_BC.dtype)
        return key_BC

    @torch.no_grad()
    def copy_trained(self, encoder: nn.Module) -> None:
        """Make the key encoder and its head equal to the trained ones."""
        self.encoder_k.load_state_dict(encoder.state_dict())
        self.head_k.load_state_dict(self.head.state_dict())

    @torch.no_grad()
    def after_step(self, encoder: nn.Module, momentum: float) -> None:
        """Move the key encoder, and put the step's keys of all processes into the queue."""
        trained = (*encoder.parameters(), *self.head.parameters())
        slow = (*self.encoder_k.parameters(), *self.head_k.parameters())
        for to, value in zip(slow, trained, strict=True):
            to.lerp_(value.to(to.dtype), 1 - momentum)
        of_process = gather([key_BC.cpu() for key_BC in self.new_keys])
        self.new_keys.clear()
        longest = max(len(keys) for keys in of_process)
        # The micro-batches in the order of a single process.
        keys = [k[i] for i in range(longest) for k in of_process if i < len(k)]
        if not keys:
            return
        key_NC = torch.cat(keys)[-len(self.queue_KC) :].to(self.queue_KC)
        rows = (int(self.place) + torch.arange(len(key_NC))) % len(self.queue_KC)
        self.queue_KC[rows.to(self.queue_KC.device)] = key_NC
        self.place.fill_((int(self.place) + len(key_NC)) % len(self.queue_KC))


def samples(inputs: Inputs, settings: Pretrain) -> FrameCropSamples:
    """Two crops of each frame that occurs in a pair."""
    return FrameCropSamples(inputs.pairs, inputs.clouds_dir, settings, inputs.held_out)


def networks(settings: Pretrain) -> nn.ModuleDict:
    """The encoder of the 2D network, and under `moco` the other parts."""
    backbone = nn.ModuleDict({"encoder": resnet_encoder(settings.network2d)})
    return nn.ModuleDict({"backbone": backbone, "moco": Moco(settings)})


def after_initial_weights(nets: nn.ModuleDict) -> None:
    """The key encoder begins as the trained one."""
    _moco(nets).copy_trained(_encoder(nets))


def loss(nets: nn.ModuleDict, batch: FrameCropBatch, settings: Pretrain) -> dict[str, LossTerm]:
    """Each image's own key against those of the queue."""
    bf16 = settings.precision == "bf16"
    with torch.autocast(batch.query_BCHW.device.type, torch.bfloat16, enabled=bf16):
        loss_B, recalled_B = _moco(nets).loss(_encoder(nets), batch, settings)
    candidates = [1 + settings.moco_queue] * len(loss_B)
    chance = [math.log(n) for n in candidates]
    return {"moco": LossTerm(loss_B, chance, recalled_B.float().tolist(), candidates)}


def samples_per_term(batch: FrameCropBatch, settings: Pretrain) -> dict[str, int]:
    """Number of frames."""
    return {"moco": len(batch.query_BCHW)}


def is_complete(batch: FrameCropBatch) -> bool:
    """Whether every frame can be used: with fewer than four, keys are normalized in another way."""
    return len(batch.query_BCHW) == len(batch.names) > 0


def after_step(nets: nn.ModuleDict, settings: Pretrain) -> None:
    """Move the key encoder and fill the queue."""
    _moco(nets).after_step(_encoder(nets), settings.moco_momentum)


def feature_maps(nets: nn.ModuleDict, image_BCHW: Tensor, settings: Pretrain) -> Tensor:
    """The encoder's features at stride 8, scaled to the cells, float32 [B, C, H / 2, W / 2]."""
    encoder = _encoder(nets)
    shape = image_BCHW.shape[2] // CELL, image_BCHW.shape[3] // CELL
    map_BChw = maps_of(lambda x_BCHW: encode(encoder, x_BCHW, stages=2)[-1], image_BCHW, settings)
    return nn.functional.interpolate(map_BChw, shape, mode="bilinear")


def _encoder(nets: nn.ModuleDict) -> nn.Module:
    return nets["backbone"].get_submodule("encoder")


def _moco(nets: nn.ModuleDict) -> Moco:
    moco = nets["moco"]
    assert isinstance(moco, Moco)
    return moco


def _head(network2d: str) -> nn.Module:
    width = ENCODERS[network2d].channels[-1]
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, CHANNELS))


def _features(encoder: nn.Module, head: nn.Module, image_BCHW: Tensor) -> Tensor:
    """Unit vectors, float32 [B, C]."""
    map_BChw = encode(encoder, image_BCHW.contiguous(memory_format=torch.channels_last))[-1]
    return nn.functional.normalize(head(map_BChw.mean((2, 3))).float(), dim=1)
