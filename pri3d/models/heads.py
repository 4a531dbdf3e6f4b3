"""Projection heads: where the features of pixels and of voxels become comparable."""

from torch import nn


class ProjectionHeads(nn.Module):
    """Linear maps of 2D features (`w2d`) and of 3D features (`w3d`) to a common space.

    The geometric term compares their outputs; the view term uses the 2D features as they are.
    Names are those of the published weights.
    """

    def __init__(
        self, channels_2d: int, channels_3d: int = 96, projection_channels: int = 64
    ) -> None:
        super().__init__()
        self.w2d = nn.Linear(channels_2d, projection_channels)
        self.w3d = nn.Linear(channels_3d, projection_channels)
