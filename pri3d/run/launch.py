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

WATCH_S = 0.2  # between looks at the processes
ERROR_FILE = "PRI3D_ERROR_FILE"  # names a file for what a process that fails says
SHUTDOWN_TIMEOUT_S = 60  # for the others to end by themselves after one has failed


def launch(words: Sequence[str], number: int) -> int:
    """Run `pri3d words...` in so many processes; the status of the first one that failed, or 0.

    They learn who is who from the environment, as under `torchrun`. The first one's output is
    shown, of the others the last line of one that failed by itself. SIGTERM and SIGINT are passed
    on. When one fails the others are ended: they would wait for it for ever.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(number)}
    with contextlib.ExitStack() as stack:
        first_words = stack.enter_context(tempfile.NamedTemporaryFile("r"))
        said = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(number)]
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "pri3d", *words],
                env=os.environ
                | place
                | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                | ({ERROR_FILE: first_words.name} if rank == 0 else {}),
                stdout=None if rank == 0 else subprocess.DEVNULL,
                stderr=None if rank == 0 else said[rank],
                start_new_session=True,  # a Ctrl-C comes once, from here
            )
            for rank in range(number)
        ]

        def pass_on(number, _):
            for process in started:
                if process.poll() is None:
                    process.send_signal(number)

        for each in (signal.SIGTERM, signal.SIGINT):
            stack.callback(signal.signal, each, signal.signal(each, pass_on))
        failed = _watch(started)
        if failed:  # the first one has spoken for itself
            said[failed].seek(0)
            last = said[failed].read().splitlines()[-1:]
            if last != [first_words.read()]:  # which has been shown
                print(*last, file=sys.stderr)
        return 0 if failed is None else started[failed].returncode


def _watch(started: list[subprocess.Popen]) -> int | None:
    """Wait for all; which one failed first, if one did."""
    failed, deadline = None, None
    while any(process.poll() is None for process in started):
        time.sleep(WATCH_S)
        codes = [process.poll() for process in started]
        if failed is None:
            failed = next((rank for rank, code in enumerate(codes) if code), None)
        if failed is not None and deadline is None:
            deadline = time.monotonic() + SHUTDOWN_TIMEOUT_S
        if deadline is not None and time.monotonic() > deadline:
            for process in started:
                process.kill()
    if failed is None:
        failed = next((rank for rank, p in enumerate(started) if p.returncode), None)
    return failed
