"""How well a pretrained network finds matches in scans that it has not seen; needs no labels.

For a match of two images, the cell of the second image whose feature is the most similar to that of
the first image's cell, among *all* cells, should be the true one. Recall at k is the share of
matches for which it lies within k cells (or, of an image and its chunk, within k voxels). The same
is measured for the network that the run began with.

Shapes: N matches, M cells or voxels searched, C channels.
"""

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy.spatial import cKDTree
from torch import Tensor, nn
from tqdm import tqdm

from pri3d import store
from pri3d.artefacts import Pairs
from pri3d.config import MODES, Evaluate, Pretrain
from pri3d.errors import Pri3DError
from pri3d.pretrain.initial_weights import load_initial_weights
from pri3d.pretrain.losses import match_recall
from pri3d.pretrain.matches import CELL
from pri3d.pretrain.modes import cell_features, feature_maps, networks, voxel_features
from pri3d.pretrain.samples import Batch, PairSamples, collate
from pri3d.run import checkpoint, processes
from pri3d.run.checkpoint import first_line
from pri3d.sparse.convolution import engine_for, use_engine

WITHIN = (1, 3, 5)  # cells or voxels
CALIBRATED_ON = 32  # pairs that give the initial network its running statistics
DRAWN = 24  # matches of the example


def run(
    trained: Path,
    pairs: Path,
    clouds_dir: Path,
    chunks_dir: Path,
    out: Path,
    held_out: Collection[str],
    settings: Evaluate,
    engine: str = "auto",
    device: str = "auto",
    threads: int = 0,
) -> dict[str, Any]:
    """Measure the run in the folder `trained` on pairs of the scenes `held_out`, into `out` (JSON).

    Before and after: `pixels`, matches of two images, by the features of their cells; for geo and
    joint `voxels` too, matches of an image and its chunk, by the projected features. Each has
    recall_1, recall_3, recall_5, and top1, the share whose own match is the most similar among
    the sample's `candidates` matches. `chance` is what guessing would reach.

    Before: the network that the run began with, whose batch norm got statistics of evaluated images
    (without them its features would be arbitrary). Raises Pri3DError when the run is not finished,
    has seen one of the scenes, or nothing can be measured.
    """
    mode, how = _settings_of(trained)
    _check_unseen(trained, held_out)
    place = processes.start(device).device
    if threads:
        torch.set_num_threads(threads)
    samples = _samples(pairs, clouds_dir, chunks_dir, mode, how, settings, held_out)
    batches, skipped = _batches(samples, settings.max_pairs, place)

    torch.manual_seed(how.seed)
    nets = networks(mode, how)
    if "backbone3d" in nets:
        use_engine(nets, engine_for(engine, place))
    _check_start(trained, load_initial_weights(nets, mode, how))
    nets.to(place)
    _calibrate(nets, mode, batches[:CALIBRATED_ON], how)
    before = [_measure(nets, mode, batch, how) for batch in tqdm(batches, "before", disable=None)]
    _load(nets, trained / "model.safetensors")
    after = [_measure(nets, mode, batch, how) for batch in tqdm(batches, "after", disable=None)]

    result = {
        "mode": mode,
        "model": store.file_digest(trained / "model.safetensors"),
        "scenes": samples.used_scenes(),
        "settings": settings.model_dump(),
        "pairs": len(batches),
        "skipped": skipped,
        "before": _mean([m["figures"] for m in before]),
        "after": _mean([m["figures"] for m in after]),
        "chance": _mean([_chance(batch, how) for batch in batches]),
        "example": _example(batches, before, after, how),
    }
    checkpoint.save_json(out, result)
    return result


def _settings_of(trained: Path) -> tuple[str, Pretrain]:
    try:
        given = json.loads((trained / "settings.json").read_text())
        if "task" in given:
            raise Pri3DError(
                f"{trained}: is a finetuned network; give its labelled images (--data)"
            )
        mode = given.pop("mode")
        if not MODES[mode].matching:
            raise Pri3DError(
                f"{trained}: {mode} pretrains a 3D network alone, which finds no matches of "
                "images; its metrics.jsonl has the recall of its training"
            )
        return mode, Pretrain.model_validate(given)
    except (OSError, ValueError, KeyError) as error:
        raise Pri3DError(
            f"{trained}: is no finished pretraining run ({first_line(error)}); give a folder that "
            "`pri3d pretrain` has filled"
        ) from None


def _check_unseen(trained: Path, held_out: Collection[str]) -> None:
    if not held_out:
        raise Pri3DError(
            "evaluation needs scans that no training has seen: set held_out before pretraining"
        )
    try:
        seen = json.loads((trained / "provenance.json").read_text())["clouds"]
    except (OSError, ValueError, KeyError) as error:
        raise Pri3DError(
            f"{trained / 'provenance.json'}: does not say what was trained on "
            f"({first_line(error)}); run pretrain again"
        ) from None
    if both := sorted(set(seen) & set(held_out)):
        raise Pri3DError(
            f"{trained}: was trained on {', '.join(both)}; evaluate on other scans, or hold these "
            "out and pretrain again"
        )


def _check_start(trained: Path, starts: dict[str, str]) -> None:
    began = json.loads((trained / "provenance.json").read_text())["starts"]
    if starts != began:
        raise Pri3DError(
            f"{trained}: began with {began}, and what is here now is {starts}; evaluate it where "
            "those weights can be had"
        )


def _samples(pairs, clouds_dir, chunks_dir, mode, how, settings, held_out) -> PairSamples:
    """Samples of the held-out scenes alone, unchanged images, matches by the rule of the paper."""
    plain = how.model_copy(
        update={
            "seed": settings.seed,
            "matches": settings.matches,
            "radius_m": settings.radius_m,
            "match_rule": "paper",
            "augment": False,
            "crop": 1.0,
            "flip": False,
            "rotate_chunks": False,
            "depth_loss": False,
            "batch": 1,
            "steps": settings.max_pairs,
        }
    )
    with Pairs(pairs) as source:
        scenes = {source.scenes[scene] for scene in source.frame_scene[source.a]}
    if not scenes & set(held_out):
        raise Pri3DError(
            f"{pairs}: holds no pair of the held-out scans ({', '.join(held_out)}); name scans "
            "whose frames overlap"
        )
    wanted = "joint" if mode in ("geo", "joint") else "view"
    return PairSamples(pairs, clouds_dir, chunks_dir, wanted, plain, scenes - set(held_out))


def _batches(samples: PairSamples, most: int, device) -> tuple[list[Batch], dict[str, int]]:
    """One batch a pair, at most so many, drawn evenly over all; why others could not be used."""
    batches, skipped = [], {}
    number = min(most, len(samples.a))
    for index in tqdm(range(number), "pairs", disable=None):
        batch = collate([samples[index]])
        for reason in batch.skipped:
            skipped[reason] = skipped.get(reason, 0) + 1
        if batch.view.counts:
            batches.append(processes.move(batch, device))
    if not batches:
        raise Pri3DError(
            f"{samples.clouds_dir}: none of {number} held-out pairs can be evaluated "
            f"({'; '.join(f'{n} x {reason}' for reason, n in skipped.items())})"
        )
    return batches, skipped


@torch.no_grad()
def _calibrate(nets: nn.ModuleDict, mode: str, batches: list[Batch], how: Pretrain) -> None:
    """Running statistics: the mean over batches, each counting alike."""
    norms = [m for m in nets.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    nets.train()
    for batch in batches:
        _maps(nets, mode, batch, how)
        for side in (batch.side_a, batch.side_b):
            if "backbone3d" in nets and side.counts:
                voxel_features(nets["backbone3d"], side)


def _load(nets: nn.ModuleDict, path: Path) -> None:
    try:
        nets.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise Pri3DError(
            f"{path}: does not hold this run's weights ({first_line(error)}); run pretrain again"
        ) from None


def _maps(nets: nn.ModuleDict, mode: str, batch: Batch, how: Pretrain) -> tuple[Tensor, Tensor]:
    """Feature maps of both images; of the encoder alone: those at stride 8, scaled to the cells."""
    images = batch.image_a_BCHW, batch.image_b_BCHW
    if mode != "moco":
        return tuple(feature_maps(nets["backbone"], image, how) for image in images)
    encoder = nets["backbone"]["encoder"]
    stem = nn.Sequential(encoder.conv1, encoder.bn1, encoder.relu, encoder.maxpool)
    at8 = nn.Sequential(stem, encoder.layer1, encoder.layer2)
    shape = how.height // CELL, how.width // CELL
    return tuple(
        nn.functional.interpolate(feature_maps(at8, image, how), shape, mode="bilinear")
        for image in images
    )


@torch.no_grad()
def _measure(nets: nn.ModuleDict, mode: str, batch: Batch, how: Pretrain) -> dict[str, Any]:
    """The figures of one pair, and the cells that were found."""
    nets.eval()
    cells_a, cells_b = (cell_features(x) for x in _maps(nets, mode, batch, how))
    anchor_N, true_N = batch.view.anchor_N, batch.view.positive_N
    width = how.width // CELL
    place_M2 = _places(len(cells_b), width, cells_b.device)
    normalise = how.normalise or mode == "moco"
    pixels, found_N = _recall(cells_a[anchor_N], cells_b, true_N, place_M2, normalise)
    figures, voxels = {"pixels": pixels}, []
    for cells, side in ((cells_a, batch.side_a), (cells_b, batch.side_b)):
        if side.counts:
            anchors_NC = nets["w2d"](cells[side.matches.anchor_N])
            voxels_MC = nets["w3d"](voxel_features(nets["backbone3d"], side))
            true_N, place_M3 = side.matches.positive_N, side.voxel_V3.float()
            recall, _ = _recall(anchors_NC, voxels_MC, true_N, place_M3, how.normalise)
            voxels.append({"voxels": recall})
    return {"figures": figures | _mean(voxels), "found": found_N}


def _chance(batch: Batch, how: Pretrain) -> dict[str, dict[str, float]]:
    """What guessing gives for one pair: the share of all places that are near the true ones."""
    cells = (how.height // CELL) * (how.width // CELL)
    place_M2 = _places(cells, how.width // CELL, batch.view.positive_N.device)
    pixels = _near(batch.view.positive_N, place_M2)
    voxels = [
        {"voxels": _near(side.matches.positive_N, side.voxel_V3.float())}
        for side in (batch.side_a, batch.side_b)
        if side.counts
    ]
    return {"pixels": pixels} | _mean(voxels)


def _near(true_N: Tensor, place_MD: Tensor) -> dict[str, float]:
    places = cKDTree(place_MD.cpu().numpy())
    true = places.data[true_N.cpu()]
    shares = {
        f"recall_{k}": float(places.query_ball_point(true, k, return_length=True).mean())
        / len(place_MD)
        for k in WITHIN
    }
    return shares | {"top1": 1 / len(true_N), "candidates": len(true_N)}


def _places(cells: int, width: int, device: torch.device) -> Tensor:
    """Row and column of each cell."""
    cell_M = torch.arange(cells, device=device)
    return torch.stack([cell_M // width, cell_M % width], dim=1).float()


def _recall(
    anchor_NC: Tensor, searched_MC: Tensor, true_N: Tensor, place_MD: Tensor, normalise: bool
) -> tuple[dict[str, float], Tensor]:
    """Recall of N matches among M places, and those found; of equally similar ones their mean."""
    top1 = match_recall(anchor_NC, searched_MC[true_N], normalise)
    if normalise:
        anchor_NC, searched_MC = (nn.functional.normalize(x) for x in (anchor_NC, searched_MC))
    similarity_NM = anchor_NC @ searched_MC.t()
    most_N1, found_N = similarity_NM.max(dim=1, keepdim=True)
    found_N = found_N[:, 0]
    distance_N = (place_MD[found_N] - place_MD[true_N]).norm(dim=1)
    near_NK = (distance_N[:, None] <= distance_N.new_tensor(WITHIN)).float()
    for row in ((similarity_NM == most_N1).sum(dim=1) > 1).nonzero()[:, 0].tolist():
        best = (similarity_NM[row] == most_N1[row]).nonzero()[:, 0]
        distance = (place_MD[best] - place_MD[true_N[row]]).norm(dim=1)
        near_NK[row] = torch.stack([(distance <= k).float().mean() for k in WITHIN])
    figures = {f"recall_{k}": near_NK[:, i].mean().item() for i, k in enumerate(WITHIN)}
    return figures | {"top1": top1, "candidates": len(anchor_NC)}, found_N


def _mean(of_pairs: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Means over the pairs that have each kind of match."""
    kinds = sorted({kind for figures in of_pairs for kind in figures})
    return {
        kind: {
            name: math.fsum(f[kind][name] for f in of_pairs if kind in f)
            / sum(kind in f for f in of_pairs)
            for name in next(f[kind] for f in of_pairs if kind in f)
        }
        for kind in kinds
    }


def _example(batches, before, after, how: Pretrain) -> dict[str, Any]:
    """Matches of the pair of median recall after pretraining, as (row, column) of cells."""
    recall, earlier = ([m["figures"]["pixels"]["recall_3"] for m in x] for x in (after, before))
    pair = int(np.argsort(recall, kind="stable")[len(recall) // 2])
    view, width = batches[pair].view, how.width // CELL
    chosen = torch.linspace(0, view.counts[0] - 1, min(DRAWN, view.counts[0])).long()

    def places(cell_N: Tensor) -> list[list[int]]:
        return [[int(c) // width, int(c) % width] for c in cell_N.cpu()[chosen]]

    return {
        "pair": batches[pair].names[0],
        "input_shape": [how.height, how.width],
        "anchor": places(view.anchor_N),
        "true": places(view.positive_N),
        "before": places(before[pair]["found"]),
        "after": places(after[pair]["found"]),
        "recall_3": {"before": earlier[pair], "after": recall[pair]},
    }
