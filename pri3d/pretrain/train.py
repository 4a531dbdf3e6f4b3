"""The training loop: pairs of frames in, a pretrained network out.

A run can be killed at any moment and started again: it goes on from its newest checkpoint, and on
a CPU it ends with the same bits as a run that was never interrupted. Under `torchrun` the processes
share the micro-batches of each step among them; the first of them writes the files.
"""

import functools
import json
import multiprocessing
import multiprocessing.synchronize
import time
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

import pri3d
from pri3d.config import MODES, Pretrain
from pri3d.errors import Pri3DError
from pri3d.pretrain.initial_weights import load_initial_weights
from pri3d.pretrain.metrics import line
from pri3d.pretrain.modes import Inputs, Samples, module_of
from pri3d.pretrain.order import micro_batch_of, order_of_rank
from pri3d.pretrain.provenance import made_from, state_to_go_on_from
from pri3d.pretrain.schedules import bn_momentum, learning_rate
from pri3d.pretrain.step import set_bn_momentum, step
from pri3d.run import checkpoint, processes
from pri3d.run.metrics import MetricsWriter, skipped
from pri3d.run.signals import ignore_signals_until, stop_requests
from pri3d.sparse.convolution import engine_for, use_engine


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
) -> None:
    """Train and leave `model.safetensors`, `settings.json`, `provenance.json`, `metrics.jsonl`,
    TensorBoard events and `checkpoints/` in the folder `out`.

    mode: one of `modes.MODES`; chunks_dir is read for "geo" and "joint", and pairs for all modes
    but those with a teacher. engine: setting `sparse.engine`. held_out: scenes that are not trained
    on; scenes: those of the modes with a teacher, default all in clouds_dir. A run found in `out`
    goes on. Raises Pri3DError when an input is missing or does not fit, when the run found was made
    with other settings or inputs, when the loss is not finite, when nothing could be trained on,
    and when the run is asked to stop (SIGTERM, SIGINT; after writing a checkpoint).
    """
    here = processes.start(settings.device)
    try:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        if scenes and "pairs" in MODES[mode].reads:
            raise Pri3DError(
                f"--scene: {mode} trains on pairs, which know their scenes; leave some out with "
                "--held-out"
            )
        _check_micro_batch(mode, settings, here.size)
        inputs = Inputs(pairs, clouds_dir, chunks_dir, held_out, scenes)
        samples = module_of(mode).samples(inputs, settings)
        origin = made_from(pairs, samples, mode, settings, held_out, here.size)
        _train(samples, origin, Path(out), engine, here)
    finally:
        processes.stop()


def _check_micro_batch(mode: str, settings: Pretrain, ranks: int) -> None:
    min_frames = MODES[mode].min_frames
    if micro_batch_of(settings, ranks) < min_frames:
        raise Pri3DError(
            f"pretrain.batch: {mode} compares each frame with the others of its micro-batch; make "
            f"pretrain.batch (and micro_batch) at least {min_frames} per process"
        )


def _train(
    samples: Samples,
    origin: dict[str, Any],
    out: Path,
    engine: str,
    here: processes.Processes,
) -> None:
    mode, settings, lead = origin["mode"], samples.settings, here.rank == 0
    torch.manual_seed(settings.seed)
    module = module_of(mode)
    nets = module.networks(settings)
    engine = engine_for(engine, here.device) if "backbone3d" in nets else None
    if engine:
        use_engine(nets, engine)
    state = state_to_go_on_from(out, origin)
    if state:
        starts = state["starts"]
    else:
        starts = load_initial_weights(nets, settings, told=lead)
        module.after_initial_weights(nets)
    if any(other != starts for other in processes.gather(starts)):
        raise Pri3DError(
            "pretrain.initial_weights_2d: the processes would begin with different weights; put the file where "
            "all of them find it"
        )
    nets = nets.to(here.device, memory_format=torch.channels_last)
    if settings.sync_bn:
        for name, net in nets.items():
            if name != "teacher":  # its batch norm stays as it is
                processes.synchronize_batch_norm(net)
    optimizer = torch.optim.SGD(
        [parameter for parameter in nets.parameters() if parameter.requires_grad],
        lr=settings.lr,
        momentum=settings.momentum,
        dampening=settings.dampening,
        weight_decay=settings.weight_decay,
    )
    start, history = 0, ""
    window, ever = Counter(), Counter()  # sums since the last line of metrics, and of the whole run
    if state:
        nets.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start, history = state["step"], state["metrics"]
        window, ever = Counter(state["window"]), Counter(state["ever"])
    if settings.compile and "backbone" in nets:
        nets["backbone"].compile()

    closing = multiprocessing.Event()
    batches = _batches(samples, start, closing, here)
    nets.train()
    with (
        stop_requests(closing) as requests,
        MetricsWriter(out if lead else None, history, origin if settings.wandb else None) as record,
        tqdm(
            total=settings.steps, initial=start, unit="step", desc=mode, disable=_hide(lead)
        ) as bar,
    ):
        new = Counter()  # sums of this process that are not yet in the lead's
        for number in range(start + 1, settings.steps + 1):
            began = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - began
            lr = learning_rate(settings, number)
            for group in optimizer.param_groups:
                group["lr"] = lr
            set_bn_momentum(nets, bn_momentum(settings, number))

            done = step(nets, optimizer, batch, module, settings, lambda: bool(requests))
            if done.not_finite:
                raise Pri3DError(
                    f"{out}: the loss is {done.loss}, its gradient {done.grad_norm}, at step "
                    f"{number} (samples: {'; '.join(done.not_finite)}); look at these samples, or "
                    "lower pretrain.lr"
                )
            if not done.given_up:
                module.after_step(nets, settings)
                new.update(done.figures)
                new["pairs"] += sum(len(micro_batch.names) for micro_batch in batch)
                if lead:
                    new.update(seconds=time.perf_counter() - began, waited_s=waited)
                if lead and done.loss is not None:
                    new.update(updates=1, loss=done.loss, grad_norm=done.grad_norm)
                bar.update()

            last = number == settings.steps and not done.given_up
            stop = done.stop and not last
            logging = not done.given_up and (number % settings.log_every == 0 or last)
            saving = number % settings.checkpoint_every == 0 or last or stop
            if logging or saving:
                for sums in processes.gather(new):
                    window.update(sums)
                    ever.update(sums)
                new.clear()
            if logging:
                figures = line(number, settings.steps, lr, window, ever, here.device)
                record.write(figures)
                bar.set_postfix({k: v for k, v in figures.items() if k.endswith("recall")})
                window.clear()
            if saving:
                state = {
                    "step": number - done.given_up,
                    "model": nets.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "metrics": record.text,
                    "window": dict(window),
                    "ever": dict(ever),
                    "starts": starts,
                    "made_from": json.dumps(origin),
                }
                if lead:
                    checkpoint.save(
                        out / "checkpoints", state["step"], state, settings.keep_checkpoints
                    )
            if stop:
                asked = requests[0] if requests else "a signal to another process"
                raise Pri3DError(
                    f"{out}: stopped by {asked} after step {state['step']} of {settings.steps}; "
                    f"run the same again to go on from its checkpoint in {out / 'checkpoints'}"
                )

    if not ever["updates"]:
        reasons = ", ".join(f"{reason} ({n})" for reason, n in skipped(ever).items())
        raise Pri3DError(
            f"{out}: nothing could be trained on: {reasons}; look at pretrain.radius_m and at the "
            "scans"
        )
    if lead:
        checkpoint.save_json(out / "settings.json", {"mode": mode, **settings.model_dump()})
        versions = {"pri3d": pri3d.__version__, "torch": torch.__version__}
        inputs = origin["inputs"] | {"starts": starts, "versions": versions, "engine": engine}
        checkpoint.save_json(out / "provenance.json", inputs)
        # A teacher is as it was.
        trained = nn.ModuleDict({name: net for name, net in nets.items() if name != "teacher"})
        checkpoint.save_weights(out / "model.safetensors", trained)


def _hide(lead: bool) -> bool | None:
    return None if lead else True  # None: hidden where there is no terminal


def _batches(
    samples: Samples,
    start: int,
    closing: multiprocessing.synchronize.Event,
    here: processes.Processes,
) -> Iterator[list[Any]]:
    """The micro-batches of this process, a list for each step after `start`, on its device."""
    settings = samples.settings
    order = order_of_rank(start, settings, here.rank, here.size)
    per_step = settings.batch // (micro_batch_of(settings, here.size) * here.size)
    loader = iter(
        DataLoader(
            samples,
            batch_sampler=order,
            num_workers=settings.workers,
            # Workers prepare the next step while this one computes.
            prefetch_factor=2 + per_step // settings.workers if settings.workers else None,
            collate_fn=samples.collate,
            worker_init_fn=functools.partial(ignore_signals_until, closing),
            generator=torch.Generator(),  # without one it draws from the generator of the weights
            pin_memory=here.device.type == "cuda",
        )
    )
    for _ in range(start, settings.steps):
        yield [processes.move(_next(loader), here.device) for _ in range(per_step)]


def _next(batches: Iterator[Any]) -> Any:
    try:
        return next(batches)
    except Pri3DError as error:  # torch wraps what a worker raised into the worker's traceback
        message = str(error).strip().splitlines()[-1]
        raise Pri3DError(message.removeprefix("pri3d.errors.Pri3DError: ")) from None
