"""Ctrl-C and SIGTERM as a wish to stop, not as an end in the middle of something."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets: what is cut in half could not be resumed exactly.

    A second signal raises KeyboardInterrupt at once. Outside the main thread, and for a signal that
    is ignored (as Ctrl-C is in the background of a script), nothing changes.
    """
    wanted = threading.Event()

    def ask(number: int, frame: object) -> None:
        if wanted.is_set():
            raise KeyboardInterrupt
        wanted.set()

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, ask)
    try:
        yield wanted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
