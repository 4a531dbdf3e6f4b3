"""A finished finetuning run on clouds, read back."""

import json
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pri3d.config import TASKS, Det3d, Semseg3d, Settings
from pri3d.errors import Pri3DError
from pri3d.run.checkpoint import first_line
from pri3d.sparse.convolution import use_engine


def task_of(run: Path) -> str:
    """The task of a finished run. Raises Pri3DError when the folder holds none."""
    try:
        task = json.loads((run / "settings.json").read_text())["task"]
        TASKS[task]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _none(run, error) from None
    return task


def load_run(
    run: Path, networks: Callable[[Semseg3d | Det3d], nn.ModuleDict], engine: str = "torch"
) -> tuple[Semseg3d | Det3d, nn.ModuleDict]:
    """Settings and trained networks of a finished run. networks: makes them for its settings;
    engine: setting `sparse.engine`.

    Raises Pri3DError when the folder holds none, or the engine is not installed.
    """
    try:
        given = json.loads((run / "settings.json").read_text())
        settings = type(getattr(Settings(), TASKS[given.pop("task")].kind)).model_validate(given)
        nets = networks(settings)
        use_engine(nets, engine)
        nets.load_state_dict(load_file(run / "model.safetensors"))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _none(run, error) from None
    return settings, nets.eval()


def _none(run: Path, error: Exception) -> Pri3DError:
    return Pri3DError(
        f"{run}: is no finished finetuning run ({first_line(error)}); give a folder that "
        "`pri3d finetune` has filled"
    )
