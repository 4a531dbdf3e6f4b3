"""The command line: one verb a stage. A stage is imported only when its verb is called.

Exit status: 0 done; 1 the work could not be done (one line on stderr); 2 wrong usage; 130
interrupted. Results of `--json` go to stdout, everything else to stderr.

    words      settings as options, and back
    scans      raw scans to pairs and chunks
    networks   pretraining, its evaluation, weights in and out
    labels     labelled data, finetuning, predictions
    results    the report, verification
"""

import os
import sys
from pathlib import Path

# In the order of --help.
# isort: off
from pri3d.cli import scans, networks, labels, results

# isort: on
from pri3d.cli.options import app, assignments, options
from pri3d.errors import Pri3DError
from pri3d.run.launch import ERROR_FILE

__all__ = ["app", "assignments", "labels", "main", "networks", "options", "results", "scans"]


def main() -> None:
    try:
        app(prog_name="pri3d")
    except Pri3DError as error:
        _fail(str(error))
    except MemoryError:
        _fail("out of memory; use a machine with more of it, or fewer --threads")
    except OSError as error:  # no space, no permission, a disk that went away
        where = error.filename or "a damaged artefact (`pri3d verify` tells which)"
        _fail(f"{where}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
            raise
        _fail(
            "the GPU is out of memory: lower pretrain.micro_batch, or semseg.batch, insseg.batch "
            f"and insseg.short_sides ({str(error).splitlines()[0]})"
        )


def _fail(message: str) -> None:
    said = " ".join(["pri3d:", *message.split()])
    print(said, file=sys.stderr)
    if path := os.environ.get(ERROR_FILE):
        Path(path).write_text(said)
    sys.exit(1)
