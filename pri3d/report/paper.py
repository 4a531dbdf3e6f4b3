"""The figures of the papers, in %, and the protocols that they rest on.

Pri3D (Hou et al., ICCV 2021): ScanNet's validation split, except for NYUv2; mIoU by Pri3D's rule.
Pretraining began with ImageNet's weights unless "from scratch" is stated. PPKT (Liu et al., arXiv
2104.04687): the teacher had ImageNet's weights.

Figures are looked up by task, by method (the name of a mode, or of other initial weights), and by
the share of the labels.
"""

from typing import Any, NamedTuple

from pri3d.config import MODES, NAMED_3D
from pri3d.report.evaluations import Finetuned, pretraining_of
from pri3d.report.gather import Results
from pri3d.report.html import Number

# Method -> share of the labels in % -> figure.
Table = dict[str, dict[float, float | str]]

_SHARES = (20, 40, 60, 80, 100)


def _row(*figures: float) -> dict[float, float | str]:
    return dict(zip(_SHARES, figures))


class Protocol(NamedTuple):
    """How a paper measured a task.

    figures: label of a figure -> 2D network (None: the network is in `settings`) -> table. split:
    size of the validation split, as an evaluation records it. settings: of the finetuning; a dot
    leads into a section. published_subset: shares of the labels are the published lists.
    """

    figures: dict[str, dict[str | None, Table]]
    split: dict[str, int]
    settings: dict[str, Any]
    published_subset: bool = False


# mIoU.
_SEMSEG_SCANNET: dict[str | None, Table] = {
    "resnet50": {
        "imagenet": _row(40.2, 47.5, 52.1, 54.9, 55.7),
        "moco": _row(43.4, 49.8, 53.5, 55.1, 56.6),
        "view": _row(51.5, 56.0, 58.4, 59.4, 61.3),
        "geo": _row(50.9, 55.8, 58.2, 59.7, 61.1),
        "joint": _row(52.1, 56.2, 58.9, 60.3, 61.7),
        "scratch": {1: 9.4, 5: 13.0, 10: 14.7, **_row(19.4, 26.7, 32.2, 36.6, 39.1)},
        "joint, from scratch": {
            1: 21.6,
            5: 31.5,
            10: 35.6,
            **_row(40.4, 45.8, 48.7, 50.7, 51.8),
        },
    },
    "resnet18": {
        "imagenet": _row(36.7, 43.9, 46.9, 49.8, 51.0),
        "joint": _row(45.1, 50.2, 52.2, 54.1, 55.7),
    },
}
_SEMSEG_NYUV2: dict[str | None, Table] = {"resnet50": {"joint": {100: 54.7}, "moco": {100: 47.6}}}
# AP50 of masks.
_INSSEG_SCANNET: dict[str | None, Table] = {
    "resnet50": {
        "imagenet": _row(14.0, 21.0, 25.8, 29.4, 32.6),
        "joint": _row(15.3, 24.1, 29.1, 32.2, 35.8),
    }
}
_INSSEG_NYUV2: dict[str | None, Table] = {"resnet50": {"joint": {100: 29.5}, "moco": {100: 27.2}}}
# AP50 of boxes.
_DETECTION_SCANNET: dict[str | None, Table] = {
    "resnet50": {
        "imagenet": _row(19.8, 28.0, 34.2, 38.4, 41.7),
        "joint": _row(22.0, 32.5, 38.4, 41.6, 44.5),
    }
}
_DETECTION_NYUV2: dict[str | None, Table] = {
    "resnet50": {"joint": {100: 34.0}, "moco": {100: 31.1}}
}

_SCANNET, _NYUV2 = {"scenes": 312}, {"images_of_split": 654}
_UNET = {"architecture": "unet", "frozen": False}
_DETECTIONS = {"min_score": 0.5}  # published detections were cut at this score
_PPKT = {f"network3d.{name}": NAMED_3D["minkunet34c"][name] for name in ("widths", "blocks")}
_VOTENET = _PPKT | {"voxel_m": 0.025, "seed_points": 1024, "proposals": 256}

PROTOCOLS: dict[str, Protocol] = {
    "semseg_scannet": Protocol({"": _SEMSEG_SCANNET}, _SCANNET, _UNET, published_subset=True),
    "semseg_nyuv2": Protocol({"": _SEMSEG_NYUV2}, _NYUV2, _UNET),
    "insseg_scannet": Protocol(
        {"mask ": _INSSEG_SCANNET, "box ": _DETECTION_SCANNET},
        _SCANNET,
        _DETECTIONS,
        published_subset=True,
    ),
    "insseg_nyuv2": Protocol(
        {"mask ": _INSSEG_NYUV2, "box ": _DETECTION_NYUV2}, _NYUV2, _DETECTIONS
    ),
    # mIoU; with 15 % of the labels, PPKT publishes the gain over scratch.
    "semseg3d_s3dis": Protocol(
        {
            "": {
                None: {
                    "scratch": {100: "65.16, mean accuracy 73.24"},
                    "pointcontrast": {100: "66.86, mean accuracy 73.97"},
                    "ppkt": {100: "68.28, mean accuracy 75.19"},
                }
            }
        },
        {"clouds_of_split": 68},
        _PPKT | {"voxel_m": 0.05},
    ),
    "semseg3d_scannet": Protocol(
        {
            "": {
                None: {
                    "scratch": {100: "69.49"},
                    "ppkt": {15: "scratch + 2.23", 100: "69.56"},
                }
            }
        },
        {"clouds_of_split": 312},
        _PPKT | {"voxel_m": 0.02},
    ),
    # mAP at an IoU of 0.25 and 0.5.
    "det3d_scannet": Protocol(
        {
            "": {
                None: {
                    "scratch": {100: "56.50 / 34.54"},
                    "pointcontrast": {100: "58.30 / 36.26"},
                    "ppkt": {100: "59.67 / 38.90"},
                }
            }
        },
        {"clouds_of_split": 312},
        _VOTENET | {"max_points": 40000},
    ),
    "det3d_sunrgbd": Protocol(
        {
            "": {
                None: {
                    "scratch": {100: "55.21"},
                    "pointcontrast": {100: "56.14"},
                    "ppkt": {100: "57.26"},
                }
            }
        },
        {"clouds_of_split": 5050},
        _VOTENET | {"max_points": 20000},
    ),
}
_BOXES_FILE = "SUNRGBDMeta.mat"  # VoteNet's figures are for version 1 of SUN RGB-D's boxes


def published(results: Results, evaluation: Finetuned) -> Number | None:
    """The figure of a paper for a finetuned run; None if data, network or protocol differ."""
    protocol, settings = PROTOCOLS.get(evaluation.task), evaluation.settings
    method = _method(results, evaluation)
    if protocol is None or method is None or not _follows(evaluation, protocol):
        return None
    network = getattr(settings, "network2d", None)
    parts = []
    for label, tables in protocol.figures.items():
        figure = tables.get(network, {}).get(method, {}).get(evaluation.percent)
        if figure is not None:
            parts.append(f"{label}{figure}")
    return Number(", ".join(parts)) if parts else None


def _follows(evaluation: Finetuned, protocol: Protocol) -> bool:
    """Whether the paper's whole split was evaluated, with the paper's settings."""
    content, settings = evaluation.content, evaluation.settings
    return (
        evaluation.whole_split
        and all(content.get(key) == size for key, size in protocol.split.items())
        and all(_setting(settings, name) == value for name, value in protocol.settings.items())
        and content.get("described_by") in (None, _BOXES_FILE)
        and (
            not protocol.published_subset
            or settings.subset == "published"
            or evaluation.percent >= 100
        )
    )


def _setting(settings: object, name: str) -> object:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


def _method(results: Results, evaluation: Finetuned) -> str | None:
    """The method in a paper that a run corresponds to; None if there is none.

    A variant has settings of its own, so only runs that are named after their mode correspond. If
    the pretraining run is not in the results, it is assumed to have had ImageNet's weights.
    """
    weights = evaluation.weights
    if weights.kind != "run":
        return weights.name
    if weights.mode != weights.name:
        return None
    mode, run = MODES[weights.mode], pretraining_of(results, weights)
    origins = run.provenance.initial_weights if run and run.provenance else {}
    network = "teacher" if mode.teacher else "backbone"
    if network not in origins or origins[network].kind == "imagenet":
        return weights.name
    return None if mode.teacher else f"{weights.name}, from scratch"
