"""No value of a header in a log: pydicom's warnings quote what breaks the standard."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_MODULES = r"pydicom(\..*)?$"
_LOGGERS = (
    "pydicom",
    "pydicom.pixels.utils",
    "pydicom.pixels.decoders.base",
    "pydicom.pixels.encoders.base",
)
_reading = threading.local()


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence what pydicom warns of and logs while the block runs, in this thread.

    That is frequent, does not change what is read here, and quotes values, which may name a
    patient: a date of birth in another form, an age.
    """
    _mute_log()
    _reading.depth = getattr(_reading, "depth", 0) + 1
    try:
        if threading.current_thread() is threading.main_thread():
            with warnings.catch_warnings():
                mute_warnings()
                yield
        else:  # catch_warnings of one thread would undo that of another: it stays
            mute_warnings()
            yield
    finally:
        _reading.depth -= 1


def mute_warnings() -> None:
    """Ignore pydicom's warnings from here on; more than once does no harm."""
    warnings.filterwarnings("ignore", module=_MODULES)


class _Mute(logging.Filter):
    """Drops the records of a thread that reads for us; those of others are theirs."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_reading, "depth", 0)


_MUTE = _Mute()


def _mute_log() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_MUTE)
