"""Settings of finetuning, its tasks, and comparisons of them."""

from typing import Annotated, Literal

from pydantic import Field

from pri3d.config.pretrain import Net2d
from pri3d.config.section import Section


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
    weight_decay: float = Field(1e-4, ge=0, description="SGD weight decay")
    warmup: float = Field(
        0.0, ge=0, lt=1, description="share of the steps in which the rate rises from 0 to `lr`"
    )
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


class WithSgd(Finetuned):
    """What the tasks have that SGD trains."""

    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum (paper: 0.9)")
    power: float = Field(0.9, ge=0, description="exponent of the rate's polynomial decay after it")


class Finetuned2d(WithSgd):
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


class Network3d(Section):
    """What the tasks on clouds have: the 3D network of the pretraining."""

    subset: Literal["published", "random"] = Field(
        "random",
        description="which labels: the first scenes, or scenes drawn by `seed`",
    )

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
        5, description="kernel of the 3D network's first convolution, that of the pretraining"
    )


class Semseg3d(Network3d, WithSgd):
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


class Det3d(Network3d, Finetuned):
    voxel_m: float = Field(0.025, gt=0, description="metres; edge of a voxel (paper: 0.025)")
    points: int = Field(
        40000, ge=1, description="points of a scene, at most (paper: 40000; SUN RGB-D: 20000)"
    )
    seeds: int = Field(1024, ge=1, description="points that vote (paper: 1024)")
    proposals: int = Field(256, ge=1, description="clusters of votes (paper: 256)")
    score: float = Field(
        0.05, ge=0, le=1, description="less certain objects are dropped (published: 0.05)"
    )
    augment3d: bool = Field(
        True, description="mirror, turn and scale scenes at random, as published for each data set"
    )
    colors: bool = Field(True, description="recolour clouds at random, as in pretraining")
    epochs: float = Field(180, gt=0, description="passes over the scenes used (paper: 180)")
    batch: int = Field(8, ge=1, description="scenes a step (paper: 32 ScanNet, 64 SUN RGB-D)")
    lr: float = Field(
        1e-3,
        gt=0,
        description="Adam's rate; it falls to a tenth at 4, 6 and 8 ninths of the steps (paper: "
        "0.001, at 80, 120 and 160 of 180 epochs)",
    )
    weight_decay: float = Field(0.0, ge=0, description="Adam's weight decay (paper: 0)")


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
Task3d = Literal["semseg3d_scannet", "semseg3d_s3dis", "det3d_scannet", "det3d_sunrgbd"]
# Of tasks.
SECTIONS = {"semseg": Semseg, "insseg": Insseg, "semseg3d": Semseg3d, "det3d": Det3d}
WITH_CLOUDS = ("semseg3d", "det3d")
AnyTask = Literal[
    "semseg_scannet",
    "semseg_nyuv2",
    "insseg_scannet",
    "insseg_nyuv2",
    "semseg3d_scannet",
    "semseg3d_s3dis",
    "det3d_scannet",
    "det3d_sunrgbd",
]
TASKS = {
    "semseg_scannet": ("semseg", "scannet"),
    "semseg_nyuv2": ("semseg", "nyuv2"),
    "insseg_scannet": ("insseg", "scannet"),
    "insseg_nyuv2": ("insseg", "nyuv2"),
    "semseg3d_scannet": ("semseg3d", "scannet3d"),
    "semseg3d_s3dis": ("semseg3d", "s3dis"),
    "det3d_scannet": ("det3d", "scannet3d"),
    "det3d_sunrgbd": ("det3d", "sunrgbd"),
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
        ["semseg3d_scannet", "semseg3d_s3dis", "det3d_scannet", "det3d_sunrgbd"],
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
