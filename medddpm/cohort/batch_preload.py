"""Loaded by dask into each worker that is a job of a batch system; imports no PyTorch."""

from __future__ import annotations

import os
import signal
from typing import Any

from medddpm.cohort.claims import hand_back


def dask_setup(_worker: Any) -> None:
    """Hand the scan back at once when the job is cancelled or its time is over.

    Python would end at the signal without a word, and a worker on another machine could not know
    that the claim is void before it had been silent for minutes.
    """

    def end(number: int, _frame: Any) -> None:
        hand_back()
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, end)
