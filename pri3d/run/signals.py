"""Requests to stop: a run that gets SIGTERM or SIGINT writes a checkpoint first."""

import contextlib
import multiprocessing.synchronize
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def stop_requests(closing: multiprocessing.synchronize.Event) -> Iterator[list[str]]:
    """A list that gets the name of the first SIGTERM or SIGINT; a second one ends at once.

    One of several processes ignores more of them: a scheduler and what started the processes may
    both pass on the same signal.

    `closing` is set at the end, whatever it is: from then on workers may be ended by signals.
    """
    requests: list[str] = []
    before: dict[int, Any] = {}

    def note(number, _):
        requests.append(signal.Signals(number).name)
        for each, handler in before.items():
            signal.signal(each, signal.SIG_IGN if "RANK" in os.environ else handler)

    try:
        if threading.current_thread() is threading.main_thread():  # others may not handle signals
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, note)
        yield requests
    finally:
        closing.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals_until(closing: multiprocessing.synchronize.Event, _: int) -> None:
    """In a worker: a signal to the whole group must not take from the trainer its last batch."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if closing.is_set() else None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
