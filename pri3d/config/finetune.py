"""Settings of finetuning, its tasks, and comparisons of them."""

from typing import Annotated, Literal

from pydantic import Field

from pri3d.config.names import Task2dName, Task3dName
from pri3d.config.networks import Network2d, Network3d
from pri3d.config.pretrain import AUGMENT_CLOUD, CLOUD_CHANGES, CloudChange
from pri3d.config.section import Section
from pri3d.config.training import RUNTIME, Training

# Initial weights by name: scratch, imagenet, a pretraining run, or an entry of `weight_files`.
WeightsName = Annotated[str, Field(pattern=r"^[A-Za-z]\w*(-\d+)?$")]


class FinetuneDefaults(Training):
    """What `finetune` states once for all tasks; a task's own section overrides it."""

    percent: float = Field(
        100, gt=0, le=100, description="share of the training labels to use, in %"
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="samples per micro-batch; gradients are accumulated over micro-batches, and "
        "batch norm statistics are computed within each; null: one micro-batch per "
        "process",
    )
    weight_decay: float = Field(1e-4, ge=0, description="weight decay of the optimizer")
    warmup: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="fraction of the steps in which the learning rate rises from 0 to `lr`",
    )
    clip_norm: float | None = Field(
        None, gt=0, description="maximum norm of the gradient, no unit; null: no limit"
    )
    sync_bn: bool = Field(False, description="batch norm over the micro-batches of all processes")
    augment_color: bool = Field(True, description="color augmentation, as in pretraining")
    seed: int = Field(
        0,
        ge=0,
        description="random seed of new layers, selected scenes, sample order and augmentation",
    )


class Sgd(Section):
    """What tasks have whose optimizer is SGD."""

    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD (paper: 0.9)")
    power: float = Field(
        0.9, ge=0, description="exponent of the polynomial decay after warm-up (paper: 0.9)"
    )


class OnImages(Section):
    """What tasks on images have."""

    flip: bool = Field(True, description="mirror each image with probability 0.5")
    precision: Literal["float32", "bf16"] = Field(
        "bf16",
        description="precision of activations; bf16 is faster on hardware that supports it",
    )


class Task(FinetuneDefaults):
    """What every task has."""

    initial_weights: str = Field(
        "random",
        description="initial weights: random, imagenet, try_imagenet (imagenet if available, "
        "otherwise random with a warning), a folder of a run, or a file of weights; for the "
        "command line only: the workflow takes them from finetune.initial_weights",
    )
    subset: Literal["published", "random"] = Field(
        "published",
        description="how `percent` selects scenes; published: the first ones, as in the "
        "published lists; random: sampled with `seed`",
    )
    steps: int | None = Field(
        None, ge=1, description="optimizer steps; null: as many as `epochs` takes"
    )
    epochs: float = Field(80, gt=0, description="passes over the images used (paper: 80)")
    batch: int = Field(8, ge=1, description="images per step, summed over all processes")
    lr: float = Field(0.01, gt=0, description="peak learning rate of SGD")


class Task2d(Task, Sgd, OnImages):
    """What the tasks on images have."""

    network2d: Network2d = "resnet18"


class Semseg(Task2d):
    architecture: Literal["unet", "deeplabv3"] = Field(
        "unet", description="the pretrained UNet, or DeepLabV3 on its encoder"
    )
    transfer: Literal["encoder_decoder", "encoder"] = Field(
        "encoder_decoder",
        description="which parts of the initial weights a UNet loads (paper: encoder_decoder)",
    )
    frozen: bool = Field(
        False, description="linear probe: train the classifier only, on frozen features"
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
        description="minimum size of a random crop, as a fraction of the image's sides; the crop "
        "is resized to the input size; 1: no crop (paper's code: 1)",
    )
    lr: float = Field(0.05, gt=0, description="peak learning rate of SGD (paper: 0.01)")


class Insseg(Task2d):
    encoder_norm: Literal["batch", "frozen"] = Field(
        "batch",
        description="normalization of the encoder; batch: trainable batch norm; frozen: batch "
        "norm with the statistics of the initial weights (not with random)",
    )
    trained_stages: int = Field(
        5,
        ge=0,
        le=5,
        description="number of encoder stages that are trained, from the last; 3 freezes the stem "
        "and layer1 (paper: 3)",
    )
    short_sides: list[Annotated[int, Field(ge=32)]] = Field(
        [640, 672, 704, 736, 768, 800],
        min_length=1,
        description="pixels; in training, an image's shorter side is resized to one of these, and "
        "in prediction to the last",
    )
    long_side: int = Field(
        1333, ge=32, description="pixels; maximum of an image's longer side after resizing"
    )
    min_pixels: int = Field(
        1000, ge=0, description="pixels; smaller objects are ignored (published: 1000)"
    )
    roi_samples: int = Field(
        512, ge=1, description="regions per image on which the heads are trained (paper: 32)"
    )
    min_score: float = Field(
        0.05, ge=0, le=1, description="minimum score of a prediction (paper: 0.5)"
    )
    lr: float = Field(0.02, gt=0, description="peak learning rate of SGD")
    epochs: float = Field(12, gt=0, description="passes over the images used")
    batch: int = Field(
        16,
        ge=1,
        description="images per step, summed over all processes (paper: 16 for ScanNet, 2 for "
        "NYUv2)",
    )
    warmup: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="fraction of the steps in which the learning rate rises from 0 to `lr`",
    )
    clip_norm: float | None = Field(
        10.0, gt=0, description="maximum norm of the gradient, no unit; null: no limit"
    )


class Task3d(Task):
    """What the tasks on clouds have."""

    network3d: Network3d = Network3d()
    subset: Literal["published", "random"] = Field(
        "random",
        description="how `percent` selects scenes; published: the first ones of the list; "
        "random: sampled with `seed`",
    )


class Semseg3d(Task3d, Sgd):
    voxel_m: float = Field(
        0.02, gt=0, description="meters; voxel size (paper: 0.02 for ScanNet, 0.05 for S3DIS)"
    )
    crop_m: float | None = Field(
        None,
        gt=0,
        description="meters; side length of the random square crop of each cloud in training "
        "(S3DIS: 8); null: the whole cloud",
    )
    augment_cloud: list[CloudChange] = Field(CLOUD_CHANGES, description=AUGMENT_CLOUD)
    epochs: float = Field(100, gt=0, description="passes over the clouds used")
    steps: int | None = Field(
        15000,
        ge=1,
        description="optimizer steps; null: as many as `epochs` takes (PPKT: 15000)",
    )
    batch: int = Field(
        8, ge=1, description="clouds per step, summed over all processes (PPKT: 32 for S3DIS)"
    )
    lr: float = Field(0.1, gt=0, description="peak learning rate of SGD")


class Det3d(Task3d):
    voxel_m: float = Field(0.025, gt=0, description="meters; voxel size (paper: 0.025)")
    max_points: int = Field(
        40000,
        ge=1,
        description="maximum number of points per scene (paper: 40000; SUN RGB-D: 20000)",
    )
    seed_points: int = Field(1024, ge=1, description="number of points that vote (paper: 1024)")
    proposals: int = Field(
        256, ge=1, description="number of vote clusters, each a proposal (paper: 256)"
    )
    min_score: float = Field(
        0.05, ge=0, le=1, description="minimum score of a predicted object (published: 0.05)"
    )
    augment_scene: bool = Field(
        True, description="random flips, rotations and scales, as published for each data set"
    )
    epochs: float = Field(180, gt=0, description="passes over the scenes used (paper: 180)")
    batch: int = Field(
        8,
        ge=1,
        description="scenes per step, summed over all processes (paper: 32 for ScanNet, 64 for "
        "SUN RGB-D)",
    )
    lr: float = Field(
        1e-3,
        gt=0,
        description="peak learning rate of Adam; divided by 10 after 4/9, 6/9 and 8/9 of the "
        "steps (paper: 0.001, after 80, 120 and 160 of 180 epochs)",
    )
    weight_decay: float = Field(0.0, ge=0, description="weight decay of Adam (paper: 0)")


def unused_settings(settings: Task) -> tuple[str, ...]:
    """Settings that do not change the result beside the others; changing them reruns nothing."""
    unused = RUNTIME
    if settings.steps is not None:
        unused += ("epochs",)
    if settings.percent >= 100:
        unused += ("subset",)
    if settings.initial_weights == "random":
        unused += ("transfer",)
    return unused


class Finetune(FinetuneDefaults, Sgd, OnImages):
    initial_weights: list[WeightsName] = Field(
        ["scratch", "joint"],
        min_length=1,
        description="initial weights of the 2D tasks, one run for each: scratch (random), "
        "imagenet, a pretraining run (a mode such as view, geo, joint, moco, or a "
        "variant), or a name in `weight_files`",
    )
    initial_weights_3d: list[WeightsName] = Field(
        ["scratch", "ppkt"],
        min_length=1,
        description="initial weights of the 3D tasks, one run for each: scratch, a pretraining "
        "run (ppkt, pointcontrast, global_kd, crd, gupta, geo, joint, or a variant), "
        "or a name in `weight_files`",
    )
    weight_files: dict[WeightsName, str] = Field(
        {}, description="other initial weights, such as published ones: name -> file"
    )


class LowData(Section):
    tasks: list[Task2dName] = Field(
        ["semseg_scannet"], min_length=1, description="tasks of the low-data curve"
    )
    percents: list[Annotated[float, Field(gt=0, le=100)]] = Field(
        [20, 40, 60, 80, 100], min_length=1, description="shares of the training labels, in %"
    )
    initial_weights: list[WeightsName] = Field(
        ["scratch", "imagenet", "moco", "view", "geo", "joint"],
        min_length=1,
        description="initial weights to compare, as in finetune.initial_weights",
    )
    seeds: int = Field(
        1,
        ge=1,
        description="number of runs for each initial weights; runs with the same seed are paired",
    )


class Compare3d(Section):
    tasks: list[Task3dName] = Field(
        ["semseg3d_scannet", "semseg3d_s3dis", "det3d_scannet", "det3d_sunrgbd"],
        min_length=1,
        description="tasks of the comparison of 3D pretrainings",
    )
    percents: list[Annotated[float, Field(gt=0, le=100)]] = Field(
        [15, 30, 50, 100],
        min_length=1,
        description="shares of the training labels, in % (PPKT: 15, 30, 50, 100)",
    )
    initial_weights: list[WeightsName] = Field(
        ["scratch", "global_kd", "crd", "gupta", "pointcontrast", "ppkt"],
        min_length=1,
        description="initial weights to compare, as in finetune.initial_weights_3d",
    )
    seeds: int = Field(
        1,
        ge=1,
        description="number of runs for each initial weights; runs with the same seed are paired",
    )
