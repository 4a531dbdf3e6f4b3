"""torchvision's Mask R-CNN on a pretrained encoder.

He et al., "Mask R-CNN", ICCV 2017, with a feature pyramid (Lin et al., CVPR 2017). torchvision's
own `maskrcnn_resnet50_fpn` derives normalization and frozen stages from whether it loads its own
weights; here they are settings.

Shapes: N objects, H x W pixels.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FrozenBatchNorm2d

from pri3d.config import Insseg
from pri3d.errors import Pri3DError
from pri3d.finetune.labels import as_tensor
from pri3d.models.resunet import ENCODERS, resnet_encoder

STAGES = ("layer4", "layer3", "layer2", "layer1", "conv1")  # from the last; bn1 goes with conv1
PYRAMID_CHANNELS = 256
LOSS_NAMES = {
    "loss_classifier": "classes",
    "loss_box_reg": "boxes",
    "loss_mask": "masks",
    "loss_objectness": "proposed",
    "loss_rpn_box_reg": "proposed_boxes",
}


def build(classes: int, settings: Insseg) -> nn.ModuleDict:
    """`model`: a Mask R-CNN for K classes and the background, with random weights.

    Raises:
        Pri3DError: batch norm statistics are to be frozen, and the initial weights have none.
    """
    if settings.encoder_norm == "frozen" and settings.initial_weights in ("random", "try_imagenet"):
        raise Pri3DError(
            "insseg.encoder_norm: a random network has no statistics to freeze; set it to batch, "
            "or insseg.initial_weights to weights"
        )
    norm = FrozenBatchNorm2d if settings.encoder_norm == "frozen" else nn.BatchNorm2d
    encoder = resnet_encoder(settings.network2d, norm_layer=norm)
    stages = {f"layer{i}": str(i - 1) for i in range(1, 5)}
    channels = list(ENCODERS[settings.network2d].channels)
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


def encoder_of(nets: nn.ModuleDict) -> nn.Module:
    """The ResNet encoder of the detector."""
    return nets["model"].get_submodule("backbone.body")


def losses(
    nets: nn.ModuleDict, images: list[Tensor], targets: list[dict[str, Tensor]], settings: Insseg
) -> dict[str, Tensor]:
    """The losses for images (u8 [3, H, W]) and torchvision's targets for them."""
    device = images[0].device
    with torch.autocast(device.type, torch.bfloat16, settings.precision == "bf16"):
        terms = nets["model"]([image.float() / 255 for image in images], targets)
    return {LOSS_NAMES[name]: loss.float() for name, loss in terms.items()}


class Predictions(NamedTuple):
    """Objects predicted in an image: boxes [N, 4] (x1, y1, x2, y2 in pixels), labels int64 [N]
    (1..K), scores [N] in decreasing order, masks bool [N, H, W].
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    masks: np.ndarray


@torch.no_grad()
def predict(
    nets: nn.ModuleDict, rgb: np.ndarray, settings: Insseg, device: torch.device
) -> Predictions:
    """The objects in an image (u8 [H, W, 3])."""
    image = as_tensor(rgb).to(device)
    with torch.autocast(device.type, torch.bfloat16, settings.precision == "bf16"):
        (objects,) = nets["model"]([image.float() / 255])
    return Predictions(
        boxes=objects["boxes"].float().cpu().numpy(),
        labels=objects["labels"].cpu().numpy(),
        scores=objects["scores"].float().cpu().numpy(),
        masks=(objects["masks"][:, 0] > 0.5).cpu().numpy(),
    )
