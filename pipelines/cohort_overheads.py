"""What a scan of a cohort costs beside its restoration: records, claims, weights, dask.

Usage: cohort_overheads.py FOLDER [--workers 1 20 100] [--scans 1000] [--weights NAME|PATH]
FOLDER belongs on the file system that workers will share; a subfolder is made and removed. All of
dask, its workers included, runs in this process: its figures are upper bounds.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import distributed

from medddpm.cohort.claims import claimed
from medddpm.cohort.job import Settings, find_done, sweep
from medddpm.cohort.pool import run_jobs
from medddpm.cohort.records import Outcome, save_outcome, stamp
from medddpm.cohort.run import make_settings
from medddpm.cohort.sources import Job
from medddpm.model.model import load_model
from medddpm.restoration.options import RestoreOptions


def done_scan(number: int, folder: Path, settings: Settings) -> Job:
    """A scan that is recorded as done: workers look, and return."""
    path = folder / f"{number}.nii.gz"
    path.touch()
    job = Job(str(number), (path,), stem=f"{number}_desc-denoised")
    (settings.out / f"{job.stem}.nii.gz").touch()
    outcome = Outcome(job.name, "restored", outputs=[f"{job.stem}.nii.gz"], stamp=stamp(job.files))
    save_outcome(settings.state, job, replace(outcome, settings=settings.fingerprint))
    return job


def claim(job: Job, settings: Settings) -> None:
    with claimed(settings.claims, job.key, "run"):
        pass


def show(name: str, jobs: list[Job], work: Callable[[], object]) -> None:
    """Milliseconds a scan by the clock and on a core; the second bears other load."""
    clock, core = time.perf_counter(), time.process_time()
    work()
    taken = time.perf_counter() - clock, time.process_time() - core
    print(f"{name:<40}" + "".join(f"{t / len(jobs) * 1e3:>10.2f}" for t in taken), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 20, 100])
    parser.add_argument("--scans", type=int, default=1000)
    parser.add_argument("--weights", default="default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overheads-", dir=given.folder) as name:
        settings = make_settings(Path(name, "out"), RestoreOptions(), given.weights, device="cpu")
        settings.out.mkdir()
        jobs = [done_scan(number, Path(name), settings) for number in range(given.scans)]

        print(f"{'milliseconds a scan':<40}{'clock':>10}{'core':>10}")
        show("to see that it is done", jobs, lambda: [find_done(job, settings) for job in jobs])
        show("to claim it and give it back", jobs, lambda: [claim(job, settings) for job in jobs])
        show("to look for remains", jobs, lambda: [sweep(settings.out, job.key) for job in jobs])
        show("a worker: to load the weights", [jobs[0]], lambda: load_model(settings.weights))
        quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
        for count in given.workers:
            with distributed.Client(processes=False, n_workers=count, **quiet) as client:
                run = run_jobs(client, jobs, settings, threading.Event())
                show(f"dask, {count} workers", jobs, lambda run=run: list(run))


if __name__ == "__main__":
    main()
