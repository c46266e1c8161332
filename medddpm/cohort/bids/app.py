"""The two levels of a BIDS App: participants, one after another, and the group that collects them.

No scheduler is needed: each subject may be a job of an array, and all may write into one folder.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

from medddpm.cohort.begin import begun, check_settings
from medddpm.cohort.bids.derivative import write_description
from medddpm.cohort.bids.names import entities, find_bids_scans, is_bids, reasons
from medddpm.cohort.bids.page import write_index, write_subject_page
from medddpm.cohort.job import Settings, do_job, find_done
from medddpm.cohort.page import write_page
from medddpm.cohort.records import Outcome, load_outcome
from medddpm.cohort.run import CohortResult, make_settings
from medddpm.cohort.sources import Job, bids_job, check_root, refuse_meeting
from medddpm.cohort.table import write_tables
from medddpm.errors import CohortError, ConfigError, OutputError
from medddpm.io import Trust
from medddpm.restoration.options import RestoreOptions
from medddpm.threads import available_cores

OnOutcome = Callable[[Outcome, int, int], None]


@dataclass(frozen=True)
class BidsRun:
    """What all steps of a BIDS App are told.

    Attributes:
        raw: Root of the raw data set.
        out: Root of the derivative.
        work: Folder of the records; in `out` if None.
        subjects: Labels without "sub-"; all if none is given.
        sessions: Labels without "ses-"; all if none is given.
        options: How to restore.
        weights: A shipped name or a weights file.
        device: "auto", "cpu", "cuda", "cuda:1".
        trust: "sform" or "qform", where those of a scan disagree.
        overwrite: Restore anew what was restored in `out` with other settings.
    """

    raw: Path
    out: Path
    work: Path | None = None
    subjects: Collection[str] = ()
    sessions: Collection[str] = ()
    options: RestoreOptions = field(default_factory=RestoreOptions)
    weights: str | Path = "default"
    device: str = "auto"
    trust: Trust | None = None
    overwrite: bool = False

    def jobs(self) -> list[Job]:
        """The scans that are asked for.

        Raises:
            ConfigError: This is no BIDS data set, it lacks a subject, or it has no such scan.
        """
        if not is_bids(self.raw):
            raise ConfigError(f"{self.raw} is no BIDS data set: no dataset_description.json")
        missing = [s for s in self.subjects if not (self.raw / f"sub-{s}").is_dir()]
        if missing:
            raise ConfigError(f"{self.raw} has no subject {', '.join(missing)}")
        check_root(self.raw, self.out)
        found = find_bids_scans(self.raw, self.subjects, self.sessions)
        if not found.scans:
            why = "; ".join(["", *reasons(found.left_out)])
            raise ConfigError(f"{self.raw} has no such anatomical scan{why}")
        jobs = [bids_job(self.raw.absolute(), path.absolute()) for path in found.scans]
        refuse_meeting(jobs, self.out.absolute())
        return jobs

    def settings(self) -> Settings:
        """The settings of its jobs."""
        return make_settings(
            self.out,
            self.options,
            self.weights,
            device=self.device,
            trust=self.trust,
            state=self.work,
        )

    def left_out(self) -> dict[str, str]:
        """Other images in the folders of anatomical scans, and why they are not restored."""
        return find_bids_scans(self.raw, self.subjects, self.sessions).left_out


def participant(
    run: BidsRun, *, num_workers: int = 1, on_outcome: OnOutcome | None = None
) -> CohortResult:
    """Restore the scans of the subjects, and write a page for each subject.

    Args:
        run: What is asked for.
        num_workers: Processes.
        on_outcome: Called with each outcome, the number of scans done, and that of all.

    Raises:
        OutputError: The disk is full or gone.
    """
    jobs, settings = run.jobs(), run.settings()
    outcomes = []
    with begun(settings, overwrite=run.overwrite):
        write_description(run.out, run.raw)
        for outcome in _do_all(jobs, settings, num_workers):
            if outcome.state == "stopped":
                raise OutputError(outcome.reason)
            outcomes.append(outcome)
            if on_outcome:
                on_outcome(outcome, len(outcomes), len(jobs))
    for subject in sorted({entities(job.files[0].name)["sub"] for job in jobs}):
        _write_page(run, settings, subject)
    return CohortResult(outcomes, len(jobs), ())


def group(run: BidsRun) -> CohortResult:
    """Collect what the participant level has done: tables, and pages over subjects and scans."""
    jobs, settings = run.jobs(), run.settings()
    check_settings(settings, overwrite=run.overwrite)
    known = [(job, load_outcome(settings.state, job)) for job in jobs]
    outcomes = [outcome for _, outcome in known if outcome is not None]
    by_subject: dict[str, Counter[str]] = {}
    for job, outcome in known:
        counts = by_subject.setdefault(entities(job.files[0].name)["sub"], Counter())
        counts["scans"] += 1
        counts[outcome.state if outcome else "missing"] += 1
    write_description(run.out, run.raw)
    rows = [
        (label, c["scans"], c["flagged"], c["failed"] + c["missing"])
        for label, c in sorted(by_subject.items())
    ]
    write_index(run.out, rows)
    tables = write_tables(run.out, outcomes, settings.deciding(), run.left_out())
    page = write_page(run.out, outcomes, len(jobs))
    return CohortResult(outcomes, len(jobs), tables, page)


def _do_all(jobs: list[Job], settings: Settings, num_workers: int) -> Iterator[Outcome]:
    """Do the jobs in this process, or in several."""
    if num_workers == 1:
        yield from (do_job(job, settings) for job in jobs)
        return
    settings = replace(settings, threads=max(1, available_cores() // num_workers))
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as processes:
        futures = [processes.submit(do_job, job, settings) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise CohortError(
                "a process died, perhaps for lack of memory; what is done is skipped when the "
                "command is given again"
            ) from None
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            raise


def _write_page(run: BidsRun, settings: Settings, subject: str) -> None:
    """The page of a subject shows all that is done of it, also by other jobs."""
    jobs = replace(run, subjects=[subject], sessions=()).jobs()
    done = [(job, find_done(job, settings)) for job in jobs]
    pairs = [(job.files[0], run.out / o.outputs[0]) for job, o in done if o is not None]
    if pairs:
        write_subject_page(run.out, subject, pairs)


def validation_errors(root: Path) -> list[str] | None:
    """Codes of the errors that the BIDS validator finds; None where it is not installed."""
    name = "bids-validator-deno"
    tool = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if tool is None:
        return None
    command = [tool, "--format", "json", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        issues = json.loads(done.stdout)["issues"]["issues"]
    except (ValueError, KeyError, TypeError):
        return None
    return sorted({str(i.get("code")) for i in issues if i.get("severity") == "error"})
