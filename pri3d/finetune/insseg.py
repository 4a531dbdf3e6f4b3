"""Detection and instance segmentation: torchvision's Mask R-CNN on a pretrained encoder.

He et al., "Mask R-CNN", ICCV 2017, with a feature pyramid (Lin et al., CVPR 2017). torchvision's
own `maskrcnn_resnet50_fpn` chooses normalisation and frozen stages by whether *its* weights are
asked for; here they are settings.

Shapes: N objects, H x W pixels.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FrozenBatchNorm2d

from pri3d.config import Insseg
from pri3d.errors import Pri3DError
from pri3d.finetune.samples import InssegBatch
from pri3d.models.resunet import ENCODERS, resnet_encoder

STAGES = ("layer4", "layer3", "layer2", "layer1", "conv1")  # from the last; bn1 goes with conv1
PYRAMID_CHANNELS = 256


def networks(settings: Insseg, classes: int) -> nn.ModuleDict:
    """`model`: a Mask R-CNN for K classes and the background, with random weights.

    Its encoder is `model.backbone.body`. Raises Pri3DError for frozen statistics of a random start.
    """
    if settings.encoder_norm == "frozen" and settings.initial_weights in ("random", "try_imagenet"):
        raise Pri3DError(
            "insseg.norm: a random network has no statistics to freeze; set it to batch, or "
            "insseg.init to weights"
        )
    norm = FrozenBatchNorm2d if settings.encoder_norm == "frozen" else nn.BatchNorm2d
    encoder = resnet_encoder(settings.network2d, norm_layer=norm)
    stages = {f"layer{i}": str(i - 1) for i in range(1, 5)}
    channels = list(ENCODERS[settings.network2d][1])
    model = MaskRCNN(
        BackboneWithFPN(encoder, stages, channels, PYRAMID_CHANNELS),
        num_classes=classes + 1,
        min_size=tuple(settings.short_sides),
        max_size=settings.long_side,
        rpn_post_nms_top_n_train=1000,
        rpn_post_nms_top_n_test=1000,
        box_score_thresh=settings.min_score,
        box_batch_size_per_image=settings.roi_samples,
    )
    return nn.ModuleDict({"model": model})


def encoder(nets: nn.ModuleDict) -> nn.Module:
    return nets["model"].backbone.body


def trained(nets: nn.ModuleDict, settings: Insseg) -> list[nn.Parameter]:
    """The parameters that are trained: all but the encoder's first stages."""
    kept = STAGES[settings.trained_stages :]
    for name, parameter in encoder(nets).named_parameters():
        stage = name.split(".")[0].replace("bn1", "conv1")
        parameter.requires_grad_(stage not in kept)
    return [parameter for parameter in nets.parameters() if parameter.requires_grad]


def set_training(nets: nn.ModuleDict, settings: Insseg) -> None:
    """To training; stages that are kept stay as they are, their batch norm's statistics too."""
    nets.train()
    body = encoder(nets)
    for stage in STAGES[settings.trained_stages :]:
        body.get_submodule(stage).eval()
        if stage == "conv1":
            body.get_submodule("bn1").eval()


def losses(nets: nn.ModuleDict, batch: InssegBatch, settings: Insseg) -> dict[str, Tensor]:
    """The five losses of Mask R-CNN, which are to be added up."""
    if not batch.images:
        return {}
    device = batch.images[0].device
    with torch.autocast(device.type, torch.bfloat16, settings.precision == "bf16"):
        found = nets["model"]([image.float() / 255 for image in batch.images], batch.targets)
    names = {
        "loss_classifier": "classes",
        "loss_box_reg": "boxes",
        "loss_mask": "masks",
        "loss_objectness": "proposed",
        "loss_rpn_box_reg": "proposed_boxes",
    }
    return {names[name]: loss.float() for name, loss in found.items()}


@torch.no_grad()
def predict(nets: nn.ModuleDict, images: list[Tensor], settings: Insseg) -> list[dict[str, Any]]:
    """For each image (u8 [3, H, W]): boxes [N, 4] in its pixels, labels [N] (1..K),
    scores [N], the most certain first, and masks bool [N, H, W]."""
    with torch.autocast(images[0].device.type, torch.bfloat16, settings.precision == "bf16"):
        found = nets["model"]([image.float() / 255 for image in images])
    return [
        {
            "boxes": each["boxes"].float().cpu().numpy(),
            "labels": each["labels"].cpu().numpy(),
            "scores": each["scores"].float().cpu().numpy(),
            "masks": (each["masks"][:, 0] > 0.5).cpu().numpy(),
        }
        for each in found
    ]
