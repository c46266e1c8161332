from __future__ import annotations

import signal
import threading

import pytest

from medddpm.signals import stop_requests


def test_the_second_signal_interrupts() -> None:
    with stop_requests() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_outside_the_main_thread_and_for_what_is_ignored_nothing_changes() -> None:
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_requests():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, usual)
    found = []
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with stop_requests():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]
    assert signal.getsignal(signal.SIGTERM) is before
