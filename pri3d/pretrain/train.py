"""Pretraining: artefacts in, a run with pretrained networks out."""

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from pri3d.config import MODES, Pretrain
from pri3d.errors import Pri3DError
from pri3d.pretrain.initial_weights import load_initial_weights
from pri3d.pretrain.modes import Inputs, Samples, module_of
from pri3d.pretrain.provenance import run_identity
from pri3d.pretrain.schedules import bn_momentum, learning_rate
from pri3d.pretrain.step import step
from pri3d.run import loop, processes
from pri3d.run.batches import micro_batch_of
from pri3d.run.folder import write_settings
from pri3d.run.identity import Identity, is_finished, load_matching_checkpoint
from pri3d.run.networks import check_same_weights, compile_2d, on_device, recorded_weights
from pri3d.run.processes import Processes
from pri3d.run.step import Step, set_batch_norm_momentum
from pri3d.sparse.convolution import engine_for, use_engine

_log = logging.getLogger(__name__)


def run(
    pairs: Path,
    clouds_dir: Path,
    chunks_dir: Path,
    out: Path,
    mode: str,
    settings: Pretrain,
    engine: str = "auto",
    held_out: Collection[str] = (),
    scenes: Collection[str] = (),
    variant: str | None = None,
) -> None:
    """Pretrain, and leave a run in the folder `out`; see `pri3d.run.folder`.

    A run in `out` that is not finished resumes, and one that is finished stays as it is.

    Args:
        pairs: `pairs.h5`, for modes that read it.
        clouds_dir: folder with <scene>.h5.
        chunks_dir: folder with <scene>.h5, for modes that read chunks.
        out: folder of the run.
        mode: a key of `MODES`.
        settings: of the mode.
        engine: setting `sparse.engine`.
        held_out: scenes that are not trained on.
        scenes: scenes to train on, for modes that read no pairs; empty: all in clouds_dir.
        variant: name of the run in `variants` of the settings; default: the mode.

    Raises:
        Pri3DError: an input is missing or does not fit the others, `out` holds another run, nothing
            could be trained on, the loss is not finite, or the run was requested to stop (SIGTERM,
            SIGINT), in which case it has written a checkpoint.
    """
    here = processes.start(settings.device)
    try:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        _check(mode, settings, scenes, here.size)
        inputs = Inputs(pairs, clouds_dir, chunks_dir, held_out, scenes)
        samples = module_of(mode).samples(inputs, settings)
        identity = run_identity(pairs, samples, mode, settings, here.size)
        if is_finished(out, identity):
            _log.info("%s: is finished already", out)
            return
        _train(out, identity, samples, settings, engine, variant, here)
    finally:
        processes.stop()


def _check(mode: str, settings: Pretrain, scenes: Collection[str], ranks: int) -> None:
    record = MODES[mode]
    if scenes and "pairs" in record.reads:
        raise Pri3DError(
            f"--scene: {mode} trains on the scenes of the pairs; leave some out with --held-out"
        )
    if micro_batch_of(settings, ranks) < record.min_frames:
        raise Pri3DError(
            f"pretrain.batch: {mode} compares each frame with the others of its micro-batch; make "
            f"pretrain.batch (and micro_batch) at least {record.min_frames} per process"
        )


def _train(
    out: Path,
    identity: Identity,
    samples: Samples,
    settings: Pretrain,
    engine: str,
    variant: str | None,
    here: Processes,
) -> None:
    module = module_of(identity.name)
    torch.manual_seed(settings.seed)
    nets = module.networks(settings)
    used_engine = engine_for(engine, here.device) if "backbone3d" in nets else None
    if used_engine is not None:
        use_engine(nets, used_engine)
    state = load_matching_checkpoint(out, identity)
    if state is None:
        initial_weights = load_initial_weights(nets, settings)
        module.after_initial_weights(nets)
    else:
        initial_weights = recorded_weights(state)
    check_same_weights(initial_weights, identity.section)
    nets = on_device(nets, here, settings.sync_bn)
    optimizer = torch.optim.SGD(
        [parameter for parameter in nets.parameters() if parameter.requires_grad],
        lr=settings.lr,
        momentum=settings.momentum,
        dampening=settings.dampening,
        weight_decay=settings.weight_decay,
    )
    if state is not None:
        nets.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    if settings.compile and "backbone" in nets:
        compile_2d(nets)
    nets.train()
    if here.rank == 0:
        write_settings(out, "pretrain", identity.name, identity.settings, variant)

    def train_step(number: int, batches: Sequence[Any], stopping: Callable[[], bool]) -> Step:
        set_batch_norm_momentum(nets, bn_momentum(settings, number))
        return step(nets, optimizer, batches, module, settings, stopping)

    loop.train(
        out,
        identity,
        nets=nets,
        optimizer=optimizer,
        samples=samples,
        collate=samples.collate,
        step=train_step,
        learning_rates=[learning_rate(settings, i) for i in range(1, settings.steps + 1)],
        initial_weights=initial_weights,
        state=state,
        unit="pairs",
        here=here,
    )
    if here.rank == 0:
        loop.finish(out, identity, nets, initial_weights, used_engine)
