"""What became of each scan: one small JSON file a scan, written last and by atomic rename."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from medddpm.cohort.sources import Job
from medddpm.errors import VolumeReadError
from medddpm.io import atomic_path
from medddpm.io.outputs import write_json
from medddpm.io.provenance import checksum

State = Literal["restored", "flagged", "failed", "busy", "stopped"]
Stamp = list[list[int]]


@dataclass(frozen=True)
class Outcome:
    """What became of one scan.

    Attributes:
        scan: Name of the job.
        state: "restored"; "flagged" (restored, but the guard found something); "failed"; and,
            never recorded, "busy" (another process works on it) and "stopped" (the disk is full
            or gone, which every scan would meet).
        reason: Why it failed, or what the guard found; no patient data.
        error: Class of the error.
        outputs: Images that were written, relative to the output folder.
        seconds: From the first byte read to the last written.
        sigma: Noise as a fraction of the intensity scale, of the first frame.
        checksum: SHA-256 of the input.
        stamp: Size and time of change (ns) of each input file, in the order of the job.
        settings: Digest of the settings and weights.
        finished: Seconds since 1970.
        skipped: It was done before, and nothing had to be done now.
    """

    scan: str
    state: State
    reason: str = ""
    error: str = ""
    outputs: list[str] = field(default_factory=list)
    seconds: float = 0.0
    sigma: float | None = None
    checksum: str = ""
    stamp: Stamp = field(default_factory=list)
    settings: str = ""
    finished: float = 0.0
    skipped: bool = False

    @property
    def is_done(self) -> bool:
        """True if there are outputs."""
        return self.state in ("restored", "flagged")


def save_outcome(state: Path, job: Job, outcome: Outcome) -> None:
    """Record what became of a scan."""
    path = _path(state, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        write_json(partial, asdict(outcome))


def load_outcome(state: Path, job: Job) -> Outcome | None:
    """What became of a scan when it was last tried; None if that is not known."""
    try:
        outcome = Outcome(**json.loads(_path(state, job).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return outcome if outcome.scan == job.name else None


def still_holds(outcome: Outcome, job: Job, settings: str, out: Path) -> bool:
    """True if a scan is done: the same input and settings, and its outputs are there."""
    if not outcome.is_done or outcome.settings != settings:
        return False
    if not all((out / name).exists() for name in outcome.outputs):
        return False
    with suppress(OSError):
        if outcome.stamp == stamp(job.files):
            return True
        return outcome.checksum == checksum(list(job.files))
    return False


def stamp(files: Sequence[Path]) -> Stamp:
    """Size and time of change of each file: cheap to compare where the checksum is known."""
    found = [path.stat() for path in files]
    return [[s.st_size, s.st_mtime_ns] for s in found]


def input_checksum(files: Sequence[Path]) -> str:
    """SHA-256 of an input, or VolumeReadError."""
    try:
        return checksum(list(files))
    except OSError as error:
        raise VolumeReadError(f"it cannot be read: {error.strerror or error}") from error


def digest_of(content: object) -> str:
    """Sixteen hexadecimal digits that stand for settings."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _path(state: Path, job: Job) -> Path:
    return state / "records" / f"{job.key}.json"
