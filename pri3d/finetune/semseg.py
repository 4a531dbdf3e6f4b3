"""Semantic segmentation: the pretrained UNet, or DeepLabV3 on its encoder.

Shapes: B images, K classes, H x W pixels of the input.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from pri3d.config import Semseg
from pri3d.finetune.samples import IGNORED, SemsegBatch
from pri3d.models.resunet import ENCODERS, resnet_encoder, resunet, stem


def networks(settings: Semseg, classes: int) -> nn.ModuleDict:
    """`backbone` (a UNet, or an encoder alone) and `classifier`, with random weights."""
    if settings.architecture == "unet":
        backbone = resunet(settings.network2d)
        return nn.ModuleDict(
            {"backbone": backbone, "classifier": nn.Conv2d(backbone.channels, classes, 1)}
        )
    encoder = resnet_encoder(settings.network2d, dilated=True)
    head = DeepLabHead(ENCODERS[settings.network2d][1][-1], classes)
    backbone = nn.ModuleDict({"encoder": encoder})
    return nn.ModuleDict({"backbone": backbone, "classifier": head})


def trained(nets: nn.ModuleDict, settings: Semseg) -> list[nn.Parameter]:
    """The parameters that are trained. Of a frozen backbone only batch norm's statistics go on."""
    nets["backbone"].requires_grad_(not settings.frozen)
    return [parameter for parameter in nets.parameters() if parameter.requires_grad]


def set_training(nets: nn.ModuleDict, settings: Semseg) -> None:
    """To training; batch norm follows the images, of a frozen backbone too."""
    nets.train()


def logits(nets: nn.ModuleDict, image_BCHW: Tensor, settings: Semseg) -> Tensor:
    """float32 [B, K, H, W] for normalised images; the size is the images'."""
    with torch.autocast(image_BCHW.device.type, torch.bfloat16, settings.precision == "bf16"):
        image = image_BCHW.contiguous(memory_format=torch.channels_last)
        backbone = nets["backbone"]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not settings.frozen):
            if settings.architecture == "unet":
                features = backbone(image)
            else:
                features = _last_map(backbone["encoder"], image)
        scores = nets["classifier"](features)
    return interpolate(scores.float(), image_BCHW.shape[-2:], mode="bilinear", align_corners=False)


def _last_map(encoder: nn.Module, image: Tensor) -> Tensor:
    return encoder.layer4(encoder.layer3(encoder.layer2(encoder.layer1(stem(encoder, image)))))


def losses(nets: nn.ModuleDict, batch: SemsegBatch, settings: Semseg) -> dict[str, Tensor]:
    """Cross entropy, the mean over all annotated pixels; none where nothing is annotated."""
    if batch.images_BCHW is None or not (batch.targets_BHW != IGNORED).any():
        return {}
    if settings.architecture == "deeplabv3" and len(batch.images_BCHW) < 2:
        return {}  # its head normalises one value an image
    scores = logits(nets, batch.images_BCHW, settings)
    return {"pixels": cross_entropy(scores, batch.targets_BHW.long(), ignore_index=IGNORED)}


def most_likely(scores: Tensor, shape: tuple[int, int]) -> Tensor:
    """u8 [B, h, w]: the class, 1..K, of each pixel at a size (height, width), for `logits`."""
    if tuple(scores.shape[-2:]) != tuple(shape):
        scores = interpolate(scores, shape, mode="bilinear", align_corners=False)
    return (scores.argmax(dim=1) + 1).to(torch.uint8)
