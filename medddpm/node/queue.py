"""The queue on disk: a folder of images and one small record a series.

Images lie in `incoming/SERIES/INSTANCE.dcm`, both names hashes of UIDs; `records/SERIES.json` says
how far a series is. One that arrived and was not looked at yet has no record, or one of other
images, so that nothing must be written but the image for it to be in the queue.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from medddpm.io import atomic_path

State = Literal["restored", "sent", "done", "skipped", "failed"]
_SETTLED_S = 2.0  # coarser than any clock of a file system: a later change has another time


@dataclass(frozen=True)
class Record:
    """How far a series is.

    Attributes:
        state: "restored" (to be sent), "sent" (storage commitment is awaited), "done", "skipped"
            (the rules do not select it), "failed".
        images: Stands for the images that it was made of.
        reason: Why it was skipped or failed, or what its last sending met; no patient data.
        sent: Files that the destination has, relative to the folder of outputs; empty when done.
        attempts: Failed sendings so far.
        refusals: Those of them in which the destination was reached and refused.
        next_try: Not before this time, in seconds since 1970.
        transaction: UID of the storage commitment that was asked for.
        asked: How often it was.
        committed: Whether the destination confirmed it; None if that was not asked.
    """

    state: State
    images: str
    reason: str = ""
    sent: list[str] = field(default_factory=list)
    attempts: int = 0
    refusals: int = 0
    next_try: float = 0.0
    transaction: str = ""
    asked: int = 0
    committed: bool | None = None


@dataclass(frozen=True)
class _Folder:
    """What the folder of a series held when it was last looked at."""

    changed_ns: int
    images: str
    newest: float


class Queue:
    """The series of one node. Threads may share it; processes may not.

    It is looked at every second and grows for years: records, and the folders that did not
    change, are remembered.

    Attributes:
        num_received: New objects that were kept since it was made.
    """

    def __init__(self, out: Path) -> None:
        self.incoming, self.records = out / "incoming", out / "records"
        self.incoming.mkdir(parents=True, exist_ok=True)
        self.records.mkdir(exist_ok=True)
        self.num_received = 0
        self._began = time.time()
        self._lock = threading.RLock()
        self._folders: dict[str, _Folder] = {}
        self._known: dict[str, Record | None] = {}
        self._arrived: dict[str, float] = {}
        for partial in (*self.incoming.glob("*/.*"), *self.records.glob(".*")):
            partial.unlink()  # half-written when the node was killed, so never accepted
        self._cut_off = {name for name, _, _ in self.waiting()}

    def add(self, series_uid: str, instance_uid: str, content: bytes) -> bool:
        """Keep an object; when this returns it is on the disk.

        The same object again changes nothing.

        Args:
            series_uid: Of its series.
            instance_uid: Its own.
            content: A DICOM file.

        Returns:
            True if it was new.

        Raises:
            OutputError: The disk is full or gone.
            OSError: As well.
        """
        name = series_name(series_uid)
        folder = self.incoming / name
        path = folder / f"{_hash(instance_uid)[:32]}.dcm"
        is_new = not path.exists()
        if is_new:
            folder.mkdir(exist_ok=True)
            with atomic_path(path) as partial, partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for place in (folder, self.incoming):
            sync(place)
        with self._lock:
            self.num_received += is_new
            self._arrived[name] = time.time()
            self._cut_off.discard(name)
        return is_new

    def cut_off(self, name: str) -> None:
        """Remember that a series was cut off: its sender may go on later."""
        with self._lock:
            self._cut_off.add(name)

    def is_cut_off(self, name: str) -> bool:
        """True if it was, or was there when the queue was made, and nothing came since."""
        return name in self._cut_off

    def series(self) -> list[str]:
        """Names of all series, in a fixed order."""
        with os.scandir(self.incoming) as found:
            return sorted(entry.name for entry in found if entry.is_dir())

    def files(self, name: str) -> list[Path]:
        """The images of a series."""
        return sorted(self.incoming.joinpath(name).glob("[!.]*.dcm"))

    def waiting(self) -> Iterator[tuple[str, list[Path], float]]:
        """Series with new images: name, files, seconds since the last image came.

        An image that was there already counts, too: others may follow. Time in which no node ran
        does not count.
        """
        for name in self.series():
            folder, known = self._look(name), self.load(name)
            if folder.newest and (known is None or known.images != folder.images):
                last = max(folder.newest, self._began, self._arrived.get(name, 0.0))
                yield name, self.files(name), time.time() - last

    def load(self, name: str) -> Record | None:
        """The record of a series; None if there is none that can be read."""
        with self._lock:
            if name not in self._known:
                self._known[name] = _read_record(self.records / f"{name}.json")
            return self._known[name]

    def save(self, name: str, record: Record) -> None:
        """Write the record of a series."""
        with self._lock:
            self._write(name, record)

    def change(self, name: str, old: Record, new: Record) -> bool:
        """Write a record, unless it is no longer `old`; says whether it was written."""
        with self._lock:
            if self.load(name) != old:
                return False
            self._write(name, new)
            return True

    def all(self) -> Iterator[tuple[str, Record]]:
        """Names and records."""
        for name in self.series():
            record = self.load(name)
            if record is not None:
                yield name, record

    def counts(self) -> dict[str, int]:
        """How many series are in which state; "received" are those with new images."""
        waiting = {name for name, _, _ in self.waiting()}
        states = Counter[str](r.state for name, r in self.all() if name not in waiting)
        names = ("restored", "sent", "done", "skipped", "failed")
        return {"received": len(waiting), **{name: states[name] for name in names}}

    def _write(self, name: str, record: Record) -> None:
        path = self.records / f"{name}.json"
        with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
            json.dump(asdict(record), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        self._known[name] = record

    def _look(self, name: str) -> _Folder:
        """The folder of a series, listed only if it changed; an image changes it (rename)."""
        path = self.incoming / name
        changed_ns, known = path.stat().st_mtime_ns, self._folders.get(name)
        if known is not None and known.changed_ns == changed_ns:
            return known
        files = self.files(name)
        newest = max((file.stat().st_mtime for file in files), default=0.0)
        found = _Folder(changed_ns, images_of(files), newest)
        if time.time() - changed_ns / 1e9 > _SETTLED_S:
            self._folders[name] = found
        return found


def images_of(files: list[Path]) -> str:
    """Stands for a set of images."""
    return _hash(" ".join(sorted(path.name for path in files)))[:16]


def series_name(uid: str) -> str:
    """What the folder of a series is called."""
    return _hash(uid)[:16]


def _hash(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()


def _read_record(path: Path) -> Record | None:
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def sync(path: Path) -> None:
    """Make a file, or the new names in a folder, outlive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
