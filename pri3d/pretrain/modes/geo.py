"""geo: cells of an image against the voxels of the surface that they show.

Pri3D, Hou et al., ICCV 2021, section 3.2.
"""

from torch import nn

from pri3d.config import Pretrain
from pri3d.pretrain.image_pair_terms import (
    feature_maps,
    geo_count,
    geo_term,
    has_chunks,
    maps_of_both,
    networks_of,
)
from pri3d.pretrain.image_pairs import ImagePairBatch, ImagePairs
from pri3d.pretrain.modes import Inputs
from pri3d.pretrain.objective import LossTerm

__all__ = ["feature_maps"]


def samples(inputs: Inputs, settings: Pretrain) -> ImagePairs:
    """Pairs of images with their chunks; cells of the two images are not matched."""
    return ImagePairs(
        inputs.pairs,
        inputs.clouds_dir,
        inputs.chunks_dir,
        settings,
        inputs.held_out,
        match_images=False,
    )


def networks(settings: Pretrain) -> nn.ModuleDict:
    """The 2D network, the 3D network, and a projection head each."""
    return networks_of(settings, with_3d=True)


def after_initial_weights(nets: nn.ModuleDict) -> None:
    """Nothing to do."""


def loss(nets: nn.ModuleDict, batch: ImagePairBatch, settings: Pretrain) -> dict[str, LossTerm]:
    """The geo term: the mean over all images."""
    return {"geo": geo_term(nets, maps_of_both(nets, batch, settings), batch, settings)}


def samples_per_term(batch: ImagePairBatch, settings: Pretrain) -> dict[str, int]:
    """Number of images that have the term."""
    return {"geo": geo_count(batch)}


def is_complete(batch: ImagePairBatch) -> bool:
    """Whether there is an image and a chunk on both sides."""
    return len(batch.image_a_BCHW) > 0 and has_chunks(batch)


def after_step(nets: nn.ModuleDict, settings: Pretrain) -> None:
    """Nothing to do."""
