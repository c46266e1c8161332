"""Restore a whole cohort: what is done is skipped, what fails is listed, the rest is restored."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

from medddpm.cohort.begin import begun
from medddpm.cohort.bids.derivative import write_description
from medddpm.cohort.bids.names import is_bids, reasons
from medddpm.cohort.claims import release_run
from medddpm.cohort.job import Settings, failure, find_done, sweep
from medddpm.cohort.page import write_page
from medddpm.cohort.pool import MEMORY_SHARE, Pool, dashboard, opened, run_jobs
from medddpm.cohort.records import Outcome
from medddpm.cohort.sources import Found, Job, find_jobs
from medddpm.cohort.table import Counts, write_tables
from medddpm.io import Trust
from medddpm.io.outputs import OutputFormat
from medddpm.model.model import find_weights, load_model
from medddpm.restoration.options import RestoreOptions

OnNews = Callable[[str], None]
OnOutcome = Callable[[Outcome, int, int], None]
_STATE = ".medddpm"


@dataclass(frozen=True)
class CohortRun:
    """What is restored, by whom and how.

    Attributes:
        source: See `find_jobs`.
        out: A folder; `cohort.csv`, `cohort.json`, `cohort.html` and the state of the run are in
            it, too.
        pool: The workers.
        options: How to restore.
        weights: A shipped name or a weights file that every worker can read.
        device: "auto" (every GPU, one a worker), "cpu", "cuda", "cuda:1".
        format: "dicom" writes derived series.
        trust: "sform" or "qform", where those of a NIfTI file disagree.
        report: Write an HTML report beside each scan too.
    """

    source: Path
    out: Path
    pool: Pool
    options: RestoreOptions = field(default_factory=RestoreOptions)
    weights: str | Path = "default"
    device: str = "auto"
    format: OutputFormat = "nifti"
    trust: Trust | None = None
    report: bool = False

    def settings(self) -> Settings:
        """The settings of its jobs."""
        settings = make_settings(
            self.out,
            self.options,
            self.weights,
            device=self.device,
            format=self.format,
            trust=self.trust,
        )
        return replace(settings, threads=self.pool.threads, report=self.report)


@dataclass(frozen=True)
class CohortResult:
    """What became of a cohort.

    Attributes:
        outcomes: One a scan, by name; scans that were not reached are missing.
        total: Scans in the source.
        tables: Files that list them.
        page: The page over all of them.
    """

    outcomes: list[Outcome]
    total: int
    tables: tuple[Path, ...]
    page: Path | None = None

    @property
    def counts(self) -> Counts:
        """How many scans are in which state."""
        return Counts.of(self.outcomes, self.total)


def cohort(
    run: CohortRun,
    *,
    resume: bool = False,
    overwrite: bool = False,
    stop: Event | None = None,
    on_news: OnNews | None = None,
    on_outcome: OnOutcome | None = None,
) -> CohortResult:
    """Restore every scan of a source that is not done yet.

    A scan is done if it was restored from the same bytes with the same weights and settings. Any
    number of runs may work on one output at once. Images have the bytes that `restore` gives.

    Args:
        run: What is restored, by whom and how.
        resume: Go on with the run that was begun in `out`.
        overwrite: Restore anew what was restored in `out` with other settings.
        stop: When set, scans in hand get a moment to finish, and the run ends.
        on_news: Called with lines for the person.
        on_outcome: Called with each outcome, the number of scans done, and that of all to do.

    Raises:
        ConfigError: No such source, or `out` holds scans of other settings.
        OutputError: The disk is full or gone.
        CohortError: The scheduler is lost.
    """
    source, out, pool = run.source, run.out, run.pool
    found = find_jobs(source, out)
    if pool.memory_gb:
        options = replace(run.options, memory_gb=pool.memory_gb * MEMORY_SHARE)
        run = replace(run, options=options)
    settings = run.settings()
    stop, say = stop or Event(), on_news or (lambda text: None)
    with begun(settings, resume=resume, overwrite=overwrite):
        if is_bids(source):
            write_description(out, source)
        return _run(found, settings, pool, stop, say, on_outcome)


def _run(
    found: Found,
    settings: Settings,
    pool: Pool,
    stop: Event,
    say: OnNews,
    on_outcome: OnOutcome | None,
) -> CohortResult:
    outcomes = {o.scan: o for o in _known(found, settings)}
    jobs = [job for job in found.jobs if job.name not in outcomes]
    total = len(found.jobs) + len(found.broken)
    for line in (f"{total} scans, {len(jobs)} to do", *reasons(found.left_out)):
        say(line)
    if settings.report and any(outcome.is_done for outcome in outcomes.values()):
        say(f"scans that were done before get no page now; `medddpm report {settings.out}` does it")
    try:
        if jobs:
            _restore_all(jobs, settings, pool, stop, say, outcomes, on_outcome)
    finally:
        known = sorted(outcomes.values(), key=lambda o: o.scan)
        tables = write_tables(settings.out, known, settings.deciding(), found.left_out)
    known = sorted(outcomes.values(), key=lambda o: o.scan)
    return CohortResult(known, total, tables, write_page(settings.out, known, total))


def make_settings(
    out: Path,
    options: RestoreOptions,
    weights: str | Path,
    *,
    device: str = "auto",
    format: OutputFormat = "nifti",
    trust: Trust | None = None,
    state: Path | None = None,
) -> Settings:
    """The settings of a run that begins now; `state` is a folder in `out` if not given."""
    out = out.absolute()
    path = find_weights(weights).absolute()
    digest = load_model(path).digest  # bad weights are one error now, not one a scan
    run = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
    state = (state or out / _STATE).absolute()
    return Settings(out, state, options, path, digest, format, trust, device=device, run=run)


def _restore_all(
    jobs: list[Job],
    settings: Settings,
    pool: Pool,
    stop: Event,
    say: OnNews,
    outcomes: dict[str, Outcome],
    on_outcome: OnOutcome | None,
) -> None:
    try:
        with opened(pool, settings.state) as client:
            say(dashboard(client))
            for number, outcome in enumerate(run_jobs(client, jobs, settings, stop), start=1):
                outcomes[outcome.scan] = outcome
                if on_outcome:
                    on_outcome(outcome, number, len(jobs))
    finally:
        folders = {job.key: settings.out / job.folder for job in jobs}
        for key in release_run(settings.claims, settings.run):
            sweep(folders.get(key, settings.out), key)


def _known(found: Found, settings: Settings) -> list[Outcome]:
    """Outcomes of scans that are done, or that can never be."""
    broken = [
        failure(Job(name, ()), settings, reason, "VolumeReadError")
        for name, reason in found.broken.items()
    ]
    done = [find_done(job, settings) for job in found.jobs]
    return broken + [outcome for outcome in done if outcome is not None]
