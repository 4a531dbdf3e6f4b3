"""What the figures of a benchmark were measured on."""

import os
import platform
from pathlib import Path


def machine() -> dict:
    """Name of the processor, number of cores, version of Python."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
