"""The settings of one training: a file's, with changes that the command line makes (`--set`)."""

from typing import Any

from pri3d.config.finetune import Task
from pri3d.config.keys import merged, nested
from pri3d.config.names import unknown_name
from pri3d.config.pretrain import Pretrain
from pri3d.config.renamed import RENAMED, renamed_message
from pri3d.config.settings import (
    INHERITS,
    NOT_INHERITED,
    Settings,
    changed,
    parse,
    section_class,
    unknown_key,
)
from pri3d.config.tasks import TASKS
from pri3d.errors import Pri3DError


def pretrain_settings(
    raw: dict[str, Any], variant: str, changes: dict[str, Any]
) -> tuple[str, Pretrain]:
    """The mode and the settings of a pretraining.

    Args:
        raw: settings as a mapping.
        variant: a mode, or an entry of `variants`.
        changes: key -> value, over those of `raw`; `lr` and `pretrain.lr` are the same, and keys of
            `training` reach the pretraining by inheritance.

    Raises:
        Pri3DError: there is no such variant, a key does not apply, or a value is wrong.
    """
    own, shared = _split(changes, "pretrain", f"variants.{variant}")
    settings = parse(merged(nested(raw), shared))
    try:
        mode = settings.mode_of(variant)
        return mode, changed(settings.of_variant(variant), own, "pretrain")
    except ValueError as error:
        raise Pri3DError(str(error)) from None


def task_settings(raw: dict[str, Any], task: str, changes: dict[str, Any]) -> Task:
    """The settings of a finetuning task.

    Args:
        raw: settings as a mapping.
        task: a key of TASKS.
        changes: key -> value, over those of `raw`; `lr` and `<section of the task>.lr` are the
            same, and keys of `training` and `finetune` reach the task by inheritance.

    Raises:
        Pri3DError: there is no such task, a key does not apply, or a value is wrong.
    """
    if task not in TASKS:
        raise Pri3DError(unknown_name("task", task, TASKS))
    kind = TASKS[task].kind
    own, shared = _split(changes, kind, f"tasks.{task}")
    settings = parse(merged(nested(raw), shared))
    try:
        return changed(settings.of_task(task), own, kind)
    except ValueError as error:
        raise Pri3DError(str(error)) from None


def _split(
    changes: dict[str, Any], section: str, owner: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Changes of the section itself, and of the sections that it inherits from, both nested."""
    fields = section_class(section).model_fields
    own: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    for given, value in changes.items():
        key = given.removeprefix(f"{owner}.").removeprefix(f"{section}.")
        head, _, rest = key.partition(".")
        if head in fields:
            own[key] = value
        elif head in INHERITS[section] and rest in fields:
            if rest in NOT_INHERITED:  # in `finetune` it is a list of names, for the workflow
                own[rest] = value
            else:
                shared[key] = value
        else:
            raise Pri3DError(_refusal(given, key, section))
    return nested(own), nested(shared)


def _refusal(given: str, key: str, section: str) -> str:
    """The message about a key that is no setting of a section or of what it inherits from."""
    for old in (given, f"{section}.{key}"):
        if old in RENAMED:
            return renamed_message(given, RENAMED[old].removeprefix(f"{section}."))
    head, _, rest = key.partition(".")
    if not rest:
        return unknown_key(f"{section}.{key}", section_class(section))
    if head in INHERITS[section]:
        return unknown_key(key, section_class(head))
    if head in Settings.model_fields:
        used = ", ".join((section, *INHERITS[section], "network2d", "network3d"))
        return f"setting {given} does not apply here; settings of {used} do"
    return unknown_key(given, Settings)
