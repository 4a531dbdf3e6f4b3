"""Figures of the paper (Hou et al., "Pri3D", ICCV 2021), in %: start -> share of labels -> figure.

All on ScanNet's validation split but those of NYUv2; starts are named as here. mIoU is by Pri3D's
rule, and the pretrained ones began with ImageNet's weights where nothing else is said.
"""

SHARES = (20, 40, 60, 80, 100)


def _row(*figures: float) -> dict[float, float]:
    return dict(zip(SHARES, figures))


# network2d -> start -> share -> mIoU.
SEMSEG_SCANNET = {
    "resnet50": {
        "imagenet": _row(40.2, 47.5, 52.1, 54.9, 55.7),
        "moco": _row(43.4, 49.8, 53.5, 55.1, 56.6),
        "view": _row(51.5, 56.0, 58.4, 59.4, 61.3),
        "geo": _row(50.9, 55.8, 58.2, 59.7, 61.1),
        "joint": _row(52.1, 56.2, 58.9, 60.3, 61.7),
        "scratch": {1: 9.4, 5: 13.0, 10: 14.7} | _row(19.4, 26.7, 32.2, 36.6, 39.1),
        "joint, from scratch": {1: 21.6, 5: 31.5, 10: 35.6} | _row(40.4, 45.8, 48.7, 50.7, 51.8),
    },
    "resnet18": {
        "imagenet": _row(36.7, 43.9, 46.9, 49.8, 51.0),
        "joint": _row(45.1, 50.2, 52.2, 54.1, 55.7),
    },
}
# AP50 of masks, and of boxes.
INSSEG_SCANNET = {
    "resnet50": {
        "imagenet": _row(14.0, 21.0, 25.8, 29.4, 32.6),
        "joint": _row(15.3, 24.1, 29.1, 32.2, 35.8),
    }
}
DETECTION_SCANNET = {
    "resnet50": {
        "imagenet": _row(19.8, 28.0, 34.2, 38.4, 41.7),
        "joint": _row(22.0, 32.5, 38.4, 41.6, 44.5),
    }
}
SEMSEG_NYUV2 = {"resnet50": {"joint": {100: 54.7}, "moco": {100: 47.6}}}
INSSEG_NYUV2 = {"resnet50": {"joint": {100: 29.5}, "moco": {100: 27.2}}}
DETECTION_NYUV2 = {"resnet50": {"joint": {100: 34.0}, "moco": {100: 31.1}}}

# PPKT's tables (Liu et al., arXiv 2104.04687): mIoU, at 15 % of the labels its gain over scratch;
# mAP at 0.25 and 0.5 IoU.
PPKT = {
    "semseg3d_s3dis": {
        "scratch": {100: "65.16, mean accuracy 73.24"},
        "pointcontrast": {100: "66.86, mean accuracy 73.97"},
        "ppkt": {100: "68.28, mean accuracy 75.19"},
    },
    "semseg3d_scannet": {"scratch": {100: "69.49"}, "ppkt": {15: "scratch + 2.23", 100: "69.56"}},
    "det3d_scannet": {
        "scratch": {100: "56.50 / 34.54"},
        "pointcontrast": {100: "58.30 / 36.26"},
        "ppkt": {100: "59.67 / 38.90"},
    },
    "det3d_sunrgbd": {
        "scratch": {100: "55.21"},
        "pointcontrast": {100: "56.14"},
        "ppkt": {100: "57.26"},
    },
}
# The clouds of their test splits, and what the figures rest on.
CLOUDS = {"semseg3d_s3dis": 68, "semseg3d_scannet": 312}
CLOUDS |= {"det3d_scannet": 312, "det3d_sunrgbd": 5050}
_NETWORK = {"width3d": [32, 64, 128, 256, 256, 128, 96, 96], "blocks3d": [2, 3, 4, 6, 2, 2, 2, 2]}
_VOTENET = _NETWORK | {"voxel_m": 0.025, "seeds": 1024, "proposals": 256}
PPKT_SETTINGS = {
    "semseg3d_s3dis": _NETWORK | {"voxel_m": 0.05},
    "semseg3d_scannet": _NETWORK | {"voxel_m": 0.02},
    "det3d_scannet": _VOTENET | {"points": 40000},
    "det3d_sunrgbd": _VOTENET | {"points": 20000},
}
SUNRGBD_FILE = "SUNRGBDMeta.mat"  # VoteNet's figures are of version 1 of the boxes

# What the paper's validation splits have: ScanNet's scenes, and NYUv2's images.
VAL_SCENES, VAL_IMAGES = 312, 654
# Published detections were cut at this score.
SCORE = 0.5
