"""view: cells of one image against matching cells of another image of the same place.

Pri3D, Hou et al., ICCV 2021, section 3.1; with `depth_loss`, the depth term of its code too.
"""

from torch import nn

from pri3d.config import Pretrain
from pri3d.pretrain.image_pair_terms import (
    depth_count,
    depth_term,
    feature_maps,
    maps_of_both,
    networks_of,
    view_term,
)
from pri3d.pretrain.image_pairs import ImagePairBatch, ImagePairs
from pri3d.pretrain.modes import Inputs
from pri3d.pretrain.objective import LossTerm

__all__ = ["feature_maps"]


def samples(inputs: Inputs, settings: Pretrain) -> ImagePairs:
    """Pairs of images, without chunks."""
    return ImagePairs(inputs.pairs, inputs.clouds_dir, None, settings, inputs.held_out)


def networks(settings: Pretrain) -> nn.ModuleDict:
    """The 2D network, with `depth_loss` also the depth head."""
    return networks_of(settings, with_depth=settings.depth_loss)


def after_initial_weights(nets: nn.ModuleDict) -> None:
    """Nothing to do."""


def loss(nets: nn.ModuleDict, batch: ImagePairBatch, settings: Pretrain) -> dict[str, LossTerm]:
    """The view term, with `depth_loss` also the depth term."""
    maps = maps_of_both(nets, batch, settings)
    terms = {"view": view_term(maps, batch, settings)}
    if settings.depth_loss:
        terms["depth"] = depth_term(nets, maps, batch)
    return terms


def samples_per_term(batch: ImagePairBatch, settings: Pretrain) -> dict[str, int]:
    """Number of samples that have each term."""
    number = {"view": len(batch.view.counts)}
    if settings.depth_loss:
        number["depth"] = depth_count(batch)
    return number


def is_complete(batch: ImagePairBatch) -> bool:
    """Whether there is an image."""
    return len(batch.image_a_BCHW) > 0


def after_step(nets: nn.ModuleDict, settings: Pretrain) -> None:
    """Nothing to do."""
