"""Projection heads: they map the features of pixels and of voxels to a common space."""

from torch import nn


class ProjectionHeads(nn.Module):
    """Linear maps of 2D features (`w2d`) and of 3D features (`w3d`) to a common space.

    The geometric term compares their outputs; the view term uses the 2D features unprojected.
    Parameter names are those of the published weights.

    Args:
        channels_2d: of the 2D features.
        channels_3d: of the 3D features.
        projection_channels: of the common space.
    """

    def __init__(
        self, channels_2d: int, channels_3d: int = 96, projection_channels: int = 64
    ) -> None:
        super().__init__()
        self.w2d = nn.Linear(channels_2d, projection_channels)
        self.w3d = nn.Linear(channels_3d, projection_channels)
