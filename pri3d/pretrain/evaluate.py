"""How well a pretrained network finds matches in scans that it was not trained on, without labels.

For a match of two images, the cell of the second image whose feature is the most similar to that of
the first image's cell, among *all* cells, should be the true one. Recall at k is the share of
matches for which it is within k cells (or, of an image and its chunk, within k voxels). The same
is measured for the initial network of the run.

Shapes: B images, C channels, N matches.
"""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from pri3d.artefacts import Pairs
from pri3d.config import MODES, Evaluate, Pretrain, used_settings
from pri3d.errors import Pri3DError, first_line
from pri3d.models.calibrate import calibrate_batch_norm
from pri3d.pretrain.image_features import cell_features
from pri3d.pretrain.image_pairs import ImagePairBatch, ImagePairs, collate_image_pairs
from pri3d.pretrain.initial_weights import load_initial_weights
from pri3d.pretrain.matches import CELL
from pri3d.pretrain.modes import matching_module_of
from pri3d.pretrain.recall import Figures, cell_positions, chance_of, mean_figures, recall_of
from pri3d.pretrain.voxel_features import voxel_features
from pri3d.run import processes
from pri3d.run.folder import InitialWeights, Run, read_run, write_json
from pri3d.sparse.convolution import engine_for, use_engine

MAX_CALIBRATION_PAIRS = 32  # for the running statistics of the initial network
MAX_EXAMPLE_MATCHES = 24


class Network(NamedTuple):
    """A network of a mode. settings: of the run."""

    mode: str
    nets: nn.ModuleDict
    settings: Pretrain

    def feature_maps(self, batch: ImagePairBatch) -> tuple[Tensor, Tensor]:
        """Feature maps [B, C, H / 2, W / 2] of the first and of the second images."""
        module = matching_module_of(self.mode)
        return (
            module.feature_maps(self.nets, batch.image_a_BCHW, self.settings),
            module.feature_maps(self.nets, batch.image_b_BCHW, self.settings),
        )

    @property
    def normalize(self) -> bool:
        """Whether features are compared by direction; modes without the setting do so."""
        return self.settings.normalize if "normalize" in used_settings(self.mode) else True


class PairResult(NamedTuple):
    """The figures of one pair by kind of match (pixels, voxels), and the predicted cells [N]."""

    figures: dict[str, Figures]
    predicted_N: Tensor


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
    """Evaluate a pretraining run on pairs of scenes that it was not trained on.

    The initial network has no running statistics of batch norm; it takes those of evaluated images,
    without which its features would be arbitrary.

    Args:
        trained: folder of the run.
        pairs: file made by `pri3d pairs`.
        clouds_dir: folder with <scene>.h5 made by `pri3d clouds`.
        chunks_dir: likewise by `pri3d chunks`; read for modes that read chunks.
        out: JSON file that is written.
        held_out: scenes to evaluate on; empty: all of `pairs` that the run was not trained on.
        settings: section `evaluate`.
        engine: setting `sparse.engine`.
        device: auto, cpu or cuda.
        threads: CPU threads; 0: torch's default.

    Returns:
        The content of `out`. `before` and `after` pretraining: `pixels`, matches of two images by
        the features of their cells; for modes that read chunks also `voxels`, matches of an image
        and its chunk by the projected features. Each has the figures of `recall.recall_of`.
        `chance`: by guessing. `run`: name, mode, variant and seed of the run.

    Raises:
        Pri3DError: the run is not finished, is of another kind, or was trained on one of the
            scenes; its initial weights are not available; or nothing can be evaluated.
    """
    pretrained = _matching_run(trained)
    mode, run_settings = str(pretrained.mode), pretrained.pretrain
    scenes = _unseen_scenes(pretrained, pairs, held_out)
    torch_device = processes.start(device).device
    if threads:
        torch.set_num_threads(threads)
    samples = _samples(pairs, clouds_dir, chunks_dir, mode, run_settings, settings, scenes)
    batches, skipped = _batches(samples, settings.max_pairs, torch_device)

    torch.manual_seed(run_settings.seed)
    nets = matching_module_of(mode).networks(run_settings)
    if "backbone3d" in nets:
        use_engine(nets, engine_for(engine, torch_device))
    _check_initial_weights(pretrained, load_initial_weights(nets, run_settings))
    nets.to(torch_device)
    network = Network(mode, nets, run_settings)
    _calibrate(network, batches[:MAX_CALIBRATION_PAIRS])
    before = [_evaluate(network, batch) for batch in tqdm(batches, "before", disable=None)]
    _load(nets, pretrained.weights)
    after = [_evaluate(network, batch) for batch in tqdm(batches, "after", disable=None)]

    result = {
        "run": {
            "name": pretrained.name,
            "mode": mode,
            "variant": pretrained.variant,
            "seed": run_settings.seed,
        },
        "mode": mode,
        "model": pretrained.digest(),
        "scenes": samples.used_scenes(),
        "settings": settings.model_dump(),
        "pairs": len(batches),
        "skipped": skipped,
        "before": mean_figures([pair.figures for pair in before]),
        "after": mean_figures([pair.figures for pair in after]),
        "chance": mean_figures([_chance(batch) for batch in batches]),
        "example": _example(batches, before, after),
    }
    write_json(out, result)
    return result


def _matching_run(trained: Path) -> Run:
    pretrained = read_run(trained)
    if pretrained.mode is None:
        raise Pri3DError(f"{trained}: is a finetuned network; give its labeled data set (--data)")
    if not MODES[pretrained.mode].matching:
        raise Pri3DError(
            f"{trained}: {pretrained.mode} pretrains a 3D network alone, which finds no matches of "
            "images; its metrics.jsonl has the recall of its training"
        )
    if pretrained.provenance is None:
        raise Pri3DError(f"{trained}: is not finished; run the same pretraining again to resume it")
    return pretrained


def _unseen_scenes(pretrained: Run, pairs: Path, held_out: Collection[str]) -> set[str]:
    """The scenes to evaluate on, which have pairs."""
    assert pretrained.provenance is not None
    seen = set(pretrained.provenance.inputs["clouds"])
    if both := sorted(seen & set(held_out)):
        raise Pri3DError(
            f"{pretrained.folder}: was trained on {', '.join(both)}; evaluate on other scans, or "
            "hold these out and pretrain again"
        )
    with Pairs(pairs) as source:
        with_pairs = {source.scenes[scene] for scene in source.frame_scene[source.a]}
    if not held_out:
        if unseen := with_pairs - seen:
            return unseen
        raise Pri3DError(
            f"{pretrained.folder}: was trained on all scans of {pairs}; set held_out before "
            "pretraining"
        )
    if not with_pairs & set(held_out):
        raise Pri3DError(
            f"{pairs}: holds no pair of the held-out scans ({', '.join(held_out)}); name scans "
            "whose frames overlap"
        )
    return with_pairs & set(held_out)


def _check_initial_weights(pretrained: Run, loaded: dict[str, InitialWeights]) -> None:
    """Raises Pri3DError unless the initial network is the one that the run started from."""
    assert pretrained.provenance is not None
    for network, before in pretrained.provenance.initial_weights.items():
        now = loaded[network]
        changed = None not in (before.sha256, now.sha256) and before.sha256 != now.sha256
        if before.kind != now.kind or changed:
            raise Pri3DError(
                f"{pretrained.folder}: {network} started from: {before.description}; it would now "
                f"start from: {now.description}; evaluate where the same weights are available"
            )


def _samples(
    pairs: Path,
    clouds_dir: Path,
    chunks_dir: Path,
    mode: str,
    run_settings: Pretrain,
    settings: Evaluate,
    scenes: set[str],
) -> ImagePairs:
    """Pairs of the given scenes, without augmentation, with matches by the rule of the paper."""
    plain = run_settings.model_copy(
        update={
            "seed": settings.seed,
            "matches": settings.matches,
            "radius_m": settings.radius_m,
            "match_rule": "paper",
            "augment_color": False,
            "crop": 1.0,
            "flip": False,
            "rotate_chunks": False,
            "depth_loss": False,
            "batch": 1,
            "steps": settings.max_pairs,
        }
    )
    with Pairs(pairs) as source:
        others = {source.scenes[scene] for scene in source.frame_scene[source.a]} - scenes
    chunks = chunks_dir if "chunks" in MODES[mode].reads else None
    return ImagePairs(pairs, clouds_dir, chunks, plain, held_out=others)


def _batches(
    samples: ImagePairs, max_pairs: int, device: torch.device
) -> tuple[list[ImagePairBatch], dict[str, int]]:
    """One batch per pair, in random order, at most max_pairs; and reasons for skipped ones."""
    batches: list[ImagePairBatch] = []
    skipped: Counter[str] = Counter()
    number = min(max_pairs, len(samples.order))
    for index in tqdm(range(number), "pairs", disable=None):
        batch = collate_image_pairs([samples[index]])
        skipped.update(batch.skipped)
        if batch.view.counts:
            batches.append(processes.move(batch, device))
    if not batches:
        raise Pri3DError(
            f"{samples.clouds_dir}: none of {number} held-out pairs can be evaluated "
            f"({'; '.join(f'{n} x {reason}' for reason, n in skipped.items())})"
        )
    return batches, dict(skipped)


@torch.no_grad()
def _calibrate(network: Network, batches: list[ImagePairBatch]) -> None:
    """Set the running statistics of batch norm to their mean over the batches."""

    def forward(batch: ImagePairBatch) -> None:
        network.feature_maps(batch)
        for chunk in (batch.voxels_a, batch.voxels_b):
            if chunk.counts:
                voxel_features(network.nets["backbone3d"], chunk)

    calibrate_batch_norm(network.nets, forward, batches)


def _load(nets: nn.ModuleDict, path: Path) -> None:
    try:
        nets.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise Pri3DError(
            f"{path}: does not hold this run's weights ({first_line(error)}); run pretrain again"
        ) from None


@torch.no_grad()
def _evaluate(network: Network, batch: ImagePairBatch) -> PairResult:
    nets = network.nets
    nets.eval()
    map_a_BCHW, map_b_BCHW = network.feature_maps(batch)
    cells_a, cells_b = cell_features(map_a_BCHW), cell_features(map_b_BCHW)
    positions = cell_positions(len(cells_b), map_b_BCHW.shape[-1], cells_b.device)
    view = batch.view
    pixels, predicted_N = recall_of(
        cells_a[view.anchor_N], cells_b, view.positive_N, positions, network.normalize
    )
    voxels = []
    for cells, chunk in ((cells_a, batch.voxels_a), (cells_b, batch.voxels_b)):
        if chunk.counts:
            recall, _ = recall_of(
                nets["w2d"](cells[chunk.matches.anchor_N]),
                nets["w3d"](voxel_features(nets["backbone3d"], chunk)),
                chunk.matches.positive_N,
                chunk.voxel_V3.float(),
                network.normalize,
            )
            voxels.append({"voxels": recall})
    return PairResult({"pixels": pixels} | mean_figures(voxels), predicted_N)


def _chance(batch: ImagePairBatch) -> dict[str, Figures]:
    """The figures of one pair by guessing."""
    height, width = _cell_shape(batch)
    true_N = batch.view.positive_N
    pixels = chance_of(true_N, cell_positions(height * width, width, true_N.device))
    voxels = [
        {"voxels": chance_of(chunk.matches.positive_N, chunk.voxel_V3.float())}
        for chunk in (batch.voxels_a, batch.voxels_b)
        if chunk.counts
    ]
    return {"pixels": pixels} | mean_figures(voxels)


def _example(
    batches: list[ImagePairBatch], before: list[PairResult], after: list[PairResult]
) -> dict[str, Any]:
    """Matches of the pair of median recall after pretraining, as (row, column) of cells."""
    recall_before, recall_after = (
        [pair.figures["pixels"]["recall_3"] for pair in results] for results in (before, after)
    )
    median = int(np.argsort(recall_after, kind="stable")[len(recall_after) // 2])
    batch = batches[median]
    view, (_, width) = batch.view, _cell_shape(batch)
    number = min(MAX_EXAMPLE_MATCHES, view.counts[0])
    chosen = torch.linspace(0, view.counts[0] - 1, number).long()

    def positions(cell_N: Tensor) -> list[list[int]]:
        return [[int(cell) // width, int(cell) % width] for cell in cell_N.cpu()[chosen]]

    return {
        "pair": batch.names[0],
        "input_shape": list(batch.image_a_BCHW.shape[-2:]),
        "anchor": positions(view.anchor_N),
        "true": positions(view.positive_N),
        "before": positions(before[median].predicted_N),
        "after": positions(after[median].predicted_N),
        "recall_3": {"before": recall_before[median], "after": recall_after[median]},
    }


def _cell_shape(batch: ImagePairBatch) -> tuple[int, int]:
    """(height, width) of a feature map in cells."""
    height, width = batch.image_a_BCHW.shape[-2:]
    return height // CELL, width // CELL
