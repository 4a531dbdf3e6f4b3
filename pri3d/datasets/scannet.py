"""ScanNet's `scannet_frames_25k`: about every hundredth frame of its scans, with labels.

scannetv2_train.txt scannetv2_val.txt      scene ids; in Tasks/Benchmark of its repository
<scene>/color/000000.jpg                   labels and objects may have another size
<scene>/label/000000.png                   8 bits, NYU-40 ids, 0 = not annotated
<scene>/instance/000000.png                16 bits, NYU-40 id * 1000 + number in the image
"""

from pathlib import Path

import numpy as np

from pri3d.classes import SCANNET18, SCANNET20
from pri3d.datasets.frames import Frame, Objects, decode_jpeg, decode_labels, read_bytes
from pri3d.errors import Pri3DError

SUFFIXES = {"color": ".jpg", "label": ".png", "instance": ".png"}


class ScanNetFrames:
    """A split of `scannet_frames_25k` (see `LabeledImages`).

    `problems` lists scenes without a folder and images without a label image, `without_objects`
    images without an instance image. The split "test" has color images only.

    Args:
        root: folder of the scenes; the lists may be in the folder above.
        split: "train", "val" or "test".

    Raises:
        Pri3DError: the list is missing or damaged, or no image of the split can be used.
    """

    name = "scannet"
    classes = SCANNET20
    things = SCANNET18

    def __init__(self, root: Path, split: str) -> None:
        self.root, self.split = Path(root), split
        self.frames: list[Frame] = []
        self.problems: list[str] = []
        self.without_objects: list[str] = []
        self._with_objects: set[str] = set()
        scenes = scene_list(self.root, split)
        for scene in scenes:
            self._list(scene)
        if not self.frames:
            raise Pri3DError(
                f"{self.root}: has no image of the {len(scenes)} scenes in scannetv2_{split}.txt; "
                "put the folders of scannet_frames_25k here"
            )

    def _list(self, scene: str) -> None:
        stems = {
            part: {path.stem for path in (self.root / scene / part).glob("[!.]*" + suffix)}
            for part, suffix in SUFFIXES.items()
        }
        if self.split == "test":
            stems["label"] = stems["color"]
        for part, images in (("color", "images"), ("label", "label images")):
            if not stems[part]:
                lost = len(stems["color"]) or len(stems["label"])
                self.problems.append(
                    f"{scene}: has no {images}; the scene is left out ({lost} frames)"
                )
                return
        for stem in sorted(stems["color"] | stems["label"]):
            frame = Frame(f"{scene}/{stem}", scene)
            if stem not in stems["color"]:
                self.problems.append(f"{scene}/color/{stem}.jpg: missing; the frame is left out")
            elif stem not in stems["label"]:
                self.problems.append(f"{scene}/label/{stem}.png: missing; the frame is left out")
            else:
                self.frames.append(frame)
                if stem in stems["instance"]:
                    self._with_objects.add(frame.name)
                else:
                    self.without_objects.append(f"{scene}/instance/{stem}.png: missing")

    def _file(self, index: int, part: str) -> Path:
        scene, stem = self.frames[index].name.split("/")
        return self.root / scene / part / (stem + SUFFIXES[part])

    def color(self, index: int, min_height: int | None = None) -> np.ndarray:
        path = self._file(index, "color")
        return decode_jpeg(read_bytes(path), str(path), min_height)

    def labels(self, index: int) -> np.ndarray:
        return self.classes.lut()[self._nyu40(index)]

    def _nyu40(self, index: int) -> np.ndarray:
        path = self._file(index, "label")
        nyu40 = decode_labels(read_bytes(path), str(path))
        if nyu40.max(initial=0) > 255:
            raise Pri3DError(
                f"{path}: contains the id {nyu40.max()}, so its ids are not NYU-40 ids; use the "
                "labels of scannet_frames_25k, or scans with label-filt beside them"
            )
        return nyu40

    def unknown_ids(self, index: int) -> list[int]:
        """Ids in the label image above 40."""
        return [int(n) for n in np.unique(self._nyu40(index)) if n > 40]

    def has_objects(self, index: int) -> bool:
        return self.frames[index].name in self._with_objects

    def objects(self, index: int) -> Objects:
        path = self._file(index, "instance")
        number = decode_labels(read_bytes(path), str(path)).astype(np.int32)
        # Numbers below 1000 are surfaces without objects.
        lut = self.things.lut()
        number[lut[number // 1000] == 0] = 0
        class_of = {int(n): int(lut[n // 1000]) for n in np.unique(number) if n}
        return Objects(number, class_of)


def scene_list(root: Path, split: str) -> list[str]:
    """The scene ids of `scannetv2_<split>.txt`, in their order.

    Args:
        root: folder of the list, or of a folder beside it.
        split: "train", "val" or "test".

    Raises:
        Pri3DError: the list is missing, damaged or empty.
    """
    name = f"scannetv2_{split}.txt"
    for folder in (root, root.parent):
        if (folder / name).is_file():
            try:
                scenes = (folder / name).read_text().split()
            except (OSError, UnicodeDecodeError) as error:
                raise Pri3DError(
                    f"{folder / name}: not a list of scenes ({error}); download it again"
                ) from None
            scenes = list(dict.fromkeys(scenes))
            if not scenes:
                raise Pri3DError(f"{folder / name}: lists no scene; write one id per line")
            return scenes
    raise Pri3DError(
        f"{root / name}: missing; it lists the {split} scenes; copy it from Tasks/Benchmark of "
        "ScanNet's repository"
    )
