"""Pretrained networks, ready to use."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pri3d.errors import Pri3DError
from pri3d.matching.voxels import unique_voxels
from pri3d.models.minkunet import MinkUNet, minkunet
from pri3d.models.resunet import ENCODERS, encode, resnet_encoder
from pri3d.run.folder import WEIGHTS, Run
from pri3d.sparse.coordinates import SparseTensor, collate
from pri3d.transforms.color import normalize
from pri3d.weights.formats import BACKBONE3D, ENCODER, load
from pri3d.weights.networks import encoder_name, minkunet_settings, under


class Encoder(nn.Module):
    """A pretrained ResNet encoder that takes plain images.

    name: resnet18, resnet34, resnet50 or resnet18_half. channels: of the four feature maps.
    resnet: the network itself, under the names of torchvision.

    Example:
        >>> encoder = pri3d.load_encoder("results/runs/joint")  # doctest: +SKIP
        >>> maps = encoder(torch.rand(1, 3, 240, 320))  # doctest: +SKIP
        >>> [tuple(m.shape[-2:]) for m in maps]  # doctest: +SKIP
        [(60, 80), (30, 40), (15, 20), (8, 10)]
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.channels = ENCODERS[name].channels
        self.resnet = resnet_encoder(name)

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """Feature maps at strides 4, 8, 16 and 32.

        Args:
            image_B3HW: float RGB images in 0..1; any size.

        Returns:
            Four maps [B, C, H / stride, W / stride].
        """
        return encode(self.resnet, normalize(image_B3HW))


def load_encoder(run: str | Path | Run) -> Encoder:
    """The 2D encoder of a run, or of a file of weights, in evaluation mode.

    Args:
        run: a run (`pri3d.open`), its folder, or a file in any form that `pri3d import` reads,
            published checkpoints included.

    Raises:
        Pri3DError: there is no 2D encoder, or the file cannot be read.
    """
    path = _weights_file(run)
    state = under(load(path).state, ENCODER)
    if not state:
        raise Pri3DError(
            f"{path}: has no 2D encoder; give a run of a mode that trains the 2D network, such as "
            "joint"
        )
    encoder = Encoder(encoder_name(path, state))
    _load_state(path, encoder.resnet, state)
    return encoder.eval()


def load_backbone3d(run: str | Path | Run) -> MinkUNet:
    """The sparse 3D UNet of a run, or of a file of weights, in evaluation mode.

    Its input is a `SparseTensor` with RGB colors in 0..1, such as `sparse_cloud` makes.

    Args:
        run: as for `load_encoder`.

    Raises:
        Pri3DError: there is no 3D network, or the file cannot be read.

    Example:
        >>> network = pri3d.load_backbone3d("results/runs/ppkt")  # doctest: +SKIP
        >>> cloud, of_point = pri3d.sparse_cloud(points, colors, 0.025)  # doctest: +SKIP
        >>> features = network(cloud).features[of_point]  # doctest: +SKIP
    """
    path = _weights_file(run)
    state = under(load(path).state, BACKBONE3D)
    if not state:
        raise Pri3DError(
            f"{path}: has no 3D network; give a run of a mode that trains one, such as ppkt"
        )
    network = minkunet(**minkunet_settings(path, state))
    _load_state(path, network, state)
    return network.eval()


def sparse_cloud(
    points: np.ndarray, colors: np.ndarray, voxel_m: float
) -> tuple[SparseTensor, Tensor]:
    """A colored point cloud as the input of the 3D network.

    Args:
        points: [n, 3] meters, z up.
        colors: [n, 3], uint8, or float in 0..1.
        voxel_m: meters; voxel size, as in pretraining (`frame_voxel_m`, or `chunks.voxel_m`).

    Returns:
        The sparse tensor with one row per occupied voxel, which has the color of its first point;
        and int64 [n], the row of each point.

    Raises:
        Pri3DError: a point is not finite, or too far from the origin.
    """
    points = np.asarray(points, np.float64)
    if not np.isfinite(points).all():
        raise Pri3DError("sparse_cloud: a point is not finite; remove such points")
    voxel = np.floor(points / voxel_m).astype(np.int64)
    first, row_of_point = unique_voxels(voxel)
    color = np.asarray(colors)
    if color.dtype == np.uint8:
        color = color / np.float32(255)
    cells = torch.from_numpy(voxel[first].astype(np.int32))
    features = torch.from_numpy(color[first].astype(np.float32))
    return collate([(cells, features)]), torch.from_numpy(row_of_point)


def _weights_file(run: str | Path | Run) -> Path:
    if isinstance(run, Run):
        return run.weights
    path = Path(run)
    return path / WEIGHTS if path.is_dir() else path


def _load_state(path: Path, network: nn.Module, state: dict[str, Tensor]) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise Pri3DError(
            f"{path}: does not fit its network ({str(error).splitlines()[-1].strip()})"
        ) from None
