"""The command line: one verb per stage. A stage is imported only when its verb is called.

Exit status: 0 done; 1 the work could not be done (one line on stderr); 2 wrong usage; 130
interrupted. Results go to stdout, everything else to stderr.

    options    options that verbs share; settings as options, and back
    messages   what the package logs, on stderr
    training   what the verbs that train share
    workflow   run
    scans      demo, sens, clouds, overlap, pairs, chunks, correspondences
    pretrain   pretrain
    data       data check, data split, data demo
    finetune   finetune, probe, predict
    evaluate   evaluate
    weights    export, import
    report     report, verify, settings
"""

import os
import sys
from pathlib import Path

# In the order of --help.
# isort: off
from pri3d.cli import workflow, scans, pretrain, data, finetune, evaluate, weights, report

# isort: on
from pri3d.cli.options import app, assignments, options
from pri3d.errors import Pri3DError
from pri3d.run.launch import ERROR_FILE

__all__ = [
    "app",
    "assignments",
    "data",
    "evaluate",
    "finetune",
    "main",
    "options",
    "pretrain",
    "report",
    "scans",
    "weights",
    "workflow",
]


def main() -> None:
    """Run `pri3d` and exit with its status."""
    try:
        app(prog_name="pri3d")
    except Pri3DError as error:
        _fail(str(error))
    except MemoryError:
        _fail("out of memory; use a machine with more of it, or fewer --threads")
    except OSError as error:  # no space, no permission, a disk that went away
        where = error.filename or "a damaged artefact (`pri3d verify` reports which)"
        _fail(f"{where}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
            raise
        _fail(
            "the GPU is out of memory: lower the setting micro_batch (for insseg also short_sides) "
            f"({str(error).splitlines()[0]})"
        )


def _fail(message: str) -> None:
    line = " ".join(["pri3d:", *message.split()])
    print(line, file=sys.stderr)
    if path := os.environ.get(ERROR_FILE):
        Path(path).write_text(line)
    sys.exit(1)
