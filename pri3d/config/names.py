"""Names of modes and tasks in settings, checked against the records."""

import difflib
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from pri3d.config.modes import MODES
from pri3d.config.tasks import KINDS, TASKS


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """The message about a name that is not known: the nearest one, and all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"there is no {what} {name}; {hint}known: {', '.join(names)}"


def _one_of(what: str, known: list[str]) -> tuple[AfterValidator, WithJsonSchema]:
    def check(name: str) -> str:
        if name not in known:
            raise ValueError(unknown_name(what, name, known))
        return name

    return AfterValidator(check), WithJsonSchema({"type": "string", "enum": known})


def _tasks_of(network: str) -> list[str]:
    return [name for name, task in TASKS.items() if KINDS[task.kind].network == network]


_MODE = _one_of("mode", list(MODES))
_TASK = _one_of("task", list(TASKS))
_TASK_2D = _one_of("2D task", _tasks_of("network2d"))
_TASK_3D = _one_of("3D task", _tasks_of("network3d"))

ModeName = Annotated[str, _MODE[0], _MODE[1]]
TaskName = Annotated[str, _TASK[0], _TASK[1]]
Task2dName = Annotated[str, _TASK_2D[0], _TASK_2D[1]]
Task3dName = Annotated[str, _TASK_3D[0], _TASK_3D[1]]
