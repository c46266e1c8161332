"""Most memory that a block of code held, beyond what the process held before it."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_KIB_A_GB = 1e9 / 1024


class MemoryMeter:
    """Measures the growth of the resident memory of the process, in GB (1e9 bytes).

    On Linux the kernel's own high-water mark is set back first, so memory of compiled code
    counts. Elsewhere only growth over all that the process ever held is seen.

    Example:
        >>> with MemoryMeter() as memory:
        ...     _ = bytearray(10)
        >>> memory.peak_gb >= 0
        True
    """

    def __init__(self) -> None:
        self.peak_gb = 0.0
        self._before = 0.0

    def __enter__(self) -> MemoryMeter:
        with suppress(OSError):
            _RESET.write_text("5", encoding="ascii")  # proc(5): VmHWM becomes VmRSS
        self._before = _high_water_gb()
        return self

    def __exit__(self, *_: object) -> None:
        self.peak_gb = max(_high_water_gb() - self._before, 0.0)


def _high_water_gb() -> float:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        mark = next(float(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        return mark / _KIB_A_GB
    except (OSError, StopIteration):
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used / (1e9 if sys.platform == "darwin" else _KIB_A_GB)
