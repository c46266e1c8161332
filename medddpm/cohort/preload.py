"""Loaded by dask into each local worker before its first scan."""

from __future__ import annotations

import signal
from typing import Any

import medddpm.cohort.job  # noqa: F401  # PyTorch: loaded while the worker starts, not in a scan


def dask_setup(_worker: Any) -> None:
    """Leave signals to the main process: a batch system and Ctrl-C send them to all at once.

    The worker then goes on with its scan until the main process ends it, or dies with that.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
