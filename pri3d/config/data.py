"""Settings of what comes before training, and of what is measured."""

from typing import Literal

from pydantic import Field

from pri3d.config.section import Section


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
    engine: Literal["auto", "torch", "triton", "minkowski"] = Field(
        "auto",
        description="what computes sparse convolutions; auto: triton on a GPU, else torch; "
        "minkowski: MinkowskiEngine, where it is installed (make minkowski)",
    )


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
    sunrgbd: str = Field(
        "demo",
        description="`demo`, or the folder with SUNRGBD/, SUNRGBDMeta3DBB_v2.mat and allsplit.mat",
    )
    s3dis: str = Field(
        "demo", description="`demo`, or the folder with Area_1 to Area_6 (Annotations/*.txt)"
    )
