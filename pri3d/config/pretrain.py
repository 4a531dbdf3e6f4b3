"""Settings of pretraining."""

from typing import Literal

from pydantic import Field

from pri3d.config.networks import Network2d, Network3d
from pri3d.config.training import Training

NAMED_WEIGHTS = ("random", "imagenet", "try_imagenet")  # anything else is a file of weights

CloudChange = Literal["rotate", "scale", "flip", "elastic", "color"]
CLOUD_CHANGES: list[CloudChange] = ["rotate", "scale", "flip", "elastic", "color"]
AUGMENT_CLOUD = (
    "augmentation of clouds; rotate: about the vertical axis, with a small tilt; "
    "scale: by 0.9 to 1.1; flip; elastic: distortion; color; []: none"
)
SCHEDULES = (
    "learning rate: polynomial with `power`; cosine to 0; exponential: times 0.99 every 250 steps "
    "(paper: polynomial; SLidR: cosine; PointContrast: exponential)"
)


class Pretrain(Training):
    """One pretraining, with the networks and `training` that it inherits."""

    # networks and their initial weights
    network2d: Network2d = "resnet18"
    network3d: Network3d = Network3d()
    initial_weights_2d: str = Field(
        "random",
        description="initial weights of the 2D network: random; imagenet (torchvision's, "
        "downloaded on first use); try_imagenet (imagenet if available, otherwise random with a "
        "warning); or a file of weights (paper: imagenet)",
    )
    initial_weights_3d: str = Field(
        "random",
        description="initial weights of the 3D network: random, or a file of weights "
        "(paper: random)",
    )
    projection_channels: int = Field(
        64,
        ge=1,
        description="output channels of the projection heads (paper: 64; PPKT: 128)",
    )
    teacher: str = Field(
        "resnet18",
        pattern=r"^(resnet18|resnet34|resnet50|resnet18_half|(torchvision|timm):[\w.\-]+)$",
        description="frozen 2D network that ppkt, global_kd, crd and gupta learn from: a name as "
        "in network2d, torchvision:NAME or timm:NAME (PPKT: resnet50)",
    )
    teacher_weights: str = Field(
        "random",
        description="weights of the teacher: imagenet, try_imagenet, a file such as "
        "results/runs/view/model.safetensors, or random (for the demo) (PPKT: "
        "imagenet)",
    )
    # length
    steps: int = Field(
        66000, ge=1, description="optimizer steps (paper: 5 epochs, about 66000 steps)"
    )
    batch: int = Field(
        64, ge=1, description="pairs (or frames) per step, summed over all processes (paper: 64)"
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="pairs per micro-batch; gradients are accumulated over micro-batches, and "
        "batch norm statistics are computed within each; null: one micro-batch per "
        "process (paper: 8 on each of 8 GPUs)",
    )
    # input
    height: int = Field(
        240, ge=64, multiple_of=4, description="pixels; height of the color input (paper: 240)"
    )
    width: int = Field(
        320, ge=64, multiple_of=4, description="pixels; width of the color input (paper: 320)"
    )
    frame_voxel_m: float = Field(
        0.025,
        gt=0,
        description="meters; voxel size of a single frame's cloud, for pointcontrast and the modes "
        "with a teacher (PPKT: 0.025)",
    )
    augment_color: bool = Field(
        True, description="jitter colors, convert to gray and blur as published (paper: true)"
    )
    crop: float = Field(
        1.0,
        gt=0,
        le=1,
        description="minimum size of a random crop, as a fraction of the image's sides; the crop "
        "is resized to the input size; 1: no crop (paper: 1)",
    )
    flip: bool = Field(False, description="mirror each image with probability 0.5 (paper: false)")
    rotate_chunks: bool = Field(
        False,
        description="rotate each chunk about the vertical axis by a random angle (paper: false)",
    )
    augment_cloud: list[CloudChange] = Field(CLOUD_CHANGES, description=AUGMENT_CLOUD)
    # correspondences
    matches: int = Field(
        1024,
        ge=2,
        description="maximum number of matches per pair (view) and per image (geo) (paper: 1024)",
    )
    match_rule: Literal["paper", "official"] = Field(
        "paper",
        description="paper: 3D distance, one match per feature cell; official: as in the published "
        "code (depth differences, truncated pixels; matches that share a cell are negatives)",
    )
    radius_m: float = Field(
        0.02,
        gt=0,
        description="meters; maximum distance between a pixel and its match, under the rule paper "
        "(paper: 0.02)",
    )
    # loss
    temperature: float = Field(
        0.4, gt=0, description="temperature of PointInfoNCE, no unit (paper's code: 0.4)"
    )
    normalize: bool = Field(
        True,
        description="normalize features before the dot product; otherwise, training diverges at "
        "the paper's learning rate (paper's text: false; its code: true)",
    )
    symmetric: bool = Field(
        False,
        description="average the losses of both directions (paper's text: false; its code: true)",
    )
    reduction: Literal["mean", "sum"] = Field(
        "mean",
        description="reduction of the loss over the anchors of a sample; with sum, the size of a "
        "step grows with the number of matches (paper's text: sum; its code: mean)",
    )
    depth_loss: bool = Field(
        False,
        description="also predict depth from the 2D features, for view and joint (paper: false; "
        "its code: true)",
    )
    contrast3d: Literal["nce", "hardest"] = Field(
        "nce",
        description="loss of pointcontrast: PointInfoNCE or hardest-contrastive (PointContrast "
        "has both)",
    )
    kd_temperature: float = Field(
        4.0, gt=0, description="temperature of global_kd's softmax, no unit (not published)"
    )
    moco_queue: int = Field(
        65536, ge=1, description="number of negatives in moco's queue (MoCo: 65536)"
    )
    moco_momentum: float = Field(
        0.999, ge=0, le=1, description="momentum of moco's key encoder (MoCo: 0.999)"
    )
    moco_temperature: float = Field(
        0.2, gt=0, description="temperature of moco's loss, no unit (MoCo v2: 0.2)"
    )
    # optimizer
    lr: float = Field(0.1, gt=0, description="initial learning rate of SGD (paper: 0.1)")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD (paper: 0.9)")
    dampening: float = Field(0.1, ge=0, lt=1, description="dampening of SGD (paper's code: 0.1)")
    weight_decay: float = Field(0.0, ge=0, description="weight decay of SGD (paper's code: 0)")
    schedule: Literal["polynomial", "cosine", "exponential"] = Field(
        "polynomial", description=SCHEDULES
    )
    power: float = Field(0.9, ge=0, description="exponent of the polynomial decay (paper: 0.9)")
    clip_norm: float | None = Field(
        None, gt=0, description="maximum norm of the gradient, no unit (paper: no limit)"
    )
    bn_momentum: Literal["fixed", "decaying"] = Field(
        "fixed",
        description="momentum of batch norm's running statistics; fixed: 0.1; decaying: from 0.5 "
        "to 0.001, halved every 20 steps (paper's code: decaying)",
    )
    sync_bn: bool = Field(
        False, description="batch norm over the micro-batches of all processes (paper: false)"
    )
    # how it runs
    precision: Literal["float32", "bf16"] = Field(
        "float32",
        description="precision of the 2D network's activations; bf16 is faster on hardware that "
        "supports it (paper: float32)",
    )
    seed: int = Field(
        0,
        ge=0,
        description="random seed of initial weights, pair order, sampled matches and augmentation",
    )
    keep_checkpoints: int = Field(2, ge=1, description="number of most recent checkpoints to keep")
