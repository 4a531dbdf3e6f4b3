"""joint: view and geo together, on the features of one shared 2D network.

Pri3D, Hou et al., ICCV 2021, section 3.3: loss = view + (geo of the first image + geo of the
second) / 2. With `depth_loss`, the depth term of its code too.
"""

from torch import nn

from pri3d.config import Pretrain
from pri3d.pretrain.image_pair_terms import (
    depth_count,
    depth_term,
    feature_maps,
    geo_count,
    geo_term,
    has_chunks,
    maps_of_both,
    networks_of,
    view_term,
)
from pri3d.pretrain.image_pairs import ImagePairBatch, ImagePairs
from pri3d.pretrain.modes import Inputs
from pri3d.pretrain.objective import LossTerm

__all__ = ["feature_maps"]


def samples(inputs: Inputs, settings: Pretrain) -> ImagePairs:
    """Pairs of images with their chunks."""
    return ImagePairs(inputs.pairs, inputs.clouds_dir, inputs.chunks_dir, settings, inputs.held_out)


def networks(settings: Pretrain) -> nn.ModuleDict:
    """The 2D network, the 3D network, a projection head each; with `depth_loss` the depth head."""
    return networks_of(settings, with_3d=True, with_depth=settings.depth_loss)


def after_initial_weights(nets: nn.ModuleDict) -> None:
    """Nothing to do."""


def loss(nets: nn.ModuleDict, batch: ImagePairBatch, settings: Pretrain) -> dict[str, LossTerm]:
    """The view term and the geo term, with `depth_loss` also the depth term."""
    maps = maps_of_both(nets, batch, settings)
    terms = {
        "view": view_term(maps, batch, settings),
        "geo": geo_term(nets, maps, batch, settings),
    }
    if settings.depth_loss:
        terms["depth"] = depth_term(nets, maps, batch)
    return terms


def samples_per_term(batch: ImagePairBatch, settings: Pretrain) -> dict[str, int]:
    """Number of samples that have each term."""
    number = {"view": len(batch.view.counts), "geo": geo_count(batch)}
    if settings.depth_loss:
        number["depth"] = depth_count(batch)
    return number


def is_complete(batch: ImagePairBatch) -> bool:
    """Whether there is an image and a chunk on both sides."""
    return len(batch.image_a_BCHW) > 0 and has_chunks(batch)


def after_step(nets: nn.ModuleDict, settings: Pretrain) -> None:
    """Nothing to do."""
