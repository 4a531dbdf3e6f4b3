"""Names, ids and colors against the benchmarks' published tables."""

import numpy as np

from pri3d import classes

# As the benchmark's page lists them: id, name, color.
SCANNET = """
1 wall 174 199 232
2 floor 152 223 138
3 cabinet 31 119 180
4 bed 255 187 120
5 chair 188 189 34
6 sofa 140 86 75
7 table 255 152 150
8 door 214 39 40
9 window 197 176 213
10 bookshelf 148 103 189
11 picture 196 156 148
12 counter 23 190 207
14 desk 247 182 210
16 curtain 219 219 141
24 refrigerator 255 127 14
28 shower-curtain 158 218 229
33 toilet 44 160 44
34 sink 112 128 144
36 bathtub 227 119 194
39 otherfurniture 82 84 163
"""


def test_scannets_twenty_classes():
    rows = [line.split() for line in SCANNET.strip().splitlines()]
    twenty = classes.SCANNET20
    assert twenty.ids == tuple(int(row[0]) for row in rows)
    assert twenty.names == tuple(row[1].replace("-", " ") for row in rows)
    assert twenty.colors.tolist() == [list(map(int, row[2:])) for row in rows]
    assert classes.SCANNET18.names == twenty.names[2:]


def test_all_forty_colours_differ_and_are_those_of_the_benchmark():
    assert len({tuple(color) for color in classes.PALETTE40.tolist()}) == 41
    others = {13: (178, 76, 76), 15: (66, 188, 102), 17: (140, 57, 197), 18: (202, 185, 52)}
    others |= {19: (51, 176, 203), 20: (200, 54, 131), 21: (92, 193, 61), 22: (78, 71, 183)}
    others |= {23: (172, 114, 82), 25: (91, 163, 138), 26: (153, 98, 156), 27: (140, 153, 101)}
    others |= {29: (100, 125, 154), 30: (178, 127, 135), 31: (120, 185, 128), 32: (146, 111, 194)}
    others |= {35: (96, 207, 209), 37: (213, 92, 176), 38: (94, 106, 211), 40: (100, 85, 144)}
    assert set(others) | set(classes.SCANNET20.ids) == set(range(1, 41))
    for number, color in others.items():
        assert tuple(classes.PALETTE40[number]) == color


def test_nyus_thirteen_classes():
    """How many of the 40 each of the 13 holds, and some that are easily confused."""
    of = {
        name: [n for n, t in zip(classes.NYU40, classes.NYU13_OF_40[1:]) if t == i]
        for i, name in enumerate(classes.NYU13, 1)
    }
    assert [len(members) for members in of.values()] == [1, 1, 1, 1, 2, 8, 16, 1, 1, 2, 1, 2, 3]
    of_40 = (
        "12 5 6 1 4 9 10 12 13 6 8 6 13 10 6 13 6 7 7 5 7 3 2 6 11 7 7 7 7 7 7 6 7 7 7 7 7 7 6 7"
    )
    assert classes.NYU13_OF_40.tolist() == [0, *map(int, of_40.split())]
    assert of["wall"] == ["wall", "door"]
    assert of["table"] == ["table", "desk"]
    assert of["window"] == ["window", "blinds", "curtain"]
    assert of["floor"] == ["floor", "floor mat"]
    assert classes.NYUV2_9.names == (
        "bed", "books", "chair", "furniture", "picture", "sofa", "table", "tv", "window",
    )  # fmt: skip


def test_tables_go_there_and_back():
    for kinds in (classes.SCANNET20, classes.SCANNET18, classes.NYUV2_13, classes.NYUV2_9):
        lut, back = kinds.lut(), kinds.file_ids()
        np.testing.assert_array_equal(lut[back], np.arange(len(kinds.ids) + 1))
        assert set(np.flatnonzero(lut)) == set(kinds.ids)
        assert kinds.palette()[0].tolist() == [0, 0, 0]
        assert len(kinds.colors) == len(kinds.names) == len(kinds.ids)
