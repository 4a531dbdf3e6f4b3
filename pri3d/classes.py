"""Object classes: names, numbers and colours of NYU-40, ScanNet's benchmark and NYU-13.

Label images of this package hold 0 where nothing is annotated (or something else than the classes
of the task), and k for the k-th class of a `ClassSet`, counted from 1.

Source of numbers and colours: the benchmark scripts of Dai et al., "ScanNet", CVPR 2017; NYU-13
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

# RGB by nyu40 id, from 0 (nothing).
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
# The NYU-13 id of each NYU-40 id, from 0 (nothing).
_OF_40 = "12 5 6 1 4 9 10 12 13 6 8 6 13 10 6 13 6 7 7 5"
_OF_40 += " 7 3 2 6 11 7 7 7 7 7 7 6 7 7 7 7 7 7 6 7"
NYU13_OF_40 = np.array([0, *map(int, _OF_40.split())], np.uint8)
# The NYU-40 class whose colour each NYU-13 class is drawn in.
_DRAWN_AS = (4, 23, 22, 5, 2, 3, 40, 11, 6, 7, 25, 1, 9)


class ClassSet(NamedTuple):
    """The classes of a task: names, the ids that files use for them, and colours u8 [K, 3]."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    colors: np.ndarray

    def lut(self) -> np.ndarray:
        """u8 [65536]: id in a file -> 1..K, and 0 for every id that is none of the classes."""
        table = np.zeros(1 << 16, np.uint8)
        table[list(self.ids)] = np.arange(1, len(self.ids) + 1)
        return table

    def file_ids(self) -> np.ndarray:
        """u8 [K + 1]: 0..K -> id in a file."""
        return np.array((0, *self.ids), np.uint8)

    def palette(self) -> np.ndarray:
        """u8 [256, 3]: colour of each value of a label image; 0 and what is no class are black."""
        table = np.zeros((256, 3), np.uint8)
        table[1 : len(self.names) + 1] = self.colors
        return table


def _of_nyu40(ids: tuple[int, ...]) -> ClassSet:
    return ClassSet(tuple(NYU40[i - 1] for i in ids), ids, PALETTE40[list(ids)])


def _of_nyu13(ids: tuple[int, ...]) -> ClassSet:
    colors = PALETTE40[[_DRAWN_AS[i - 1] for i in ids]]
    return ClassSet(tuple(NYU13[i - 1] for i in ids), ids, colors)


# By the words in S3DIS's file names; there are two orders in use, so figures are told by name.
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
_S3DIS_AS = (22, 2, 1, 38, 37, 9, 8, 7, 5, 6, 10, 30, 40)
S3DIS13 = ClassSet(S3DIS, tuple(range(1, 14)), PALETTE40[list(_S3DIS_AS)])

# ScanNet's benchmark: 20 classes for semantics, and those without wall and floor for objects.
SCANNET20 = _of_nyu40((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39))
SCANNET18 = _of_nyu40(SCANNET20.ids[2:])
NYUV2_13 = _of_nyu13(tuple(range(1, 14)))
# The objects among the 13 (as Pri3D's published code has them).
NYUV2_9 = _of_nyu13((1, 2, 4, 6, 8, 9, 10, 11, 13))
