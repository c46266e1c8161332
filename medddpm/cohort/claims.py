"""Who works on a scan: one small file a claim, so that no two processes do the same work.

A claim on a key is a file `KEY.N`, made so that only one process can make it. The claim with the
highest N holds. A process that finds the holder dead makes N + 1, which again only one can; so a
takeover needs no removal, and no two processes can both take over.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HEARTBEAT_S = 20.0
SILENT_S = 300.0
"""A holder on another machine that did not touch its claim for so long is taken for dead."""
_WRITING_S = 10.0
"""A claim that says nothing is being written, where files cannot be linked, for so long at most."""

_NEW = "new"  # how files begin that are no claims
_held: dict[Path, Callable[[], None]] = {}


def _nothing() -> None:
    pass


@contextmanager
def claimed(
    folder: Path, key: str, run: str, undo: Callable[[], None] = _nothing
) -> Iterator[bool]:
    """Hold the claim on `key` while the block runs; yields False if another process holds it.

    Args:
        folder: Where claims lie, on a file system that all workers see.
        key: Names the work.
        run: Names the run that the work belongs to, for `release_run`.
        undo: Removes what is half done, if the process is told to end meanwhile (`hand_back`).
    """
    path = _take(folder, key, run)
    if path is None:
        yield False
        return
    _held[path] = undo
    stop = threading.Event()
    beat = threading.Thread(target=_keep_alive, args=(path, stop), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        stop.set()
        beat.join()
        _release(path)


def is_claimed(folder: Path, key: str) -> bool:
    """True if a living process holds the claim on `key`."""
    return any(holder_is_alive(folder / f"{key}.{number}") for number in _numbers(folder, key))


def release_run(folder: Path, run: str) -> list[str]:
    """Remove the claims of dead workers of a run; returns their keys."""
    keys = []
    for path in folder.glob(f"{_NEW}-{run}-*"):  # of a worker that was killed while it wrote
        path.unlink(missing_ok=True)
    for path in folder.glob("*.*"):
        if _owner(path).get("run") == run and not holder_is_alive(path):
            keys.append(path.stem)
            _release(path)
    return keys


def holder_is_alive(path: Path) -> bool:
    """True unless the process that made a claim is known to be gone, or silent for too long."""
    owner = _owner(path)
    if owner.get("place") == _place():
        return owner.get("born") == _born(int(owner.get("pid") or 0))
    try:
        longest = SILENT_S if owner else _WRITING_S
        return _now_of(path.parent) - path.stat().st_mtime < longest
    except OSError:
        return False


def _take(folder: Path, key: str, run: str) -> Path | None:
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for known in _numbers(folder, key):
        if holder_is_alive(folder / f"{key}.{known}"):
            return None
        number = max(number, known)
    path = folder / f"{key}.{number + 1}"
    pid = os.getpid()
    owner = {"place": _place(), "pid": pid, "born": _born(pid), "run": run}
    return path if _make_whole(path, json.dumps(owner), run) else None


def _make_whole(path: Path, text: str, run: str) -> bool:
    """Make a file with all of its content, or none of it; False if there is one already.

    A disk that is full leaves nothing: the name is given to a file that is written.
    """
    partial = path.with_name(f"{_NEW}-{run}-{uuid.uuid4().hex}")
    try:
        partial.write_text(text, encoding="utf-8")
        try:
            os.link(partial, path)
        except FileExistsError:
            # NFS may have made it, and repeated the call because the answer was lost
            return partial.stat().st_nlink == 2
        except OSError:  # a file system without links
            return _write_new(path, text)
        return True
    finally:
        partial.unlink(missing_ok=True)


def _write_new(path: Path, text: str) -> bool:
    """Write a file that is not there yet; nothing of it stays if that fails."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def _release(path: Path) -> None:
    """Remove a claim and the dead ones below it, itself last."""
    _held.pop(path, None)
    for number in _numbers(path.parent, path.stem):
        if number <= int(path.suffix[1:]):
            with suppress(OSError):
                (path.parent / f"{path.stem}.{number}").unlink()


def _numbers(folder: Path, key: str) -> list[int]:
    return sorted(int(p.suffix[1:]) for p in folder.glob(f"{key}.*"))


def _owner(path: Path) -> dict[str, str | int]:
    """Who made a claim; nothing where it is just being written, which only its age can judge."""
    try:
        owner: dict[str, str | int] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return owner


def _place() -> str:
    """Where numbers of processes mean the same: one boot of one machine, and one container in it.

    Containers often share a name of host, and none sees the processes of another.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _born(pid: int) -> str:
    """What tells a process from a later one with its number; "" if there is no such process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = stat.rpartition(")")[2].split()  # the name in brackets may hold anything
        return "" if fields[0] == "Z" else f"{boot}:{fields[19]}"  # proc(5): state, starttime
    except FileNotFoundError:
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "alive"


def _now_of(folder: Path) -> float:
    """The time by the clock of the file system, which also stamped the claims."""
    probe = folder / f"{_NEW}-time-{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        probe.unlink(missing_ok=True)


def _keep_alive(path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        with suppress(OSError):
            os.utime(path)


@atexit.register
def hand_back() -> None:
    """Give up all claims of this process, which ends now; its work is undone."""
    for path, undo in list(_held.items()):
        undo()
        _release(path)
