"""The pretraining modes, as records: what each reads, trains, and which settings it uses.

A mode is one row of MODES and one module of the same name in `pri3d.pretrain.modes`.
"""

from typing import Literal, NamedTuple


class Mode(NamedTuple):
    """What distinguishes one pretraining mode from another.

    summary: one line for --help. reads: artefacts that it reads in addition to `clouds`. trains:
    networks that the finished run holds. uses: settings of `pretrain` that change its result, in
    addition to those of ALL_MODES; a change of any other setting does not rerun it. teacher: it
    learns from a frozen 2D network. encoder_only: the decoder of the 3D network stays random.
    min_frames: number of frames that a micro-batch needs, to compare each with the others.
    matching: it is measured by finding correspondences in held-out scans
    (`pri3d evaluate --held-out`).
    """

    summary: str
    reads: tuple[Literal["pairs", "chunks"], ...]
    trains: tuple[Literal["network2d", "network3d"], ...]
    uses: frozenset[str]
    teacher: bool = False
    encoder_only: bool = False
    min_frames: int = 1
    matching: bool = False


# Settings that every mode uses.
ALL_MODES = frozenset(
    {
        "steps",
        "batch",
        "micro_batch",
        "lr",
        "momentum",
        "dampening",
        "weight_decay",
        "schedule",
        "power",
        "clip_norm",
        "bn_momentum",
        "sync_bn",
        "seed",
    }
)
_IMAGES = frozenset({"height", "width", "augment_color", "precision"})
_CROPS = frozenset({"crop", "flip"})
_NETWORK_2D = frozenset({"network2d", "initial_weights_2d"})
_NETWORK_3D = frozenset({"network3d", "initial_weights_3d"})
_NCE = frozenset({"matches", "match_rule", "temperature", "normalize", "symmetric", "reduction"})
_FRAME_CLOUDS = frozenset({"frame_voxel_m", "augment_cloud"})
_TEACHER = frozenset({"teacher", "teacher_weights"})
_PAIRS_2D = _IMAGES | _CROPS | _NETWORK_2D | _NCE | {"radius_m"}
_CHUNKS = _NETWORK_3D | {"projection_channels", "rotate_chunks"}
_FRAMES_WITH_TEACHER = _IMAGES | _CROPS | _NETWORK_3D | _FRAME_CLOUDS | _TEACHER

MODES: dict[str, Mode] = {
    "view": Mode(
        "2D: pixels of two views of the same place",
        reads=("pairs",),
        trains=("network2d",),
        uses=_PAIRS_2D | {"depth_loss"},
        matching=True,
    ),
    "geo": Mode(
        "2D and 3D: pixels and the surface that they show",
        reads=("pairs", "chunks"),
        trains=("network2d", "network3d"),
        uses=_PAIRS_2D | _CHUNKS,
        matching=True,
    ),
    "joint": Mode(
        "2D and 3D: view and geo together",
        reads=("pairs", "chunks"),
        trains=("network2d", "network3d"),
        uses=_PAIRS_2D | _CHUNKS | {"depth_loss"},
        matching=True,
    ),
    "moco": Mode(
        "2D baseline: two crops of one image",
        reads=("pairs",),
        trains=("network2d",),
        uses=_IMAGES | _NETWORK_2D | frozenset({"moco_queue", "moco_momentum", "moco_temperature"}),
        matching=True,
    ),
    "ppkt": Mode(
        "3D: points of a frame and pixels in a frozen 2D network",
        reads=(),
        trains=("network3d",),
        uses=_FRAMES_WITH_TEACHER | _NCE | {"projection_channels"},
        teacher=True,
    ),
    "pointcontrast": Mode(
        "3D: points of two overlapping frames",
        reads=("pairs",),
        trains=("network3d",),
        uses=_NETWORK_3D | _FRAME_CLOUDS | _NCE | {"radius_m", "contrast3d"},
    ),
    "global_kd": Mode(
        "3D baseline: global features of a frozen 2D network, softened",
        reads=(),
        trains=("network3d",),
        uses=_FRAMES_WITH_TEACHER | {"kd_temperature"},
        teacher=True,
        encoder_only=True,
        min_frames=2,
    ),
    "crd": Mode(
        "3D baseline: global features, each frame against the others",
        reads=(),
        trains=("network3d",),
        uses=_FRAMES_WITH_TEACHER | {"projection_channels", "temperature"},
        teacher=True,
        encoder_only=True,
        min_frames=2,
    ),
    "gupta": Mode(
        "3D baseline: global features of a frozen 2D network, squared error",
        reads=(),
        trains=("network3d",),
        uses=_FRAMES_WITH_TEACHER,
        teacher=True,
        encoder_only=True,
        min_frames=2,
    ),
}


def used_settings(mode: str) -> frozenset[str]:
    """The settings of `pretrain` that change the result of a mode."""
    return ALL_MODES | MODES[mode].uses
