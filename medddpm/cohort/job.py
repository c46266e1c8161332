"""The work on one scan. It knows nothing of dask: a job array or a plain loop call it as well."""

from __future__ import annotations

import errno
import json
import shutil
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

from medddpm.cohort.bids.derivative import complete_sidecars
from medddpm.cohort.bids.names import BidsTarget
from medddpm.cohort.claims import claimed
from medddpm.cohort.records import (
    Outcome,
    digest_of,
    input_checksum,
    load_outcome,
    save_outcome,
    stamp,
    still_holds,
)
from medddpm.cohort.sources import Job
from medddpm.errors import (
    CheckpointError,
    MedddpmError,
    OutputError,
    ValuesWarning,
    VolumeReadError,
)
from medddpm.io import DicomOptions, Trust, read_series, read_volumes
from medddpm.io.files import check_name, check_there, remove
from medddpm.io.nifti import suffix_of
from medddpm.io.outputs import OutputFormat, Target, plan_targets, stage_prefix, staged
from medddpm.io.provenance import STATEMENT
from medddpm.model.model import read_card
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.restorer import Restored, Restorer
from medddpm.volume import Volume
from medddpm.workflows.restorable import check_format, check_scan, only_magnitudes
from medddpm.workflows.restored_files import MAPS, Run, write_restored
from medddpm.workflows.restored_scan import RestoredScan

_T = TypeVar("_T")
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.ENODEV}


@dataclass(frozen=True)
class Settings:
    """What all scans of a cohort have in common.

    Attributes:
        out: Folder of the outputs.
        state: Folder of the records and claims, on the same shared file system.
        options: How to restore.
        weights: A weights file.
        digest: Its SHA-256.
        format: Of the outputs.
        trust: "sform" or "qform", where those of a NIfTI file disagree.
        report: Write an HTML report beside each scan too.
        device: "auto", "cpu", "cuda", "cuda:1".
        threads: Of PyTorch, in each worker; 0 leaves them as they are.
        run: Names this run.
    """

    out: Path
    state: Path
    options: RestoreOptions
    weights: Path
    digest: str
    format: OutputFormat = "nifti"
    trust: Trust | None = None
    report: bool = False
    device: str = "auto"
    threads: int = 0
    run: str = ""

    @property
    def fingerprint(self) -> str:
        """Stands for all that decides the bytes of an output, apart from the input."""
        return digest_of(self.deciding())

    def deciding(self) -> dict[str, Any]:
        """What decides the bytes of an output, apart from the input; JSON-able."""
        options = {k: v for k, v in asdict(self.options).items() if k != "memory_gb"}
        trust = {"trust": self.trust} if self.trust else {}
        found = {"options": options, "weights": self.digest, "format": self.format, **trust}
        plain: dict[str, Any] = json.loads(json.dumps(found))  # as it is read back: no tuples
        return plain

    @property
    def claims(self) -> Path:
        """Folder of the claims."""
        return self.state / "claims"


def do_job(job: Job, settings: Settings) -> Outcome:
    """Restore one scan, unless it is done; its outputs appear all at once, its record last.

    May be called again at any time and by any process: what is done is skipped, and what another
    process is at is left to it (state "busy"). Whatever is wrong with the scan is in the outcome.
    """
    done = find_done(job, settings)
    if done is not None:
        return done
    try:
        undo = partial(sweep, settings.out / job.folder, job.key)
        with claimed(settings.claims, job.key, settings.run, undo) as mine:
            if not mine:
                return Outcome(job.name, "busy")
            done = find_done(job, settings)  # by the process that held the claim until now
            if done is not None:
                return done
            outcome = _attempt(job, settings)
            save_outcome(settings.state, job, outcome)
            return outcome
    except OSError as error:  # OutputError is one
        text = str(error) if isinstance(error, OutputError) else error.strerror or str(error)
        return Outcome(job.name, "stopped", reason=text, error="OutputError")


def find_done(job: Job, settings: Settings) -> Outcome | None:
    """The outcome of a scan that need not be done again, or None."""
    known = load_outcome(settings.state, job)
    if known is None or not still_holds(known, job, settings.fingerprint, settings.out):
        return None
    return replace(known, skipped=True)


def failure(job: Job, settings: Settings, reason: str, error: str) -> Outcome:
    """The outcome of a scan that could not be restored."""
    return Outcome(
        job.name,
        "failed",
        reason=reason,
        error=error,
        settings=settings.fingerprint,
        finished=time.time(),
    )


def sweep(folder: Path, key: str) -> None:
    """Remove what a killed process left half-written for a scan.

    To be called by the holder of the claim, or when all workers are gone.
    """
    for path in folder.glob(f"{stage_prefix(key)}*"):
        shutil.rmtree(path, ignore_errors=True)


def _attempt(job: Job, settings: Settings) -> Outcome:
    began = time.perf_counter()
    try:
        outcome = _restore(job, settings)
    except OSError as error:  # VolumeReadError is one, too
        if not isinstance(error, VolumeReadError) and _is_of_disk(error):
            raise
        reason = str(error) if isinstance(error, MedddpmError) else error.strerror or "OSError"
        outcome = failure(job, settings, _without_names(reason, job), type(error).__name__)
    except MedddpmError as error:
        outcome = failure(job, settings, _without_names(str(error), job), type(error).__name__)
    except Exception as error:  # a bug, or a library's: this scan fails, the others go on
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        outcome = failure(job, settings, reason, "bug")
    return replace(outcome, seconds=round(time.perf_counter() - began, 3), finished=time.time())


def _restore(job: Job, settings: Settings) -> Outcome:
    for path in job.files:
        check_there(path)
    before = input_checksum(job.files)
    marks = stamp(job.files)
    volumes, notes = only_magnitudes(_read(job, settings))
    if not volumes:
        raise VolumeReadError("; ".join(notes))
    if input_checksum(job.files) != before:
        raise VolumeReadError("it changed while it was read; run again when it is complete")
    for volume in volumes:
        check_scan(volume)
        check_format(volume, settings.format)
    folder = settings.out / job.folder
    targets = _targets(job, volumes, settings)
    _check_free(targets, folder, job, settings)
    restored = _network.run(lambda: _compute(volumes, settings))
    folder.mkdir(parents=True, exist_ok=True)
    scans: list[RestoredScan] = []
    card = read_card(settings.weights)[0] if settings.report else None
    run = Run(
        settings.format, False, settings.trust, settings.weights, DicomOptions(), card, folder
    )
    with staged(folder, job.key) as work:
        for result, volume, target in zip(restored, volumes, targets, strict=True):
            scan = write_restored(result, volume, replace(target, folder=work), run)
            if job.bids:
                complete_sidecars(scan, job.bids)
            scans.append(scan)
    flags = list(dict.fromkeys(flag for scan in scans for flag in scan.flags))
    return Outcome(
        job.name,
        "flagged" if flags else "restored",
        reason="; ".join([*flags, *notes, *_notices(scans)]),
        outputs=[str(Path(job.folder) / scan.image.name) for scan in scans],
        sigma=scans[0].frame.sigma.fraction,
        checksum=before,
        stamp=marks,
        settings=settings.fingerprint,
    )


def _notices(scans: list[RestoredScan]) -> list[str]:
    """What a person should know of the values of the scans, each sentence once."""
    frames = [frame for scan in scans for frame in scan.facts.frames]
    return list(dict.fromkeys(text for frame in frames for text in frame.values.notices))


def _read(job: Job, settings: Settings) -> list[Volume]:
    if len(job.files) == 1 or suffix_of(job.files[0]):
        return read_volumes(job.files[0], trust=settings.trust)
    return read_series(job.files)


def _targets(job: Job, volumes: list[Volume], settings: Settings) -> list[Target]:
    folder = settings.out / job.folder
    if not job.stem or len(volumes) > 1:
        return plan_targets(volumes, folder, format=settings.format, label="desc-denoised")
    kind = BidsTarget if job.bids else Target
    return [kind(folder, job.stem, "" if settings.format == "dicom" else ".nii.gz")]


def _check_free(targets: list[Target], folder: Path, job: Job, settings: Settings) -> None:
    """Refuse to replace what neither a cohort nor `restore` has written; remove what is half."""
    was_killed = any(folder.glob(f"{stage_prefix(job.key)}*"))
    known = load_outcome(settings.state, job)
    ours = set(known.outputs) if known else set()
    for target in targets:
        maps = MAPS if settings.options.mode == "ensemble" else ()
        pages = [target.html] if settings.report else []
        for path in (target.image, target.sidecar, *pages, *map(target.part, maps)):
            check_name(path)
        if not target.image.exists() or str(target.image.relative_to(settings.out)) in ours:
            continue
        with suppress(OSError, UnicodeDecodeError):
            if STATEMENT in target.sidecar.read_text(encoding="utf-8"):
                continue
        if not was_killed or target.sidecar.exists():
            raise OutputError(f"{target.image.name} exists and was not made here; move it away")
        remove(target.image)  # its report, which comes last, is still in the hidden folder
    if was_killed:  # else the folder, which may hold 100,000 files, need not be listed again
        sweep(folder, job.key)


def _compute(volumes: list[Volume], settings: Settings) -> list[Restored]:
    restorer = _restorer(settings)
    with warnings.catch_warnings():  # the outcome says it
        warnings.simplefilter("ignore", ValuesWarning)
        return [restorer.restore(volume, options=settings.options) for volume in volumes]


class _Network:
    """One thread that computes scan by scan, while others of the process read and write.

    A lock would do the same, but OpenMP keeps a team of threads for each thread that calls it,
    and when these are more than the cores they sleep after each loop: 9.3 s a scan, not 7.5 s.
    """

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None

    def run(self, work: Callable[[], _T]) -> _T:
        """What `work` returns or raises in that thread."""
        with self._start:
            if self._thread is None:
                # a daemon: whoever ends the process does not wait for the scan
                self._thread = threading.Thread(target=self._serve, name="network", daemon=True)
                self._thread.start()
        future: Future[_T] = Future()
        self._waiting.put((future, work))
        return future.result()

    def _serve(self) -> None:
        while True:
            future, work = self._waiting.get()
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            del future, work  # or the last scan stays in memory until the next one comes


_network = _Network()
_restorers: dict[tuple[str, str], Restorer] = {}


def _restorer(settings: Settings) -> Restorer:
    """The restorer of this process; the weights are read once."""
    if settings.threads:
        torch.set_num_threads(settings.threads)  # OpenMP keeps a number for each calling thread
    key = (settings.digest, settings.device)
    if key not in _restorers:
        restorer = Restorer.from_pretrained(settings.weights, settings.device)
        if restorer.model.digest != settings.digest:
            raise CheckpointError("the weights file changed since the run began; start it again")
        _restorers[key] = restorer
    return _restorers[key]


def _is_of_disk(error: BaseException) -> bool:
    """True if an error comes from the disk, not from what a scan is called."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in _DISK:
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _without_names(text: str, job: Job) -> str:
    """A reason without paths of DICOM files, which may name a patient."""
    if suffix_of(job.files[0]):
        return text.replace(f"{job.files[0].parent}/", "")
    for path in job.files:
        for name in (str(path), str(path.parent), path.name):
            text = text.replace(name, "its file")
    return text
