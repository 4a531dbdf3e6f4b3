"""Settings of pretraining, and which of them a mode uses."""

from typing import Annotated, Literal

from pydantic import Field

from pri3d.config.section import Section

Net2d = Literal["resnet18", "resnet34", "resnet50", "resnet18_half"]


class Pretrain(Section):
    net2d: Net2d = Field(
        "resnet18",
        description="encoder of the 2D UNet; resnet18_half has half the channels, for CPUs (paper: "
        "resnet50 and resnet18)",
    )
    width3d: list[Annotated[int, Field(ge=1)]] = Field(
        [32, 64, 128, 256, 256, 128, 96, 96],
        min_length=8,
        max_length=8,
        description="channels of the sparse 3D UNet's eight stages "
        "(paper: 32 64 128 256 256 128 96 96)",
    )
    blocks3d: list[Annotated[int, Field(ge=1)]] = Field(
        [2, 3, 4, 6, 2, 2, 2, 2],
        min_length=8,
        max_length=8,
        description="residual blocks of those stages (paper: 2 3 4 6 2 2 2 2)",
    )
    stem3d: Literal[3, 5] = Field(
        5, description="kernel of the 3D network's first convolution (paper: 5; PointContrast: 3)"
    )
    channels3d: int = Field(
        96, ge=1, description="channels of the 3D network's features (paper: 96; PointContrast: 32)"
    )
    projected: int = Field(
        64,
        ge=1,
        description="channels in which 2D and 3D features are compared (paper: 64; PPKT: 128)",
    )
    teacher: str = Field(
        "resnet18",
        pattern=r"^(resnet18|resnet34|resnet50|resnet18_half|(torchvision|timm):[\w.\-]+)$",
        description="frozen 2D network that ppkt, global_kd, crd and gupta learn from: an encoder "
        "of net2d's, or torchvision:NAME or timm:NAME (PPKT: resnet50)",
    )
    teacher_init: str = Field(
        "random",
        description="the teacher's weights: imagenet, try_imagenet (random, and told, where they "
        "cannot be had), a file, such as results/runs/view/model.safetensors, or random, which "
        "teaches nothing (PPKT: imagenet)",
    )
    frame_voxel_m: float = Field(
        0.025,
        gt=0,
        description="metres; voxels of a single frame's cloud, for pointcontrast and the modes "
        "with a teacher (PPKT: 0.025)",
    )
    height: int = Field(
        240, ge=64, multiple_of=4, description="pixels; height of the colour input (paper: 240)"
    )
    width: int = Field(
        320, ge=64, multiple_of=4, description="pixels; width of the colour input (paper: 320)"
    )
    steps: int = Field(
        66000, ge=1, description="optimiser steps (paper: 5 epochs, about 66000 steps)"
    )
    batch: int = Field(
        64, ge=1, description="pairs a step, over all processes together (paper: 64)"
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="pairs that a process has in memory at once; batch norm sees these, gradients "
        "are added up over a batch; null: all of a process's share (paper: 8 on each of 8 GPUs)",
    )
    matches: int = Field(
        1024,
        ge=2,
        description="most matches drawn for a pair (view) and for an image (geo) (paper: 1024)",
    )
    match_rule: Literal["paper", "official"] = Field(
        "paper",
        description="paper: 3D distance, one match a feature cell; official: as the published code "
        "(depth differences, truncated pixels; matches that share a cell are negatives)",
    )
    radius_m: float = Field(
        0.02,
        gt=0,
        description="metres; a pixel and its match lie closer than this, under the rule paper "
        "(paper: 0.02)",
    )
    temperature: float = Field(
        0.4, gt=0, description="temperature of PointInfoNCE, no unit (paper's code: 0.4)"
    )
    normalise: bool = Field(
        True,
        description="compare features by their directions; plain dot products diverge at the "
        "paper's learning rate (paper's text: false; its code: true)",
    )
    symmetric: bool = Field(
        False,
        description="find the anchor of each match too, and take the mean of both directions "
        "(paper's text: false; its code: true)",
    )
    reduction: Literal["mean", "sum"] = Field(
        "mean",
        description="over the anchors of a sample; the sum makes a step larger the more matches "
        "there are (paper's text: sum; its code: mean)",
    )
    depth_loss: bool = Field(
        False,
        description="also predict depth from the 2D features, for view and joint (paper: false; "
        "its code: true)",
    )
    contrast3d: Literal["nce", "hardest"] = Field(
        "nce",
        description="loss of pointcontrast: PointInfoNCE, or hardest-contrastive (PointContrast "
        "has both)",
    )
    kd_temperature: float = Field(
        4.0, gt=0, description="temperature of global_kd's softmax, no unit (not published)"
    )
    moco_queue: int = Field(
        65536, ge=1, description="negatives that moco keeps in its queue (MoCo: 65536)"
    )
    moco_momentum: float = Field(
        0.999, ge=0, le=1, description="of moco's slowly moving encoder (MoCo: 0.999)"
    )
    moco_temperature: float = Field(
        0.2, gt=0, description="temperature of moco's loss, no unit (MoCo v2: 0.2)"
    )
    lr: float = Field(0.1, gt=0, description="SGD learning rate at the start (paper: 0.1)")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum (paper: 0.9)")
    dampening: float = Field(0.1, ge=0, lt=1, description="SGD dampening (paper's code: 0.1)")
    weight_decay: float = Field(0.0, ge=0, description="SGD weight decay (paper's code: 0)")
    schedule: Literal["polynomial", "cosine", "exponential"] = Field(
        "polynomial",
        description="of the learning rate: polynomial with `power`; cosine to 0; exponential: "
        "times 0.99 every 250 steps (paper: polynomial; SLidR: cosine; PointContrast: exponential)",
    )
    power: float = Field(
        0.9, ge=0, description="exponent of the learning rate's polynomial decay (paper: 0.9)"
    )
    clip_norm: float | None = Field(
        None, gt=0, description="largest norm of a step's gradient, no unit (paper: no limit)"
    )
    bn_momentum: Literal["fixed", "decaying"] = Field(
        "fixed",
        description="of batch norm's running statistics; fixed: 0.1; decaying: from 0.5 down to "
        "0.001, halved every 20 steps (paper's code: decaying)",
    )
    sync_bn: bool = Field(
        False, description="batch norm over the micro-batches of all processes (paper: false)"
    )
    init2d: str = Field(
        "random",
        description="start of the 2D network: random; imagenet (torchvision's weights, downloaded "
        "on first use); try_imagenet (random, and told, where they cannot be had); or a file of "
        "weights (paper: imagenet)",
    )
    init3d: str = Field(
        "random",
        description="start of the 3D network: random, or a file of weights (paper: random)",
    )
    augment: bool = Field(
        True, description="jitter colours, turn grey and blur as published (paper: true)"
    )
    crop: float = Field(
        1.0,
        gt=0,
        le=1,
        description="smallest share of an image's sides that a random crop keeps, which is then "
        "scaled to the input's size; 1: no crop (paper: 1)",
    )
    flip: bool = Field(False, description="mirror every other image, at random (paper: false)")
    rotate_chunks: bool = Field(
        False, description="turn every chunk about the vertical, at random (paper: false)"
    )
    augment3d: list[Literal["rotate", "scale", "flip", "elastic", "color"]] = Field(
        ["rotate", "scale", "flip", "elastic", "color"],
        description="how clouds of single frames are changed at random: turned about the vertical "
        "and tilted, scaled by 0.9 to 1.1, mirrored, distorted, recoloured; [] for nothing",
    )
    seed: int = Field(
        0, ge=0, description="seed of weights, order of pairs, drawn matches and augmentation"
    )
    precision: Literal["float32", "bf16"] = Field(
        "float32",
        description="of the 2D network's activations; bf16 is faster where the processor has it "
        "(paper: float32)",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes a GPU where there is one"
    )
    processes: int = Field(
        1,
        ge=1,
        description="training processes on this machine, one a GPU; they share each batch "
        "(paper: 8)",
    )
    threads: int = Field(
        0, ge=0, description="threads of the training process on the CPU; 0 leaves it to torch"
    )
    workers: int = Field(
        2,
        ge=0,
        description="processes that prepare samples, for each training process; 0 does it in the "
        "training process",
    )
    compile: bool = Field(
        False,
        description="compile the 2D network of view, geo and joint (torch.compile; needs a C "
        "compiler)",
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="so many of the newest checkpoints stay")
    log_every: int = Field(10, ge=1, description="steps between lines of metrics.jsonl")
    wandb: bool = Field(
        False, description="send the figures to Weights & Biases too (pip install 'pri3d[wandb]')"
    )


INIT = ("random", "imagenet", "try_imagenet")  # anything else is a file of weights

# How a pretraining run is done, and not what comes out: these may change when a run goes on.
PRETRAIN_HOW = (
    "device",
    "processes",
    "threads",
    "workers",
    "compile",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "wandb",
)


Mode = Literal["view", "geo", "joint", "moco", "ppkt", "pointcontrast", "global_kd", "crd", "gupta"]
PRETRAINED = ("view", "geo", "joint", "moco")  # modes that leave a 2D network
WHOLE_FRAMES = ("global_kd", "crd", "gupta")  # modes that train the 3D network's encoder alone
WITH_TEACHER = ("ppkt", *WHOLE_FRAMES)
PRETRAINED_3D = (*WITH_TEACHER, "pointcontrast")  # modes that leave a 3D network alone

_OF_CONTRAST = ("matches", "temperature", "normalise", "symmetric", "reduction")
_OF_MATCHES = ("match_rule", "radius_m", *_OF_CONTRAST)
_OF_IMAGES = ("net2d", "init2d", "augment", "crop", "flip", "precision", "compile")
_OF_3D = ("width3d", "blocks3d", "stem3d", "channels3d", "init3d")
_OF_MOCO = ("moco_queue", "moco_momentum", "moco_temperature")
_OF_CLOUDS = ("frame_voxel_m", "augment3d", "contrast3d", "kd_temperature")
_OF_CLOUDS += ("teacher", "teacher_init")
_NOT_GLOBAL = (
    "depth_loss",
    "rotate_chunks",
    "net2d",
    "init2d",
    "compile",
    "match_rule",
    "radius_m",
    *_OF_MOCO,
)
_NOT_GLOBAL += ("symmetric", "reduction", "contrast3d", "matches")
# Settings that a mode does not use: a change of them is none of its runs.
PRETRAIN_UNUSED = {
    "view": (*_OF_3D, "projected", "rotate_chunks", *_OF_MOCO, *_OF_CLOUDS),
    "geo": ("depth_loss", *_OF_MOCO, *_OF_CLOUDS),
    "joint": (*_OF_MOCO, *_OF_CLOUDS),
    "moco": (
        *("depth_loss", "crop", "flip", "rotate_chunks", "projected"),
        *(*_OF_MATCHES, *_OF_3D, *_OF_CLOUDS),
    ),
    "ppkt": (
        *(
            "depth_loss",
            "rotate_chunks",
            "net2d",
            "init2d",
            "radius_m",
            "contrast3d",
            "kd_temperature",
        ),
        "compile",
        *_OF_MOCO,
    ),
    "pointcontrast": (
        *("depth_loss", "rotate_chunks", "projected", "teacher", "teacher_init"),
        *("kd_temperature", "height", "width"),
        *(*_OF_IMAGES, *_OF_MOCO),
    ),
    "global_kd": (*_NOT_GLOBAL, "projected", "temperature", "normalise"),
    "crd": (*_NOT_GLOBAL, "normalise", "kd_temperature"),
    "gupta": (*_NOT_GLOBAL, "projected", "temperature", "normalise", "kd_temperature"),
}
