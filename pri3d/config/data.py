"""Settings of what comes before training, and of what is measured."""

from typing import Literal

from pydantic import Field

from pri3d.config.section import Section


class Frames(Section):
    every: int = Field(25, ge=1, description="use every n-th frame of a scan (paper: 25)")
    max_depth_m: float | None = Field(
        None, gt=0, description="meters; pixels with a larger depth are ignored (paper: no limit)"
    )
    color_height: int = Field(
        480,
        ge=0,
        description="pixels; taller color images are resized to this height; 0 stores the original "
        "bytes (training reads 240)",
    )


class Overlap(Section):
    radius_m: float = Field(
        0.02, gt=0, description="meters; points closer than this correspond (paper: 0.02)"
    )
    rule: Literal["paper", "official"] = Field(
        "paper",
        description="paper: every depth pixel, both directions; official: the published script "
        "(5 cm voxels, 7.5 cm radius, larger direction)",
    )


class Pairs(Section):
    min_overlap: float = Field(
        0.3,
        ge=0,
        le=1,
        description="minimum overlap of a pair, as a fraction in 0..1 (paper: 0.3)",
    )
    max_pairs: int | None = Field(
        None,
        ge=1,
        description="maximum number of pairs, drawn uniformly by `seed` (paper: all; lite: 20000)",
    )
    seed: int = Field(0, ge=0, description="seed that draws the pairs of `max_pairs`")


class Chunks(Section):
    voxel_m: float = Field(
        0.02, gt=0, description="meters; voxel size of the surface (paper: 0.02)"
    )


class Demo(Section):
    scans: int = Field(
        5, ge=1, description="number of synthetic scans, which cycle through five kinds of room"
    )
    seed: int = Field(0, ge=0, description="seed of rooms, textures, camera paths and noise")
    frames: int = Field(
        200,
        ge=1,
        description="frames per scan, evenly spaced on one camera path of 10 s",
    )
    height: int = Field(
        240, ge=16, description="pixels; height of depth images (4:3, ScanNet: 480)"
    )
    color_height: int = Field(
        240, ge=16, description="pixels; height of color images (4:3, ScanNet: 968)"
    )
    noise: bool = Field(True, description="simulate sensor noise, holes and lost poses")


class Sparse(Section):
    engine: Literal["auto", "torch", "triton", "minkowski"] = Field(
        "auto",
        description="library that computes sparse convolutions; auto: triton on a GPU, otherwise "
        "torch; minkowski: MinkowskiEngine, if installed (make minkowski)",
    )


class Evaluate(Section):
    max_pairs: int = Field(
        100, ge=1, description="maximum number of held-out pairs to evaluate, evenly spaced"
    )
    matches: int = Field(256, ge=2, description="matches per pair, and per image and its chunk")
    radius_m: float = Field(
        0.02,
        gt=0,
        description="meters; maximum distance between a pixel and its match (paper: 0.02)",
    )
    seed: int = Field(0, ge=0, description="seed that draws the matches")


class Datasets(Section):
    scannet: str = Field(
        "demo",
        description="`demo` (synthetic data in the same format), or the folder of "
        "scannet_frames_25k, or of scans with _2d-label-filt and _2d-instance-filt "
        "beside them",
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
