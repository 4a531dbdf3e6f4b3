"""The 2D-only baseline: momentum contrast of whole images (He et al., "Momentum Contrast for
Unsupervised Visual Representation Learning", CVPR 2020; v2: Chen et al., arXiv 2003.04297).

Two random crops of one frame are each other's positives; the negatives are crops of other frames,
kept in a queue. The frames are those of the pairs that Pri3D trains on, so that the two differ in
what they learn from and in nothing else.

Shapes: B images, C channels, K places in the queue, H x W pixels.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from pri3d.config import Pretrain
from pri3d.models.resunet import ENCODERS, resnet_encoder
from pri3d.pretrain.samples import PairSamples, order_of_epoch
from pri3d.pretrain.scan_cache import damage_is_named, row_of, stored_image
from pri3d.run.processes import gather
from pri3d.transforms.color import augment, normalise

CHANNELS = 128  # of the compared features
SMALLEST_CROP = 0.2  # share of the image's area
ASPECT = (3 / 4, 4 / 3)  # of a crop, beside the image's own


class FrameBatch(NamedTuple):
    """Two views of each frame, [B, 3, H, W]; names, skipped: of all frames of the micro-batch."""

    names: list[str]
    query_BCHW: Tensor
    key_BCHW: Tensor
    skipped: list[str]


class FrameSamples(torch.utils.data.Dataset):
    """The samples of a whole run in order: item i is frame i % batch of step i // batch.

    Every epoch is a seeded permutation of the frames that occur in pairs; a sample depends on
    (seed, epoch, frame) only. Raises Pri3DError as `PairSamples` does.
    """

    def __init__(self, pairs: Path, clouds_dir: Path, settings: Pretrain, held_out=()):
        self.pairs = PairSamples(pairs, clouds_dir, clouds_dir, "view", settings, held_out)
        self.clouds_dir, self.settings, self.with_geo = Path(clouds_dir), settings, False
        self.frames = np.unique(np.concatenate([self.pairs.a, self.pairs.b]))
        self.collate = collate_frames

    def __len__(self) -> int:
        return len(self.pairs)

    def used_scenes(self) -> list[str]:
        """Scans that have at least one frame, in the order of the pairs file."""
        return self.pairs.used_scenes()

    def __getitem__(self, index: int) -> tuple[str, list[Tensor] | None, list[str]]:
        epoch, place = divmod(index, len(self.frames))
        frame = int(self.frames[order_of_epoch(self.settings.seed, epoch, len(self.frames))[place]])
        scene = self.pairs.scenes[self.pairs.frame_scene[frame]]
        number = int(self.pairs.frame_index[frame])
        name = f"{scene} frame {number}"
        scan = self.pairs.scans[scene]
        try:
            with damage_is_named(scan, name):
                rgb = stored_image(scan.clouds, row_of(scan.clouds, number))
        except ValueError as error:
            return name, None, [str(error)]
        rngs = np.random.default_rng([self.settings.seed, 2, epoch, frame]).spawn(2)
        return name, [self._view(rgb, rng) for rng in rngs], []

    def _view(self, rgb: np.ndarray, rng: np.random.Generator) -> Tensor:
        settings = self.settings
        image_CHW = torch.from_numpy(rgb).permute(2, 0, 1)
        box = crop_box(image_CHW.shape[-2:], rng)
        shape = [settings.height, settings.width]
        image_CHW = functional.resized_crop(image_CHW.float() / 255, *box, shape, antialias=True)
        if rng.random() < 0.5:
            image_CHW = functional.horizontal_flip(image_CHW)
        image_CHW = image_CHW.clamp(0, 1)
        return normalise(augment(image_CHW, rng) if settings.augment_color else image_CHW)


def crop_box(shape: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random crop of 20 to 100 % of an image's area."""
    height, width = shape
    area = rng.uniform(SMALLEST_CROP, 1)
    aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
    rows = min(height, max(1, round(height * math.sqrt(area / aspect))))
    columns = min(width, max(1, round(width * math.sqrt(area * aspect))))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    return int(top), int(left), rows, columns


def collate_frames(samples: list[tuple[str, list[Tensor] | None, list[str]]]) -> FrameBatch:
    """One micro-batch; frames that cannot be used are only counted."""
    views = [views for _, views, _ in samples if views is not None]
    images = [
        torch.stack([pair[side] for pair in views]) if views else torch.zeros(0, 3, 0, 0)
        for side in (0, 1)
    ]
    names, skipped = [name for name, _, _ in samples], [r for _, _, rs in samples for r in rs]
    return FrameBatch(names, *images, skipped)


class Moco(nn.Module):
    """What momentum contrast has beside the trained encoder: heads, the slow encoder, the queue.

    `encoder_k` and `head_k` follow the trained ones: after each step they become
    momentum * themselves + (1 - momentum) * the trained ones. `queue_KC` holds unit vectors.
    """

    def __init__(self, settings: Pretrain) -> None:
        super().__init__()
        self.head = _head(settings.network2d)
        self.encoder_k, self.head_k = resnet_encoder(settings.network2d), _head(settings.network2d)
        for parameter in (*self.encoder_k.parameters(), *self.head_k.parameters()):
            parameter.requires_grad_(False)
        queue_KC = nn.functional.normalize(torch.randn(settings.moco_queue, CHANNELS))
        self.register_buffer("queue_KC", queue_KC)
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self.new_keys: list[Tensor] = []  # of the step's micro-batches

    def loss(self, encoder: nn.Module, batch: FrameBatch, settings: Pretrain) -> tuple:
        """InfoNCE of each image [B], and the share [B] of those whose own key is the nearest."""
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
        found_B = (logits[:, 1:] < logits[:, :1]).all(1)
        return loss_B, found_B

    def _keys(self, image_BCHW: Tensor) -> Tensor:
        """Keys from two interleaved halves: were queries and keys normalised in the same groups,
        batch norm's statistics would tell which belong together (MoCo's "shuffling BN").
        """
        if len(image_BCHW) < 4:
            return _features(self.encoder_k, self.head_k, image_BCHW)
        key_BC = image_BCHW.new_empty(len(image_BCHW), CHANNELS)
        for start in (0, 1):
            part = image_BCHW[start::2]
            key_BC[start::2] = _features(self.encoder_k, self.head_k, part).to(key_BC.dtype)
        return key_BC

    @torch.no_grad()
    def start_from(self, encoder: nn.Module) -> None:
        """Make the slow parts equal to the trained ones."""
        self.encoder_k.load_state_dict(encoder.state_dict())
        self.head_k.load_state_dict(self.head.state_dict())

    @torch.no_grad()
    def after_step(self, encoder: nn.Module, momentum: float) -> None:
        """Move the slow parts, and put the step's keys of all processes into the queue."""
        trained = (*encoder.parameters(), *self.head.parameters())
        slow = (*self.encoder_k.parameters(), *self.head_k.parameters())
        for to, value in zip(slow, trained, strict=True):
            to.lerp_(value.to(to.dtype), 1 - momentum)
        of_process = gather([key_BC.cpu() for key_BC in self.new_keys])
        self.new_keys.clear()
        longest = max(len(keys) for keys in of_process)
        keys = [k[i] for i in range(longest) for k in of_process if i < len(k)]  # as dealt out
        if not keys:
            return
        key_NC = torch.cat(keys)[-len(self.queue_KC) :].to(self.queue_KC)
        rows = (int(self.place) + torch.arange(len(key_NC))) % len(self.queue_KC)
        self.queue_KC[rows.to(self.queue_KC.device)] = key_NC
        self.place.fill_((int(self.place) + len(key_NC)) % len(self.queue_KC))


def _head(network2d: str) -> nn.Module:
    width = ENCODERS[network2d][1][-1]
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, CHANNELS))


def _features(encoder: nn.Module, head: nn.Module, image_BCHW: Tensor) -> Tensor:
    x = image_BCHW.contiguous(memory_format=torch.channels_last)
    for part in encoder.children():  # torchvision's order is that of the forward pass
        x = part(x)
    return nn.functional.normalize(head(x.mean((2, 3))).float(), dim=1)
