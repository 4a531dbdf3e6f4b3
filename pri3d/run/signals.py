"""Requests to stop: a run that receives SIGTERM or SIGINT writes a checkpoint first."""

import contextlib
import multiprocessing.synchronize
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def stop_requests(closing: multiprocessing.synchronize.Event) -> Iterator[list[str]]:
    """A list to which the first SIGTERM or SIGINT adds its name; a second one ends the process.

    One of several processes ignores the second: a scheduler and `pri3d.run.launch` may both forward
    the same signal.

    Args:
        closing: set at the end, in any case; workers ignore signals until then.
    """
    requests: list[str] = []
    before: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        requests.append(signal.Signals(number).name)
        for each, handler in before.items():
            signal.signal(each, signal.SIG_IGN if "RANK" in os.environ else handler)

    try:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for each in (signal.SIGTERM, signal.SIGINT):
                before[each] = signal.signal(each, note)
        yield requests
    finally:
        closing.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals_until(closing: multiprocessing.synchronize.Event, _: int) -> None:
    """In a worker: a signal to the whole process group must not cost the trainer its last batch."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if closing.is_set() else None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
