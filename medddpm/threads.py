"""How the threads of OpenMP behave: set before torch loads, since OpenMP reads it only once.

Threads that spin while they wait for each other are the default of GNU OpenMP. On a machine that
has other work they take the processor from the very thread that they wait for: two restorations
at once then take four times as long as one.
"""

from __future__ import annotations

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu")


def set_up(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let waiting threads sleep, and start no more of them than this process may use.

    What the user has set stays. Processes that this one starts inherit both.

    Args:
        environ: Where the settings are read and put.
    """
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "OMP_NUM_THREADS" not in environ and available_cores(environ) < affinity():
        environ["OMP_NUM_THREADS"] = str(available_cores(environ))


def available_cores(environ: MutableMapping[str, str] = os.environ) -> int:
    """Cores that this process may use: the least of affinity, cgroup quota and Slurm's share."""
    limits = [affinity(), _quota(), _slurm(environ)]
    return max(1, min(limit for limit in limits if limit))


def affinity() -> int:
    """Cores that the scheduler of the operating system gives this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota() -> int:
    """Cores of the cgroup, as containers are given them; 0 if there is no limit."""
    try:
        if _CGROUP_V2.is_file():
            quota, period = _CGROUP_V2.read_text().split()[:2]
        else:
            quota = (_CGROUP_V1 / "cpu.cfs_quota_us").read_text()
            period = (_CGROUP_V1 / "cpu.cfs_period_us").read_text()
        return max(0, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # no cgroup, or "max"
        return 0


def _slurm(environ: MutableMapping[str, str]) -> int:
    """Cores that Slurm gave the task; 0 if it did not say."""
    value = environ.get("SLURM_CPUS_PER_TASK", "")
    return int(value) if value.isdigit() else 0
