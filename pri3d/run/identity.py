"""What determines a run, and whether a run in a folder is the requested one."""

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from pri3d.config import TASKS, Pretrain, Task, unused_settings, used_settings
from pri3d.errors import Pri3DError, first_line
from pri3d.run import checkpoint, processes
from pri3d.run.checkpoint import State
from pri3d.run.folder import (
    CHECKPOINTS,
    WEIGHTS,
    InitialWeights,
    Run,
    RunKind,
    is_run,
    read_run,
    settings_class,
)

_log = logging.getLogger(__name__)


class Identity(NamedTuple):
    """All that determines the result of a run.

    name: mode or task. settings: with the `micro_batch` that batch norm sees. inputs: as in
    `Provenance`. weights: network -> SHA-256 of the file of its initial weights. code: digest.
    """

    kind: RunKind
    name: str
    settings: Pretrain | Task
    inputs: dict[str, Any]
    weights: dict[str, str]
    code: str | None

    @property
    def section(self) -> str:
        """The section of the settings, for messages."""
        return "pretrain" if self.kind == "pretrain" else TASKS[self.name].kind

    def ignored(self) -> set[str]:
        """Settings that do not change the result."""
        if isinstance(self.settings, Pretrain):
            return set(Pretrain.model_fields) - used_settings(self.name)
        return set(unused_settings(self.settings))


def differences(before: Identity, now: Identity) -> list[str]:
    """In what two runs differ other than in their code, for a message; empty: in nothing."""
    if (before.kind, before.name) != (now.kind, now.name):
        return [f"the {'mode' if now.kind == 'pretrain' else 'task'}"]
    ignored = now.ignored()
    old_settings = before.settings.model_dump()
    differing = [
        f"{now.section}.{name} (was {old_settings[name]}, now {value})"
        for name, value in now.settings.model_dump().items()
        if old_settings[name] != value and name not in ignored
    ]
    if before.weights != now.weights:
        differing.append("the initial weights")
    old_inputs, inputs = _content(before.inputs), _content(now.inputs)
    differing += [
        f"the content of {kind}"
        for kind in dict.fromkeys([*old_inputs, *inputs])
        if old_inputs.get(kind) != inputs.get(kind)
    ]
    return differing


def is_finished(out: Path, identity: Identity) -> bool:
    """Whether the folder `out` holds the weights of this very run.

    Raises:
        Pri3DError: it holds weights of another run or of something else, or the processes see
            different folders.
    """
    exist = processes.gather((out / WEIGHTS).exists())  # before one of them changes anything
    if len(set(exist)) > 1:
        raise Pri3DError(
            f"{out}: must be a folder that all machines share; some find weights in it"
        )
    if not exist[0]:
        return False
    run = read_run(out) if is_run(out) else None
    if run is None or run.provenance is None:
        raise Pri3DError(
            f"{out}: holds weights that no finished run of this software wrote; choose another "
            "folder, or remove it"
        )
    before = _of_finished(run)
    differing = differences(before, identity)
    if before.code != identity.code:
        differing.append("the code")
    if differing:
        raise Pri3DError(
            f"{out}: is a finished run that differs in {', '.join(differing)}; choose another "
            "folder, or remove it"
        )
    return True


def load_matching_checkpoint(out: Path, identity: Identity) -> State | None:
    """The newest checkpoint of the run in the folder `out`, if it is the requested run.

    Checkpoints of another run are removed if that run was finished and its weights are gone: they
    are about to be made again. Code that changed under an unfinished run is reported.

    Raises:
        Pri3DError: the checkpoint is of another run, or of another version, and that run is not
            finished; or the processes see different checkpoints.
    """
    folder = out / CHECKPOINTS
    newest = checkpoint.newest(folder)
    # All processes have looked before one of them removes anything.
    steps = processes.gather(newest and newest[1]["step"])
    if len(set(steps)) > 1:
        raise Pri3DError(
            f"{folder}: the processes found checkpoints of different steps ({steps}); the folder "
            "must be one that all machines share"
        )
    if newest is None:
        return None
    path, state = newest
    finished = _is_last(state)
    try:
        before = _of_checkpoint(path, state)
    except Pri3DError:
        if not finished:
            raise
        differing = ["the version of pri3d"]
    else:
        differing = differences(before, identity)
        if before.code != identity.code and finished:
            differing.append("the code")
        if not differing:
            if before.code != identity.code:
                _log.warning("%s: resuming with other code than before", out)
            return state
    if finished:
        _log.info("%s: starting from scratch, changed: %s", out, ", ".join(differing))
        checkpoint.remove_all(folder)
        return None
    raise Pri3DError(
        f"{path}: is of a run that differs in {', '.join(differing)}; restore that to resume, or "
        f"remove {out} to start from scratch"
    )


def as_json(identity: Identity) -> str:
    """Text that `from_json` reads, for a checkpoint."""
    return json.dumps(identity._asdict() | {"settings": identity.settings.model_dump()})


def from_json(path: Path, text: str) -> Identity:
    """The identity in a checkpoint.

    Raises:
        Pri3DError: its settings are of another version of this software.
    """
    fields = json.loads(text)
    try:
        section = settings_class(fields["kind"], fields["name"])
        return Identity(**fields | {"settings": section.model_validate(fields["settings"])})
    except (KeyError, TypeError, ValidationError) as error:
        raise Pri3DError(
            f"{path}: is a checkpoint of another version ({first_line(error)}); finish the run "
            "with that version, or remove its folder to start from scratch"
        ) from None


def weights_of(initial_weights: dict[str, InitialWeights]) -> dict[str, str]:
    """Network -> SHA-256 of the file of its initial weights, of networks that have one."""
    return {
        network: each.sha256 for network, each in initial_weights.items() if each.sha256 is not None
    }


def _of_finished(run: Run) -> Identity:
    assert run.provenance is not None
    return Identity(
        kind=run.kind,
        name=run.mode or run.task or "",
        settings=run.settings,
        inputs=run.provenance.inputs,
        weights=weights_of(run.provenance.initial_weights),
        code=run.provenance.code,
    )


def _of_checkpoint(path: Path, state: State) -> Identity:
    if "identity" not in state:
        raise Pri3DError(
            f"{path}: is a checkpoint of version 0.1, which this version cannot resume; finish the "
            "run with that version, or remove its folder to start from scratch"
        )
    return from_json(path, state["identity"])


def _is_last(state: State) -> bool:
    """Whether a checkpoint is of the last step of its run."""
    if "steps" in state:
        return state["step"] >= state["steps"]
    before = json.loads(state["made_from"])  # of version 0.1
    return bool(state["step"] >= (before.get("steps") or before["settings"]["steps"]))


def _content(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs without the path of the data set, which may have moved."""
    return {
        kind: {name: {**each, "path": None} for name, each in value.items()}
        if kind == "dataset"
        else value
        for kind, value in inputs.items()
    }
