"""The selected pairs as a PyTorch data set, for training loops of one's own."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pri3d.api.matches import correspondences
from pri3d.artefacts import Clouds, Pairs
from pri3d.errors import Pri3DError
from pri3d.pretrain.scan_cache import ScanCache, row_of, stored_image


class PairItem(NamedTuple):
    """Two frames of one scan that see the same surface.

    H x W is the size of the stored color image, h x w that of the depth image.

    image_a, image_b: float32 [3, H, W], RGB in 0..1.
    depth_a, depth_b: float32 [h, w], meters; 0 where there is no measurement.
    depth_K, color_K: float64 [3, 3], intrinsics of both cameras in pixels.
    color_from_depth: float64 [4, 4], from the depth camera to the color camera.
    world_from_camera_a, world_from_camera_b: float64 [4, 4], poses of the depth camera.
    matches_a, matches_b: float32 [n, 2], (row, column) of the correspondences in the color images;
        an integer is the center of a pixel.
    overlap: share of corresponding points of the two frames, in [0, 1].
    scene, frame_a, frame_b: scan and frame numbers.
    """

    image_a: Tensor
    image_b: Tensor
    depth_a: Tensor
    depth_b: Tensor
    depth_K: Tensor
    color_K: Tensor
    color_from_depth: Tensor
    world_from_camera_a: Tensor
    world_from_camera_b: Tensor
    matches_a: Tensor
    matches_b: Tensor
    overlap: float
    scene: str
    frame_a: int
    frame_b: int


class PairDataset(torch.utils.data.Dataset[PairItem]):
    """The pairs of `pairs.h5` with images, depth, cameras and correspondences.

    It works with several workers of a DataLoader. The numbers of correspondences differ: use
    `collate_fn=PairDataset.collate`, or `batch_size=None`.

    Args:
        pairs: file written by `pri3d pairs`.
        clouds: folder with the `<scene>.h5` files written by `pri3d clouds`.
        radius_m: meters; maximum distance of corresponding points.
        max_matches: number of correspondences to draw per pair; None: all of them.
        scenes: scans to use; None: all.
        seed: seed of that draw. Item i is always the same.

    Raises:
        Pri3DError: a file is missing or damaged, it has no scan of a name in `scenes`, or no pair
            is left. Items raise it when the frame has no color image.

    Example:
        >>> pairs = pri3d.PairDataset("results/pairs.h5", "results/clouds")  # doctest: +SKIP
        >>> item = pairs[0]  # doctest: +SKIP
        >>> item.image_a.shape, item.matches_a.shape  # doctest: +SKIP
    """

    def __init__(
        self,
        pairs: str | Path,
        clouds: str | Path,
        radius_m: float = 0.02,
        max_matches: int | None = None,
        scenes: Collection[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.radius_m, self.max_matches, self.seed = radius_m, max_matches, seed
        with Pairs(pairs) as table:
            scene_of_pair = table.frame_scene[table.a]
            chosen = np.ones(len(table.a), bool)
            if scenes is not None:
                if unknown := sorted(set(scenes) - set(table.scenes)):
                    raise Pri3DError(
                        f"{pairs}: has no scan {', '.join(unknown)}; choose from its scenes"
                    )
                chosen = np.isin(np.array(table.scenes)[scene_of_pair], list(scenes))
            if not chosen.any():
                raise Pri3DError(f"{pairs}: holds no pair of these scans; choose others")
            self._scenes = table.scenes
            self._scene = scene_of_pair[chosen]
            self._frames = np.stack([table.frame_index[table.a], table.frame_index[table.b]], 1)[
                chosen
            ]
            self._overlap = table.overlap[chosen]
        self._scans = ScanCache(Path(clouds), None)

    def __len__(self) -> int:
        return len(self._scene)

    def __getitem__(self, index: int) -> PairItem:
        if not -len(self) <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        index %= len(self)
        scene = self._scenes[self._scene[index]]
        frame_a, frame_b = (int(frame) for frame in self._frames[index])
        clouds = self._scans[scene].clouds
        a, b = row_of(clouds, frame_a), row_of(clouds, frame_b)
        view_a, view_b = clouds.view(a), clouds.view(b)
        matches = correspondences(view_a, view_b, self.radius_m, "color")
        chosen = np.arange(len(matches.a))
        if self.max_matches is not None and len(chosen) > self.max_matches:
            rng = np.random.default_rng([self.seed, index])
            chosen = np.sort(rng.choice(len(chosen), self.max_matches, replace=False))
        return PairItem(
            image_a=_image(clouds, a),
            image_b=_image(clouds, b),
            depth_a=torch.from_numpy(view_a.depth.astype(np.float32)),
            depth_b=torch.from_numpy(view_b.depth.astype(np.float32)),
            depth_K=torch.from_numpy(clouds.K.copy()),
            color_K=torch.from_numpy(clouds.color_K.copy()),
            color_from_depth=torch.from_numpy(clouds.color_from_depth.copy()),
            world_from_camera_a=torch.from_numpy(view_a.world_from_camera.copy()),
            world_from_camera_b=torch.from_numpy(view_b.world_from_camera.copy()),
            matches_a=torch.from_numpy(matches.a[chosen].astype(np.float32)),
            matches_b=torch.from_numpy(matches.b[chosen].astype(np.float32)),
            overlap=float(self._overlap[index]),
            scene=scene,
            frame_a=frame_a,
            frame_b=frame_b,
        )

    @staticmethod
    def collate(items: Sequence[PairItem]) -> dict[str, object]:
        """A batch: stacked tensors, except the correspondences, which are lists of tensors.

        Images of different sizes cannot be stacked: `torch.stack` raises RuntimeError.
        """
        batch: dict[str, object] = {}
        for name in PairItem._fields:
            values = [getattr(item, name) for item in items]
            stackable = isinstance(values[0], Tensor) and not name.startswith("matches")
            batch[name] = torch.stack(values) if stackable else values
        return batch


def _image(clouds: Clouds, row: int) -> Tensor:
    try:
        rgb = stored_image(clouds, row)
    except ValueError as reason:
        raise Pri3DError(f"{clouds.path}: frame {clouds.index[row]} has {reason}") from None
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))) / 255
