"""The machine that a benchmark ran on."""

import os
import platform
from pathlib import Path


def machine() -> dict[str, str | int | None]:
    """Name of the processor, number of cores, version of Python."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
