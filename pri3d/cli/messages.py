"""Messages of the package on stderr."""

import logging
import sys


class _Stderr(logging.Handler):
    """Prints messages as they are, warnings with a prefix, on the present sys.stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else "pri3d: warning: "
        print(f"{prefix}{record.getMessage()}", file=sys.stderr)


def configure_logging() -> None:
    """Print what the package logs, from level INFO on."""
    logger = logging.getLogger("pri3d")
    if not any(isinstance(handler, _Stderr) for handler in logger.handlers):
        logger.addHandler(_Stderr())
    logger.setLevel(logging.INFO)
