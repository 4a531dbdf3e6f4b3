"""Every setting, typed; the only source of defaults, units and descriptions.

`config.yaml`, the JSON schema that Snakemake validates with, and the defaults shown by `--help`
are all held against these models by tests. An unknown key is an error that names the nearest
right one.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pri3d.errors import Pri3DError


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class Frames(Section):
    every: int = Field(25, ge=1, description="use every n-th frame of a scan (paper: 25)")
    max_depth_m: float | None = Field(
        None, gt=0, description="metres; depth beyond this is no point (paper: no limit)"
    )
    color_height: int = Field(
        480,
        ge=0,
        description="pixels; taller colour images are area-filtered to this height, 0 keeps the "
        "bytes as they are (training reads 240)",
    )


class Overlap(Section):
    radius_m: float = Field(
        0.02, gt=0, description="metres; points closer than this are the same place (paper: 0.02)"
    )
    rule: Literal["paper", "official"] = Field(
        "paper",
        description="paper: every depth pixel, two-sided; official: the published script "
        "(5 cm voxels, 7.5 cm radius, larger direction)",
    )


class Pairs(Section):
    min_overlap: float = Field(
        0.3,
        ge=0,
        le=1,
        description="share of corresponding points from which a pair is kept (paper: 0.3)",
    )
    max_pairs: int | None = Field(
        None,
        ge=1,
        description="keep at most so many pairs, drawn evenly over all by `seed` "
        "(paper: all; lite: 20000)",
    )
    seed: int = Field(0, ge=0, description="seed of that draw")


class Chunks(Section):
    voxel_m: float = Field(0.02, gt=0, description="metres; edge of a surface voxel (paper: 0.02)")


class Demo(Section):
    scans: int = Field(
        5, ge=1, description="number of procedural scans; five kinds of room take turns"
    )
    seed: int = Field(0, ge=0, description="seed of rooms, textures, camera paths and noise")
    frames: int = Field(
        200,
        ge=1,
        description="frames of each scan, spread evenly over one camera path of 10 s",
    )
    height: int = Field(
        240, ge=16, description="pixels; height of depth images (4:3, ScanNet: 480)"
    )
    color_height: int = Field(
        240, ge=16, description="pixels; height of colour images (4:3, ScanNet: 968)"
    )
    noise: bool = Field(True, description="sensor noise, holes and lost poses")


class Sparse(Section):
    engine: Literal["torch", "minkowski"] = Field(
        "torch",
        description="what computes sparse convolutions; minkowski: MinkowskiEngine, where it is "
        "installed (make minkowski)",
    )


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
        "of net2d's, or torchvision:NAME or timm:NAME; it starts from `init2d` (PPKT: resnet50)",
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
WITH_TEACHER = ("ppkt", "global_kd", "crd", "gupta")
PRETRAINED_3D = (*WITH_TEACHER, "pointcontrast")  # modes that leave a 3D network alone

_OF_CONTRAST = ("matches", "temperature", "normalise", "symmetric", "reduction")
_OF_MATCHES = ("match_rule", "radius_m", *_OF_CONTRAST)
_OF_IMAGES = ("net2d", "init2d", "augment", "crop", "flip", "precision", "compile")
_OF_3D = ("width3d", "blocks3d", "stem3d", "channels3d", "init3d")
_OF_MOCO = ("moco_queue", "moco_momentum", "moco_temperature")
_OF_CLOUDS = ("frame_voxel_m", "augment3d", "teacher", "contrast3d", "kd_temperature")
_NOT_GLOBAL = ("depth_loss", "rotate_chunks", "net2d", "match_rule", "radius_m", *_OF_MOCO)
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
        *("depth_loss", "rotate_chunks", "net2d", "radius_m", "contrast3d", "kd_temperature"),
        *_OF_MOCO,
    ),
    "pointcontrast": (
        *("depth_loss", "rotate_chunks", "projected", "teacher", "kd_temperature"),
        *(*_OF_IMAGES, *_OF_MOCO),
    ),
    "global_kd": (*_NOT_GLOBAL, "projected", "temperature", "normalise"),
    "crd": (*_NOT_GLOBAL, "normalise", "kd_temperature"),
    "gupta": (*_NOT_GLOBAL, "projected", "temperature", "normalise", "kd_temperature"),
}


class Evaluate(Section):
    most_pairs: int = Field(
        100, ge=1, description="held-out pairs on which matches are sought, spread over all"
    )
    matches: int = Field(
        256, ge=2, description="matches of each pair, and of each of its images with its chunk"
    )
    radius_m: float = Field(
        0.02, gt=0, description="metres; a pixel and its match lie closer than this (paper: 0.02)"
    )
    seed: int = Field(0, ge=0, description="seed of the draw of matches")


class Labelled(Section):
    scannet: str = Field(
        "demo",
        description="`demo` (a look-alike), or the folder of scannet_frames_25k, or of scans with "
        "_2d-label-filt and _2d-instance-filt beside them",
    )
    nyuv2: str = Field(
        "demo",
        description="`demo`, or the folder with nyu_depth_v2_labeled.mat, splits.mat, "
        "classMapping40.mat and class13Mapping.mat",
    )
    scannet3d: str = Field(
        "demo",
        description="`demo`, or the folder of scans with _vh_clean_2.ply and their labels",
    )
    s3dis: str = Field(
        "demo", description="`demo`, or the folder with Area_1 to Area_6 (Annotations/*.txt)"
    )


class Finetuned(Section):
    """What all tasks have."""

    init: str = Field(
        "random",
        description="start of the encoder (and decoder): random, imagenet, try_imagenet (random, "
        "and told, where they cannot be had), a folder of a run, or a file of weights; for the "
        "command line alone: in the workflow it is finetune.starts that says it",
    )
    percent: float = Field(
        100, gt=0, le=100, description="share of the training labels that is used, in %"
    )
    subset: Literal["published", "random"] = Field(
        "published",
        description="which labels: the first scenes, as in the published lists, or scenes drawn by "
        "`seed`",
    )
    steps: int | None = Field(
        None, ge=1, description="optimiser steps; null: as many as `epochs` takes"
    )
    epochs: float = Field(80, gt=0, description="passes over the images used (paper: 80)")
    batch: int = Field(8, ge=1, description="images a step")
    lr: float = Field(0.01, gt=0, description="SGD learning rate at its highest")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum (paper: 0.9)")
    weight_decay: float = Field(1e-4, ge=0, description="SGD weight decay")
    warmup: float = Field(
        0.0, ge=0, lt=1, description="share of the steps in which the rate rises from 0 to `lr`"
    )
    power: float = Field(0.9, ge=0, description="exponent of the rate's polynomial decay after it")
    clip_norm: float | None = Field(
        None, gt=0, description="largest norm of a step's gradient, no unit"
    )
    seed: int = Field(
        0, ge=0, description="seed of new layers, drawn scenes, order of images and augmentation"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes a GPU where there is one"
    )
    threads: int = Field(0, ge=0, description="threads on the CPU; 0 leaves it to torch")
    workers: int = Field(
        2, ge=0, description="processes that prepare images; 0 does it in the training process"
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(1, ge=1, description="so many of the newest checkpoints stay")
    log_every: int = Field(10, ge=1, description="steps between lines of metrics.jsonl")


class Finetuned2d(Finetuned):
    """What the tasks on images have."""

    net2d: Net2d = Field(
        "resnet18",
        description="the encoder, that of the pretraining (paper: resnet50 and resnet18)",
    )
    flip: bool = Field(True, description="mirror every other image, at random")
    colors: bool = Field(True, description="jitter colours, turn grey and blur, as in pretraining")
    precision: Literal["float32", "bf16"] = Field(
        "bf16", description="of activations; bf16 is faster where the processor has it"
    )


class Semseg(Finetuned2d):
    net: Literal["unet", "deeplabv3"] = Field(
        "unet", description="the pretrained UNet, or DeepLabV3 on its encoder"
    )
    transfer: Literal["encoder_decoder", "encoder"] = Field(
        "encoder_decoder", description="what a UNet takes of `init` (paper: encoder_decoder)"
    )
    frozen: bool = Field(
        False, description="train the classifier alone, on features that stay (a linear probe)"
    )
    height: int = Field(
        240, ge=64, multiple_of=4, description="pixels; height of the input (paper: 240)"
    )
    width: int = Field(
        320, ge=64, multiple_of=4, description="pixels; width of the input (paper: 320)"
    )
    crop: float = Field(
        0.5,
        gt=0,
        le=1,
        description="smallest share of an image's sides that a random crop keeps, which is then "
        "scaled to the input's size; 1: no crop (paper's code: 1)",
    )
    lr: float = Field(0.05, gt=0, description="SGD learning rate at its highest (paper: 0.01)")


class Insseg(Finetuned2d):
    norm: Literal["batch", "frozen"] = Field(
        "batch",
        description="the encoder's normalisation: batch norm that goes on learning, or frozen at "
        "the statistics of `init` (not with random)",
    )
    trained_stages: int = Field(
        5,
        ge=0,
        le=5,
        description="stages of the encoder that are trained, from the last; 3 keeps the stem and "
        "layer1 as they were (paper: 3)",
    )
    short_sides: list[Annotated[int, Field(ge=32)]] = Field(
        [640, 672, 704, 736, 768, 800],
        min_length=1,
        description="pixels; an image's shorter side is scaled to one of these in training, and to "
        "the last when predicting",
    )
    long_side: int = Field(1333, ge=32, description="pixels; its longer side becomes no more")
    least_pixels: int = Field(
        1000, ge=0, description="smaller objects are no objects (published: 1000)"
    )
    proposals: int = Field(
        512, ge=1, description="regions of an image on which the heads are trained (paper: 32)"
    )
    score: float = Field(
        0.05, ge=0, le=1, description="less certain predictions are dropped (paper: 0.5)"
    )
    lr: float = Field(0.02, gt=0, description="SGD learning rate at its highest")
    epochs: float = Field(12, gt=0, description="passes over the images used")
    batch: int = Field(16, ge=1, description="images a step (paper: 16 of ScanNet, 2 of NYUv2)")
    warmup: float = Field(
        0.02, ge=0, lt=1, description="share of the steps in which the rate rises from 0 to `lr`"
    )
    clip_norm: float | None = Field(
        10.0, gt=0, description="largest norm of a step's gradient, no unit"
    )


class Semseg3d(Finetuned):
    width3d: list[Annotated[int, Field(ge=1)]] = Field(
        [32, 64, 128, 256, 256, 128, 96, 96],
        min_length=8,
        max_length=8,
        description="channels of the sparse 3D UNet's eight stages, those of the pretraining",
    )
    blocks3d: list[Annotated[int, Field(ge=1)]] = Field(
        [2, 3, 4, 6, 2, 2, 2, 2],
        min_length=8,
        max_length=8,
        description="residual blocks of those stages, those of the pretraining",
    )
    stem3d: Literal[3, 5] = Field(
        3, description="kernel of the 3D network's first convolution, that of the pretraining"
    )
    voxel_m: float = Field(
        0.02, gt=0, description="metres; edge of a voxel (paper: 0.02 for ScanNet, 0.05 for S3DIS)"
    )
    crop_m: float | None = Field(
        None,
        gt=0,
        description="metres; train on a part of a cloud this wide and deep, somewhere in it "
        "(S3DIS: 8); null: on all of it",
    )
    augment3d: list[Literal["rotate", "scale", "flip", "elastic", "color"]] = Field(
        ["rotate", "scale", "flip", "elastic", "color"],
        description="how clouds are changed at random, as in pretraining; [] for nothing",
    )
    epochs: float = Field(100, gt=0, description="passes over the clouds used")
    steps: int | None = Field(
        15000,
        ge=1,
        description="optimiser steps; null: as many as `epochs` takes (PPKT: 15000)",
    )
    batch: int = Field(8, ge=1, description="clouds a step (PPKT: 32 of S3DIS)")
    lr: float = Field(0.1, gt=0, description="SGD learning rate at its highest")


# How a finetuning run is done, and not what comes out: these may change when a run goes on.
FINETUNE_HOW = (
    "device",
    "threads",
    "workers",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
)


def finetune_unused(settings: Finetuned) -> tuple[str, ...]:
    """Settings that cannot act beside the others: a change of them is none of the run."""
    unused = FINETUNE_HOW
    if settings.steps is not None:
        unused += ("epochs",)
    if settings.percent >= 100:
        unused += ("subset",)
    if settings.init == "random":
        unused += ("transfer",)
    return unused


Task = Literal["semseg_scannet", "semseg_nyuv2", "insseg_scannet", "insseg_nyuv2"]
Task3d = Literal["semseg3d_scannet", "semseg3d_s3dis"]
SECTIONS = {"semseg": Semseg, "insseg": Insseg, "semseg3d": Semseg3d}  # of tasks
AnyTask = Literal[
    "semseg_scannet",
    "semseg_nyuv2",
    "insseg_scannet",
    "insseg_nyuv2",
    "semseg3d_scannet",
    "semseg3d_s3dis",
]
TASKS = {
    "semseg_scannet": ("semseg", "scannet"),
    "semseg_nyuv2": ("semseg", "nyuv2"),
    "insseg_scannet": ("insseg", "scannet"),
    "insseg_nyuv2": ("insseg", "nyuv2"),
    "semseg3d_scannet": ("semseg3d", "scannet3d"),
    "semseg3d_s3dis": ("semseg3d", "s3dis"),
}
Start = Annotated[str, Field(pattern=r"^[A-Za-z]\w*$")]


class Finetune(Section):
    starts: list[Start] = Field(
        ["scratch", "joint"],
        min_length=1,
        description="what each task is finetuned from: scratch (random), imagenet, the pretraining "
        "of a mode (view, geo, joint, moco), or a name of `files`",
    )
    starts3d: list[Start] = Field(
        ["scratch", "ppkt"],
        min_length=1,
        description="what each 3D task is finetuned from: scratch, the pretraining of a mode "
        "(ppkt, pointcontrast, global_kd, crd, gupta, geo, joint), or a name of `files`",
    )
    files: dict[Start, str] = Field(
        {}, description="further starts: a name for each file of weights, such as published ones"
    )


class LowData(Section):
    tasks: list[Task] = Field(
        ["semseg_scannet"], min_length=1, description="tasks of the low-data curve"
    )
    percents: list[Annotated[float, Field(gt=0, le=100)]] = Field(
        [20, 40, 60, 80, 100], min_length=1, description="shares of the training labels, in %"
    )
    starts: list[Start] = Field(
        ["scratch", "imagenet", "moco", "view", "geo", "joint"],
        min_length=1,
        description="what is compared: starts as in finetune.starts",
    )
    seeds: int = Field(
        1, ge=1, description="runs of each, which differ in seed; runs of one seed are pairs"
    )


class Compare3d(Section):
    tasks: list[Task3d] = Field(
        ["semseg3d_scannet", "semseg3d_s3dis"],
        min_length=1,
        description="tasks of the comparison of 3D pretrainings",
    )
    percents: list[Annotated[float, Field(gt=0, le=100)]] = Field(
        [15, 30, 50, 100],
        min_length=1,
        description="shares of the training labels, in % (PPKT: 15, 30, 50, 100)",
    )
    starts: list[Start] = Field(
        ["scratch", "global_kd", "crd", "gupta", "pointcontrast", "ppkt"],
        min_length=1,
        description="what is compared: starts as in finetune.starts3d",
    )
    seeds: int = Field(
        1, ge=1, description="runs of each, which differ in seed; runs of one seed are pairs"
    )


class Report(Section):
    runs: list[Mode] = Field(["joint"], description="pretraining runs that the report waits for")
    tasks: list[AnyTask] = Field([], description="finetuning tasks that the report waits for")
    low_data: bool = Field(False, description="the report waits for the low-data curve too")


class Settings(Section):
    scans: str = Field("demo", description="`demo`, or the folder that holds the scans")
    scenes: list[str] | str | None = Field(
        None, description="scene ids: a list, or a text file with one id a line; default all found"
    )
    held_out: list[str] | str | None = Field(
        None,
        description="scene ids that no pretraining sees, for evaluation: a list, or a text file "
        "with one id a line; default: the last of the demo's scans, none of others",
    )
    frames: Frames = Frames()
    overlap: Overlap = Overlap()
    pairs: Pairs = Pairs()
    chunks: Chunks = Chunks()
    demo: Demo = Demo()
    sparse: Sparse = Sparse()
    pretrain: Pretrain = Pretrain()
    evaluate: Evaluate = Evaluate()
    labelled: Labelled = Labelled()
    finetune: Finetune = Finetune()
    semseg: Semseg = Semseg()
    insseg: Insseg = Insseg()
    semseg3d: Semseg3d = Semseg3d()
    low_data: LowData = LowData()
    compare_3d: Compare3d = Compare3d()
    report: Report = Report()


def parse(raw: dict[str, Any]) -> Settings:
    """Settings from a plain mapping; Pri3DError names the key, the problem and the nearest key."""
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise Pri3DError("; ".join(_explain(e) for e in error.errors())) from None


def _explain(error: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    section, description = Settings, None
    for part in error["loc"]:
        field = section.model_fields.get(str(part))
        if field is None:
            break
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            section = field.annotation
        else:
            description = field.description
    if error["type"] == "extra_forbidden":
        return f"setting {where} is unknown; {_nearest(str(error['loc'][-1]), section)}"
    message = f"{error['msg'][0].lower()}{error['msg'][1:]} (given {error['input']!r})"
    return f"setting {where}: {message}" + (f"; it is: {description}" if description else "")


def _nearest(key: str, section: type[Section]) -> str:
    elsewhere = [
        f"{name}.{key}" for name, part in Settings() if key in getattr(part, "__dict__", ())
    ]
    near = difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.4)
    if elsewhere or near:
        return f"did you mean {(elsewhere or near)[0]}?"
    return f"known: {', '.join(section.model_fields)}"


def load(path: str | Path) -> Settings:
    """Settings from a YAML file."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            raw = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Pri3DError(f"{path}: is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(raw, dict | None):
        raise Pri3DError(f"{path}: holds no settings; write one `name: value` a line")
    return parse(raw or {})


def json_schema() -> dict[str, Any]:
    """The JSON schema that `workflow/config.schema.json` holds."""
    return Settings.model_json_schema()
