"""Fixtures that several test files share."""

import os
from pathlib import Path

import checked_types
import pytest

checked_types.install()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans and golden vectors, or a skip that says what is missing."""
    folder = os.environ.get("PRI3D_REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PRI3D_REAL_DATA is not set to a folder of real scans")
    return Path(folder)
