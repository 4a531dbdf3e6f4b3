"""What the verbs that train share: one process or several, and the last line of the metrics."""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import typer


def train(out: Path, number: int, run: Callable[[], None]) -> None:
    """Train, and print the last line of the metrics.

    The first call for several processes starts them, with the words of this command line; each of
    them calls this again.

    Args:
        out: folder of the run.
        number: number of processes.
        run: trains in this process.

    Raises:
        typer.Exit: several processes were started here, and have ended.
    """
    if number > 1 and "RANK" not in os.environ:
        from pri3d.run.launch import launch

        raise typer.Exit(launch(sys.argv[1:], number))
    from pri3d import store
    from pri3d.run.folder import METRICS

    is_first = os.environ.get("RANK", "0") == "0"
    with store.sole_writer(out) if is_first else contextlib.nullcontext():
        run()
    if is_first:
        print((out / METRICS).read_text().splitlines()[-1])
