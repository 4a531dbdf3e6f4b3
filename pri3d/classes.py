"""Object classes: names, ids and colors of NYU-40, ScanNet's benchmark and NYU-13.

Label images in this package contain k for the k-th class of a `ClassSet`, counted from 1, and 0 for
pixels that are not annotated or belong to none of the task's classes.

Source of ids and colors: the benchmark scripts of Dai et al., "ScanNet", CVPR 2017; NYU-13
after Couprie et al., "Indoor Semantic Segmentation using Depth Information", ICLR 2013.
"""

from typing import NamedTuple

import numpy as np

# By id, from 1.
NYU40 = (
    "wall",
    "floor",
    "cabinet",
    "bed",
    "chair",
    "sofa",
    "table",
    "door",
    "window",
    "bookshelf",
    "picture",
    "counter",
    "blinds",
    "desk",
    "shelves",
    "curtain",
    "dresser",
    "pillow",
    "mirror",
    "floor mat",
    "clothes",
    "ceiling",
    "books",
    "refrigerator",
    "television",
    "paper",
    "towel",
    "shower curtain",
    "box",
    "whiteboard",
    "person",
    "night stand",
    "toilet",
    "sink",
    "lamp",
    "bathtub",
    "bag",
    "otherstructure",
    "otherfurniture",
    "otherprop",
)

# RGB by NYU-40 id, from 0 (not annotated).
PALETTE40 = np.array(
    [
        (0, 0, 0),
        (174, 199, 232),
        (152, 223, 138),
        (31, 119, 180),
        (255, 187, 120),
        (188, 189, 34),
        (140, 86, 75),
        (255, 152, 150),
        (214, 39, 40),
        (197, 176, 213),
        (148, 103, 189),
        (196, 156, 148),
        (23, 190, 207),
        (178, 76, 76),
        (247, 182, 210),
        (66, 188, 102),
        (219, 219, 141),
        (140, 57, 197),
        (202, 185, 52),
        (51, 176, 203),
        (200, 54, 131),
        (92, 193, 61),
        (78, 71, 183),
        (172, 114, 82),
        (255, 127, 14),
        (91, 163, 138),
        (153, 98, 156),
        (140, 153, 101),
        (158, 218, 229),
        (100, 125, 154),
        (178, 127, 135),
        (120, 185, 128),
        (146, 111, 194),
        (44, 160, 44),
        (112, 128, 144),
        (96, 207, 209),
        (227, 119, 194),
        (213, 92, 176),
        (94, 106, 211),
        (82, 84, 163),
        (100, 85, 144),
    ],
    np.uint8,
)

# By id, from 1.
NYU13 = (
    "bed",
    "books",
    "ceiling",
    "chair",
    "floor",
    "furniture",
    "objects",
    "picture",
    "sofa",
    "table",
    "tv",
    "wall",
    "window",
)
# NYU-13 id of each NYU-40 id, from 0 (not annotated).
_NYU13_IDS = "12 5 6 1 4 9 10 12 13 6 8 6 13 10 6 13 6 7 7 5"
_NYU13_IDS += " 7 3 2 6 11 7 7 7 7 7 7 6 7 7 7 7 7 7 6 7"
NYU13_OF_40 = np.array([0, *map(int, _NYU13_IDS.split())], np.uint8)
# The NYU-40 class whose color each NYU-13 class has.
_COLOR_OF_13 = (4, 23, 22, 5, 2, 3, 40, 11, 6, 7, 25, 1, 9)


class ClassSet(NamedTuple):
    """The K classes of a task: names, their ids in files, and colors u8 [K, 3]."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    colors: np.ndarray

    def lut(self) -> np.ndarray:
        """Lookup table u8 [65536]: id in a file -> 1..K, or 0 for an id of no class."""
        table = np.zeros(1 << 16, np.uint8)
        table[list(self.ids)] = np.arange(1, len(self.ids) + 1)
        return table

    def file_ids(self) -> np.ndarray:
        """Lookup table u8 [K + 1]: 0..K -> id in a file."""
        return np.array((0, *self.ids), np.uint8)

    def palette(self) -> np.ndarray:
        """Color u8 [256, 3] of each value in a label image; values of no class are black."""
        table = np.zeros((256, 3), np.uint8)
        table[1 : len(self.names) + 1] = self.colors
        return table


def _of_nyu40(ids: tuple[int, ...]) -> ClassSet:
    return ClassSet(tuple(NYU40[i - 1] for i in ids), ids, PALETTE40[list(ids)])


def _of_nyu13(ids: tuple[int, ...]) -> ClassSet:
    colors = PALETTE40[[_COLOR_OF_13[i - 1] for i in ids]]
    return ClassSet(tuple(NYU13[i - 1] for i in ids), ids, colors)


# Names as in S3DIS's files. Two orders are in use, so results are reported by name.
S3DIS = (
    "ceiling",
    "floor",
    "wall",
    "beam",
    "column",
    "window",
    "door",
    "table",
    "chair",
    "sofa",
    "bookcase",
    "board",
    "clutter",
)
_COLOR_OF_S3DIS = (22, 2, 1, 38, 37, 9, 8, 7, 5, 6, 10, 30, 40)
S3DIS13 = ClassSet(S3DIS, tuple(range(1, 14)), PALETTE40[list(_COLOR_OF_S3DIS)])

# ScanNet's benchmark: 20 semantic classes; instances have no wall and floor.
SCANNET20 = _of_nyu40((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39))
SCANNET18 = _of_nyu40(SCANNET20.ids[2:])
NYUV2_13 = _of_nyu13(tuple(range(1, 14)))
# The object classes among the 13, as in Pri3D's published code.
NYUV2_9 = _of_nyu13((1, 2, 4, 6, 8, 9, 10, 11, 13))
