"""Workers that are jobs of a batch system, by dask-jobqueue; jobs that end are replaced."""

from __future__ import annotations

import getpass
import shlex
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from medddpm.errors import CohortError, ConfigError, MissingExtraError, missing_extra

BATCH_SYSTEMS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster"}
_JOBS = {"SLURMCluster": ("squeue", "--noheader", "--format=%A", "--user")}
"""Prints the number of each job of a user that waits or runs. Tried with Slurm; for the others
only jobs that dask has seen are replaced."""
_NEVER = "365 days"
_LOOK_EVERY_S = 10.0
_WARN_S = 120.0
_ROUNDS = 3
"""Of jobs that end before a worker of theirs is seen; then it is no accident."""


def extra(name: str) -> Any:
    """A module of the extra `cluster`."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise MissingExtraError(
            f"{missing_extra(name, 'cluster')}, or restore scans one by one with `medddpm restore`"
        ) from None


@contextmanager
def open_batch(system: str, num_jobs: int, folder: Path) -> Iterator[Any]:
    """A dask cluster whose jobs are submitted; queue, cores, memory and time are of dask's config.

    Others on the cluster's network can reach the scheduler, so it speaks TLS, with keys made for
    this run: only who can read them can have workers run something.

    Args:
        system: One of `BATCH_SYSTEMS`.
        num_jobs: Each has one worker.
        folder: Seen by all nodes; holds the keys (readable by the user alone) while the run lasts.

    Raises:
        ConfigError: The config lacks something or is wrong, or the batch system refuses the jobs.
    """
    cluster = _new_cluster(system, folder)

    async def submit() -> None:
        cluster.scale(jobs=num_jobs)
        await cluster  # until all are submitted; scale() alone would only log what goes wrong

    try:
        try:
            cluster.sync(submit)
        except (RuntimeError, OSError) as error:
            raise ConfigError(f"{system} takes no jobs: {_reason(error)}") from None
        yield cluster
    finally:
        _mark_refused(cluster)
        cluster.close()
        _remove_keys(cluster)


def _new_cluster(system: str, folder: Path) -> Any:
    """A cluster without jobs yet."""
    dask_jobqueue, dask = extra("dask_jobqueue"), extra("dask")
    extra("cryptography")
    where = f"jobqueue.{system}"
    missing = [n for n in ("cores", "memory") if dask.config.get(f"{where}.{n}", None) is None]
    if missing:
        raise ConfigError(
            f"dask-jobqueue is not told the {' and '.join(missing)} of a job; set {where} (cores, "
            "memory, walltime, queue) in ~/.config/dask/jobqueue.yaml"
        )
    preload = dask.config.get("distributed.worker.preload", [])
    told = {"distributed.worker.preload": [*preload, "medddpm.cohort.batch_preload"]}
    prologue = [*(dask.config.get(f"{where}.job-script-prologue", None) or []), *_exports(told)]
    known = dask.config.get(f"{where}.scheduler-options", None) or {}
    try:
        return getattr(dask_jobqueue, BATCH_SYSTEMS[system])(
            processes=1,
            job_script_prologue=prologue,
            scheduler_options={"dashboard_address": "127.0.0.1:0", **known},
            security=True,
            shared_temp_directory=str(folder),
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(
            f"dask-jobqueue cannot start with {where} of its config: {_reason(error)}"
        ) from None


def batch_config(system: str) -> dict[str, Any]:
    """What dask is to do otherwise than by default.

    It would cancel a job that is to replace another and does not work within 15 s.
    """
    knows_jobs = BATCH_SYSTEMS[system] in _JOBS
    return {"distributed.deploy.lost-worker-timeout": _NEVER} if knows_jobs else {}


class JobKeeper:
    """Replaces jobs that end, by a time limit, a cancellation or a failing node."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.num_jobs = len(cluster.worker_spec)
        self.looked = self.seen = time.monotonic()
        self.rounds = 0
        self.has_warned = False

    def __call__(self, num_workers: int) -> None:
        """Look after the jobs, now and then.

        Args:
            num_workers: Workers that are connected now.

        Raises:
            CohortError: Jobs end again and again before a worker connects.
        """
        now = time.monotonic()
        if num_workers:
            self.seen, self.rounds, self.has_warned = now, 0, False
        if now - self.looked < _LOOK_EVERY_S:
            return
        self.looked = now
        if now - self.seen > _WARN_S and not self.has_warned:
            self.has_warned = True
            warnings.warn("no job has begun to work for two minutes: do they wait?", stacklevel=2)
        if num_workers < self.num_jobs:
            self._replace(self._ended())

    def _replace(self, ended: list[Any]) -> None:
        if ended:
            self.rounds += 1
        if self.rounds > _ROUNDS:
            raise CohortError(
                "jobs of the batch system end before they work; their logs say why (log-directory "
                "in jobqueue.yaml, or here). --resume goes on"
            )
        _mark_refused(self.cluster)
        try:
            if ended:
                self.cluster.sync(self.cluster.scale_down, ended)
            self.cluster.scale(jobs=self.num_jobs)
        except (RuntimeError, OSError) as error:
            warnings.warn(f"a job could not be submitted: {_reason(error)}", stacklevel=3)

    def _ended(self) -> list[Any]:
        """Workers whose job the batch system does not know any more, or never took."""
        jobs = dict(self.cluster.workers)
        command = _JOBS.get(type(self.cluster).__name__)
        if command is None:
            return []
        try:
            done = subprocess.run(
                [*command, getpass.getuser()], capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired):
            return []
        if done.returncode:  # the batch system is away for a while
            return []
        known = set(done.stdout.split())
        return [name for name, job in jobs.items() if job.job_id not in known]


def _mark_refused(cluster: Any) -> None:
    """Note which jobs the batch system did not take; dask cannot close what is not yet begun."""
    for job in list(cluster.workers.values()):
        if job.job_id is None:
            job.status = extra("distributed.core").Status.failed


def _remove_keys(cluster: Any) -> None:
    """Close dask-jobqueue's files of keys, which removes them; it leaves that to chance."""
    for name, file in vars(cluster).items():
        if name.startswith("_job_") and hasattr(file, "close"):
            file.close()


def _exports(told: Mapping[str, Any]) -> list[str]:
    """Shell lines that tell dask its config; a worker's memory is watched, but never paused for."""
    never = {f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")}
    names = {k: k.upper().replace(".", "__").replace("-", "_") for k in (*never, *told)}
    return [
        f"export DASK_{names[key]}={shlex.quote(str(value))}"
        for key, value in {**never, **told}.items()
    ]


def _reason(error: Exception) -> str:
    """The last line that sbatch or its like has said."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
