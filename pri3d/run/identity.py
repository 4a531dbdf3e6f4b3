"""What determines a run, and whether a run that exists is the requested one."""

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from pri3d import config
from pri3d.config import RUNTIME, Pretrain, Task, unused_settings, used_settings
from pri3d.errors import Pri3DError
from pri3d.run import checkpoint, processes
from pri3d.run.folder import CHECKPOINTS, WEIGHTS, Kind, Run

log = logging.getLogger(__name__)

_TEXTS = {
    "name": "the mode or task",
    "held_out": "held_out",
    "weights": "the initial weights",
}


class Identity(NamedTuple):
    """All that determines the result of a run, but for its code, which can change while it is not
    finished.

    name: mode or task. settings: of `pretrain` or of the task. steps: number of steps. inputs: as
    in `Provenance.inputs`. weights: setting or network -> SHA-256 of the file of initial weights.
    held_out: scans that are not trained on. code: digest of the code.
    """

    kind: Kind
    name: str
    settings: dict[str, Any]
    steps: int
    inputs: dict[str, Any]
    weights: dict[str, str]
    held_out: list[str]
    code: str

    @property
    def section(self) -> str:
        """The section of the settings."""
        return "pretrain" if self.kind == "pretrain" else config.TASKS[self.name].kind

    def ignored(self) -> set[str]:
        """Settings that do not change the result."""
        if self.kind == "pretrain":
            return set(Pretrain.model_fields) - used_settings(self.name)
        section: Task = getattr(config.Settings(), self.section)
        return set(unused_settings(type(section).model_validate(self.settings)))


def differences(before: Identity, now: Identity) -> list[str]:
    """In what a run differs from the requested one, other than its code; texts for a message."""
    found = []
    if before.name == now.name:
        ignored = now.ignored()
        if now.kind == "finetune":  # the path may differ if the content is the same
            ignored = ignored | {"initial_weights"} if before.weights == now.weights else ignored
        # Settings that are newer than the run had the values of their defaults.
        defaults = _defaults(now)
        settings_before = defaults | before.settings
        found = [
            f"{now.section}.{name} ({settings_before.get(name)} before, {value} now)"
            for name, value in now.settings.items()
            if settings_before.get(name) != value and name not in ignored
        ]
    found += [text for key, text in _TEXTS.items() if getattr(before, key) != getattr(now, key)]
    for kind in {**before.inputs, **now.inputs}:
        if before.inputs.get(kind) != now.inputs.get(kind):
            found.append(f"the content of {kind}")
    return found


def _defaults(identity: Identity) -> dict[str, Any]:
    section: Pretrain | Task = getattr(config.Settings(), identity.section)
    return section.model_dump()


def load_checkpoint_of(out: Path, identity: Identity) -> dict[str, Any] | None:
    """The newest checkpoint of the run in the folder `out`, if it is the run `identity`.

    If the weights of a finished run were removed and something has changed, its checkpoints are
    removed too, and the run starts from scratch. Code that changed under an unfinished run is
    logged, and the run resumes.

    Raises:
        Pri3DError: the folder holds an unfinished run that differs, or the processes see different
            folders.
    """
    folder = out / CHECKPOINTS
    newest = checkpoint.newest(folder)
    steps = processes.gather(newest and newest[1]["step"])  # before anybody removes anything
    if len(set(steps)) > 1:
        raise Pri3DError(
            f"{folder}: the processes found checkpoints of different steps ({steps}); the folder "
            "must be one that all machines share"
        )
    if newest is None:
        return None
    path, state = newest
    if "identity" not in state:
        raise Pri3DError(
            f"{path}: was written by version 0.1; finish the run with that version, or remove "
            f"{out} to train from scratch"
        )
    before = Identity(**json.loads(state["identity"]))
    found = differences(before, identity)
    finished = state["step"] >= before.steps
    if before.code != identity.code:
        if finished:
            found.append("the code")
        else:
            log.warning("%s: resuming with code that has changed", out)
    if not found:
        return state
    if finished and not (out / WEIGHTS).exists():
        log.info("%s: starting from scratch, changed: %s", out, ", ".join(found))
        checkpoint.remove_all(folder)
        return None
    raise Pri3DError(
        f"{path}: is of a run that differs in {', '.join(found)}; restore that to resume, or "
        f"remove {out} to train from scratch"
    )


def identity_of(run: Run, steps: int) -> Identity:
    """The identity of a finished run, from its folder. steps: if its settings do not say them.

    Raises:
        Pri3DError: the run is not finished.
    """
    name = run.mode or run.task
    if run.provenance is None or name is None:
        raise Pri3DError(f"{run.folder}: is not finished; run the same training again to resume")
    weights = {
        part: each.sha256
        for part, each in run.provenance.initial_weights.items()
        if each.sha256 is not None
    }
    return Identity(
        kind=run.kind,
        name=name,
        settings=run.settings.model_dump(),
        steps=run.settings.steps or steps,
        inputs=run.provenance.inputs,
        weights=weights,
        held_out=[],
        code=run.provenance.code or "",
    )


def runtime_free(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without those of how a training is computed."""
    return {name: value for name, value in settings.items() if name not in RUNTIME}
