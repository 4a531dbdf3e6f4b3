"""What every rule shares: the settings, the scans, and how the package is called."""

import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# The package beside this workflow, in the Python that runs Snakemake; with --sdm conda in the
# environment of envs/, which Snakemake then puts in front.
sys.path.insert(0, workflow.basedir)
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
pri3d = f"PYTHONPATH={shlex.quote(workflow.basedir)} python -m pri3d"

from pri3d.cli import assignments, options
from pri3d.closure import code_digest
from pri3d.config import parse as parse_settings
from pri3d.errors import Pri3DError

MODES = ["view", "geo", "joint"]

try:
    settings = parse_settings(config)
except Pri3DError as error:
    raise WorkflowError(str(error))
