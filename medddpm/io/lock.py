"""One process at a time: a lock of the operating system's, which nobody's death leaves behind."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from medddpm.errors import OutputError


def lock_of(path: Path) -> FileLock | None:
    """The lock of a file, held until it is released; None where another process holds it.

    Args:
        path: The lock file; it and its folder are made.

    Raises:
        OutputError: It cannot be written, or lies on a file system without locks.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except NotImplementedError:
        raise OutputError(f"{path} lies on a file system without locks; use another") from None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    return lock
