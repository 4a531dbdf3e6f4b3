"""Every setting, typed; the only source of defaults, units and descriptions.

`config.yaml`, the JSON schema that Snakemake validates with, and the defaults shown by `--help`
are all held against these models by tests. An unknown key is an error that names the nearest
right one.
"""

import difflib
from pathlib import Path
from typing import Any, Literal

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


class Pretrain(Section):
    net2d: Literal["resnet18", "resnet34", "resnet50"] = Field(
        "resnet18", description="encoder of the 2D UNet (paper: resnet50 and resnet18)"
    )
    width3d: list[int] = Field(
        [32, 64, 128, 256, 256, 128, 96, 96],
        min_length=8,
        max_length=8,
        description="channels of the sparse 3D UNet's eight stages "
        "(paper: 32 64 128 256 256 128 96 96)",
    )
    blocks3d: list[int] = Field(
        [2, 3, 4, 6, 2, 2, 2, 2],
        min_length=8,
        max_length=8,
        description="residual blocks of those stages (paper: 2 3 4 6 2 2 2 2)",
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
    batch: int = Field(64, ge=1, description="pairs a step (paper: 64 over 8 GPUs)")
    matches: int = Field(
        1024,
        ge=2,
        description="most matches drawn for a pair (view) and for an image (geo) (paper: 1024)",
    )
    radius_m: float = Field(
        0.02, gt=0, description="metres; a pixel and its match lie closer than this (paper: 0.02)"
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
    lr: float = Field(0.1, gt=0, description="SGD learning rate at the start (paper: 0.1)")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum (paper: 0.9)")
    dampening: float = Field(0.1, ge=0, lt=1, description="SGD dampening (paper's code: 0.1)")
    weight_decay: float = Field(0.0, ge=0, description="SGD weight decay (paper's code: 0)")
    power: float = Field(
        0.9, ge=0, description="exponent of the learning rate's polynomial decay (paper: 0.9)"
    )
    imagenet: bool = Field(
        False,
        description="start the 2D encoder from torchvision's ImageNet weights, which are "
        "downloaded on first use (paper: true)",
    )
    augment: bool = Field(
        True, description="jitter colours, turn grey and blur as published (paper: true)"
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
    threads: int = Field(
        0, ge=0, description="threads of the training process on the CPU; 0 leaves it to torch"
    )
    workers: int = Field(
        2, ge=0, description="processes that prepare samples; 0 does it in the training process"
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    log_every: int = Field(10, ge=1, description="steps between lines of metrics.jsonl")


# How a pretraining run is done, and not what comes out: these may change when a run goes on.
PRETRAIN_HOW = ("device", "threads", "workers", "checkpoint_every", "log_every")


class Report(Section):
    runs: list[Literal["view", "geo", "joint"]] = Field(
        ["joint"], description="pretraining runs that the report waits for"
    )


class Settings(Section):
    scans: str = Field("demo", description="`demo`, or the folder that holds the scans")
    scenes: list[str] | str | None = Field(
        None, description="scene ids: a list, or a text file with one id a line; default all found"
    )
    frames: Frames = Frames()
    overlap: Overlap = Overlap()
    pairs: Pairs = Pairs()
    chunks: Chunks = Chunks()
    demo: Demo = Demo()
    pretrain: Pretrain = Pretrain()
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
