"""The training loop: pairs of frames in, a pretrained network out.

A run can be killed at any moment and started again: it goes on from its newest checkpoint, and on
a CPU it ends with the same bits as a run that was never interrupted.
"""

import contextlib
import functools
import json
import math
import multiprocessing
import multiprocessing.synchronize
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

import pri3d
from pri3d import checkpoint, closure, store
from pri3d.artefacts import CHUNKS, CLOUDS, PAIRS
from pri3d.config import PRETRAIN_HOW, Pretrain
from pri3d.errors import Pri3DError
from pri3d.pretrain.metrics import SKIPPED, Metrics, line, skipped, sums
from pri3d.pretrain.modes import MODES, networks, total
from pri3d.pretrain.samples import Batch, PairSamples, collate


def run(
    pairs: Path, clouds_dir: Path, chunks_dir: Path, out: Path, mode: str, settings: Pretrain
) -> None:
    """Train and leave `model.safetensors`, `settings.json`, `provenance.json`, `metrics.jsonl`,
    TensorBoard events and `checkpoints/` in the folder `out`.

    mode: "view", "geo" or "joint" (`modes`); chunks_dir is not read for "view". A run found in
    `out` goes on. Raises Pri3DError when an input is missing or does not fit, when the run found
    was made with other settings or inputs, when the loss is not finite, when nothing could be
    trained on, and when the run is asked to stop (SIGTERM, SIGINT; after writing a checkpoint).
    """
    out = Path(out)
    device = _device(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    samples = PairSamples(pairs, clouds_dir, chunks_dir, mode, settings)
    inputs = _inputs(pairs, samples)
    made_from = {"mode": mode, "settings": settings.model_dump(), "inputs": inputs}
    made_from["code"] = closure.code_digest("pri3d.training")

    torch.manual_seed(settings.seed)
    nets = networks(mode, settings).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        nets.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        dampening=settings.dampening,
        weight_decay=settings.weight_decay,
    )
    start, history = 0, ""
    window, ever = Counter(), Counter()  # sums since the last line of metrics, and of the whole run
    found = checkpoint.newest(out / "checkpoints")
    if found is not None and _goes_on(*found, made_from, out):
        _, state = found
        nets.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        _set_random_state(state["random"])
        start, history = state["step"], state["metrics"]
        window, ever = Counter(state["window"]), Counter(state["ever"])

    closing = multiprocessing.Event()
    batches = iter(
        DataLoader(
            samples,
            batch_size=settings.batch,
            sampler=range(start * settings.batch, len(samples)),
            num_workers=settings.workers,
            collate_fn=collate,
            worker_init_fn=functools.partial(_outlive_signals, closing),
            generator=torch.Generator(),  # without one it draws from the generator of the weights
            pin_memory=device.type == "cuda",
        )
    )
    nets.train()
    with (
        _stop_requests(closing) as requests,
        Metrics(out, history) as metrics,
        tqdm(total=settings.steps, initial=start, unit="step", desc=mode, disable=None) as bar,
    ):
        for step in range(start + 1, settings.steps + 1):
            began = time.perf_counter()
            batch = _next(batches)
            window["waited_s"] += time.perf_counter() - began
            batch = _move(batch, device)
            lr = learning_rate(settings, step)
            for group in optimizer.param_groups:
                group["lr"] = lr

            terms = MODES[mode](nets, batch, settings) if len(batch.image_a_BCHW) else {}
            loss = total(terms)
            if loss is not None:
                if not math.isfinite(loss.item()):
                    raise Pri3DError(
                        f"{out}: the loss is {loss.item()} at step {step} (samples: "
                        f"{'; '.join(batch.names)}); look at these samples, or lower pretrain.lr"
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                window.update(updates=1, loss=loss.item())
                ever["updates"] += 1

            for name, term in terms.items():
                window.update(sums(name, term))
            ever.update(SKIPPED + reason for reason in batch.skipped)
            seconds = time.perf_counter() - began
            for counts in (window, ever):
                counts.update(pairs=len(batch.names), seconds=seconds)
            bar.update()
            last = step == settings.steps
            if step % settings.log_every == 0 or last:
                figures = line(step, lr, window, ever, device)
                metrics.write(figures)
                bar.set_postfix({k: v for k, v in figures.items() if k.endswith("recall")})
                window.clear()
            stop = bool(requests) and not last
            if step % settings.checkpoint_every == 0 or last or stop:
                state = {
                    "step": step,
                    "model": nets.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "random": _random_state(),
                    "metrics": metrics.text,
                    "window": dict(window),
                    "ever": dict(ever),
                    "made_from": json.dumps(made_from),
                }
                path = checkpoint.save(out / "checkpoints", step, state)
            if stop:
                raise Pri3DError(
                    f"{out}: stopped by {requests[0]} after step {step} of {settings.steps}; run "
                    f"the same again to go on from {path}"
                )

    if not ever["updates"]:
        reasons = ", ".join(f"{reason} ({n})" for reason, n in skipped(ever).items())
        raise Pri3DError(
            f"{out}: nothing could be trained on: {reasons}; look at pretrain.radius_m and at the "
            "scans"
        )
    checkpoint.save_json(out / "settings.json", {"mode": mode, **settings.model_dump()})
    versions = {"pri3d": pri3d.__version__, "torch": torch.__version__}
    checkpoint.save_json(out / "provenance.json", {**inputs, "versions": versions})
    checkpoint.save_weights(out / "model.safetensors", nets)


def learning_rate(settings: Pretrain, step: int) -> float:
    """Polynomial decay; steps are counted from 1 (Pri3D's code: power 0.9, every iteration)."""
    return settings.lr * (1 - (step - 1) / (settings.steps + 1)) ** settings.power


def _device(wanted: str) -> torch.device:
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise Pri3DError(
            "pretrain.device: cuda is asked for and torch sees no GPU here; run it on a machine "
            "with one, or set it to auto or cpu (slow)"
        )
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


def _inputs(pairs: Path, samples: PairSamples) -> dict[str, Any]:
    """Digests of everything that is trained on, and of what that was made from."""
    clouds = {s: _origin(samples.clouds_dir / f"{s}.h5", CLOUDS) for s in samples.used_scenes()}
    inputs = {"pairs": _origin(pairs, PAIRS), "clouds": clouds}
    if samples.with_geo:
        inputs["chunks"] = {}
        for scene in clouds:
            path = samples.chunks_dir / f"{scene}.h5"
            inputs["chunks"][scene] = _origin(path, CHUNKS)
            if inputs["chunks"][scene]["inputs"].get("clouds") != clouds[scene]["digest"]:
                raise Pri3DError(
                    f"{path}: was made from other clouds than {samples.clouds_dir / path.name}; "
                    "run chunks again"
                )
    return inputs


def _origin(path: Path, format: str) -> dict[str, Any]:
    with store.open_artefact(path, format) as file:
        return {"digest": str(file.attrs["digest"]), "inputs": json.loads(file.attrs["inputs"])}


def _goes_on(path: Path, state: dict, made_from: dict, out: Path) -> bool:
    """Whether the run of a checkpoint is this one; Pri3DError if it is another one.

    A finished run whose weights were removed is no obstacle: they are to be made anew. Code that
    changed under an unfinished run is told, and no reason to lose it.
    """
    before = json.loads(state["made_from"])
    differences = [] if before["mode"] == made_from["mode"] else ["the mode"]
    for name, value in made_from["settings"].items():
        old = before["settings"].get(name)
        if old != value and name not in PRETRAIN_HOW:
            differences.append(f"pretrain.{name} ({old} then, {value} now)")
    for name in ("pairs", "clouds", "chunks"):
        if before["inputs"].get(name) != made_from["inputs"].get(name):
            differences.append(f"the content of {name}")
    finished = state["step"] >= before["settings"]["steps"]
    if before.get("code") != made_from["code"]:
        if finished:
            differences.append("the code")
        else:
            print(f"{out}: going on, but with other code than before", file=sys.stderr)
    if not differences:
        return True
    if finished and not (out / "model.safetensors").exists():
        print(f"{out}: beginning anew, changed: {', '.join(differences)}", file=sys.stderr)
        checkpoint.remove_all(out / "checkpoints")
        return False
    raise Pri3DError(
        f"{path}: is of a run that differs in {', '.join(differences)}; put that back to go on, or "
        f"remove {out} to begin anew"
    )


def _random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def _next(batches: Iterator[Batch]) -> Batch:
    try:
        return next(batches)
    except Pri3DError as error:  # torch wraps what a worker raised into the worker's traceback
        message = str(error).strip().splitlines()[-1]
        raise Pri3DError(message.removeprefix("pri3d.errors.Pri3DError: ")) from None


def _move(value: Any, device: torch.device) -> Any:
    """A batch with all its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if hasattr(value, "_fields"):
        return type(value)(*(_move(part, device) for part in value))
    return value


@contextlib.contextmanager
def _stop_requests(closing: multiprocessing.synchronize.Event) -> Iterator[list[str]]:
    """A list that gets the name of the first SIGTERM or SIGINT; a second one ends at once.

    `closing` is set at the end, whatever it is: from then on workers may be ended by signals.
    """
    requests: list[str] = []
    before: dict[int, Any] = {}

    def note(number, _):
        requests.append(signal.Signals(number).name)
        for each, handler in before.items():
            signal.signal(each, handler)

    try:
        if threading.current_thread() is threading.main_thread():  # others may not handle signals
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, note)
        yield requests
    finally:
        closing.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _outlive_signals(closing: multiprocessing.synchronize.Event, _: int) -> None:
    """In a worker: a signal to the whole group must not take from the trainer its last batch."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if closing.is_set() else None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
