"""Several training processes on this machine, started and watched as one."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import FrameType
from typing import IO

POLL_S = 0.2  # between looks at the processes
ERROR_FILE = "PRI3D_ERROR_FILE"  # names a file for the error message of a process that fails
SHUTDOWN_TIMEOUT_S = 60  # for the others to end by themselves after one has failed


def launch(words: Sequence[str], number: int) -> int:
    """Run `pri3d words...` in several processes.

    They learn their ranks from the environment, as under `torchrun`. Shown are the output of the
    first one and, if another one fails first, the last line of its errors. SIGTERM and SIGINT are
    forwarded. If one fails the others are ended: they would wait for it forever.

    Args:
        words: arguments of the command line.
        number: number of processes.

    Returns:
        The exit status of the first process that failed, or 0.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(number)}
    with contextlib.ExitStack() as stack:
        shown_error = stack.enter_context(tempfile.NamedTemporaryFile("r"))
        errors = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(number)]
        processes = [
            _start(words, address, rank, errors[rank], shown_error.name) for rank in range(number)
        ]

        def forward(signal_number: int, _: FrameType | None) -> None:
            for process in processes:
                if process.poll() is None:
                    process.send_signal(signal_number)

        for each in (signal.SIGTERM, signal.SIGINT):
            stack.callback(signal.signal, each, signal.signal(each, forward))
        failed = _wait(processes)
        if failed:  # the error of the first process is shown already
            errors[failed].seek(0)
            last = errors[failed].read().splitlines()[-1:]
            if last != [shown_error.read()]:
                print(*last, file=sys.stderr)
        return 0 if failed is None else processes[failed].returncode


def _start(
    words: Sequence[str], address: dict[str, str], rank: int, errors: IO[str], shown_error: str
) -> subprocess.Popen[bytes]:
    own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    if rank == 0:
        own[ERROR_FILE] = shown_error
    return subprocess.Popen(
        [sys.executable, "-m", "pri3d", *words],
        env=os.environ | address | own,
        stdout=None if rank == 0 else subprocess.DEVNULL,
        stderr=None if rank == 0 else errors,
        start_new_session=True,  # so that Ctrl-C arrives once, forwarded from here
    )


def _wait(processes: list[subprocess.Popen[bytes]]) -> int | None:
    """Wait for all processes; the rank of the one that failed first, if one did."""
    failed, deadline = None, None
    while any(process.poll() is None for process in processes):
        time.sleep(POLL_S)
        codes = [process.poll() for process in processes]
        if failed is None:
            failed = next((rank for rank, code in enumerate(codes) if code), None)
        if failed is not None and deadline is None:
            deadline = time.monotonic() + SHUTDOWN_TIMEOUT_S
        if deadline is not None and time.monotonic() > deadline:
            for process in processes:
                process.kill()
    if failed is None:
        failed = next((rank for rank, p in enumerate(processes) if p.returncode), None)
    return failed
