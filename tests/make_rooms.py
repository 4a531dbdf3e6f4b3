"""Labelled clouds in the forms of ScanNet and S3DIS."""

from pathlib import Path

import numpy as np
import plyfile

from pri3d.classes import SCANNET20


def lines_of(points) -> bytes:
    return "".join(
        "{:.3f} {:.3f} {:.3f} {:.0f} {:.0f} {:.0f}\n".format(*p) for p in points
    ).encode()


def cloud(seed: int, n: int = 30) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.hstack([rng.uniform(-20, 20, (n, 3)).round(3), rng.integers(0, 256, (n, 3))])


def write_area(root: Path, room="Area_1/office_1", **files) -> None:
    folder = root / room / "Annotations"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.txt").write_bytes(content)


VERTEX = [(name, "f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]


def write_scene(root, scene, points, color, label=None, name=None) -> None:
    folder = root / scene
    folder.mkdir(exist_ok=True)
    kinds = VERTEX if label is None else [*VERTEX, ("label", "u2")]
    vertex = np.zeros(len(points), kinds)
    for i, axis in enumerate("xyz"):
        vertex[axis] = points[:, i]
    for i, channel in enumerate(("red", "green", "blue")):
        vertex[channel] = color[:, i]
    if label is not None:
        vertex["label"] = label
    suffix = "_vh_clean_2.ply" if label is None else "_vh_clean_2.labels.ply"
    element = plyfile.PlyElement.describe(vertex, "vertex")
    plyfile.PlyData([element], byte_order="<").write(folder / f"{scene}{name or suffix}")


def room(seed: int, spacing: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points [N, 3] (metres), colours u8 [N, 3] and nyu40 ids [N] of a floor, a wall, a chair and a
    table, each of its own colour; some points are of no class.
    """
    rng = np.random.default_rng(seed)
    u, v = (a.ravel() for a in np.meshgrid(*[np.arange(0, 2, spacing)] * 2))
    nothing = np.zeros_like(u)
    x, y = rng.uniform(0.2, 0.8, 2), rng.uniform(0.9, 1.3, 2)
    parts = [
        (np.stack([u, v, nothing], 1), (90, 80, 70), 2),
        (np.stack([u, nothing, v], 1), (200, 200, 190), 1),
    ]
    small_u, small_v = (a.ravel() for a in np.meshgrid(*[np.arange(0, 0.6, spacing)] * 2))
    for corner, color, kind in (((x[0], y[0]), (180, 40, 40), 5), ((x[1], y[1]), (40, 60, 180), 7)):
        height = np.full_like(small_u, 0.5)
        top = np.stack([small_u + corner[0], small_v + corner[1], height], 1)
        parts.append((top, color, kind))
    points = np.concatenate([part for part, _, _ in parts])
    color = np.concatenate([np.tile(color, (len(part), 1)) for part, color, _ in parts])
    label = np.concatenate([np.full(len(part), kind) for part, _, kind in parts])
    color = np.clip(color + rng.normal(0, 12, color.shape), 0, 255).astype(np.uint8)
    label[rng.random(len(label)) < 0.05] = 0
    return points, color, label


def write_scannet3d(root: Path, train: int = 3, val: int = 1) -> Path:
    """Rooms as ScanNet's surfaces with labels."""
    root.mkdir()
    scenes = [f"scene{number:04d}_00" for number in range(train + val)]
    for number, scene in enumerate(scenes):
        points, color, label = room(number)
        write_scene(root, scene, points, color)
        write_scene(root, scene, points, color, label)
    for split, chosen in (("train", scenes[:train]), ("val", scenes[train:])):
        (root / f"scannetv2_{split}.txt").write_text("".join(f"{s}\n" for s in chosen))
    return root


def write_s3dis(root: Path, rooms: int = 3) -> Path:
    """The same rooms as S3DIS's, the last of them in Area_5."""
    names = {1: "wall", 2: "floor", 5: "chair", 7: "table", 0: "clutter"}
    for number in range(rooms):
        points, color, label = room(number)
        area = 5 if number == rooms - 1 else 1 + number
        for kind, name in names.items():
            chosen = np.hstack([points, color])[label == kind]
            write_area(root, f"Area_{area}/office_{number}", **{f"{name}_1": lines_of(chosen)})
    return root


def class_of(nyu40: np.ndarray) -> np.ndarray:
    """ScanNet's class 1..20 of each id, 0 for none."""
    return SCANNET20.lut()[nyu40]
