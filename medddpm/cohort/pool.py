"""Workers by dask.distributed: on this machine, on a batch system, or those of a scheduler."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

from medddpm.cohort.batch import (
    BATCH_SYSTEMS,
    JobKeeper,
    batch_config,
    extra,
    open_batch,
)
from medddpm.cohort.claims import is_claimed
from medddpm.cohort.job import Settings, do_job, failure, find_done
from medddpm.cohort.records import Outcome, load_outcome
from medddpm.cohort.sources import Job
from medddpm.errors import CohortError, ConfigError, MedddpmError, OutputError
from medddpm.restoration.options import RestoreOptions
from medddpm.threads import available_cores

GRACE_S = 20.0
"""Scans in hand get so long after SIGTERM; Slurm kills 30 s after it (KillWait)."""
_POLL_S = 0.5
_BUSY_POLL_S = 2.0
_IN_HAND = 2
"""Scans a worker has at once: one computes while the other is read or written."""
_DEATHS = 2
"""Workers that may die while at a scan before it is suspected of killing them."""
_CONNECT_S = 10.0
_GONE_S = 60.0
"""Local workers that are all gone for so long do not come back."""
_LOST = (
    "the connection to dask's scheduler is lost; what was done is kept: run the command again with "
    "--resume"
)
MEMORY_SHARE = 0.8
"""Of a worker's memory for the scan that computes; the rest is for the one read or written."""
_GB_A_WORKER = 4.0
_CORES_A_WORKER = 4


@dataclass(frozen=True)
class Pool:
    """What works.

    Attributes:
        where: "local", a batch system ("slurm", "pbs", "sge") or the address of a scheduler.
        workers: Processes; for an address they are what it has.
        threads: Of PyTorch in each; 0 lets each use the threads that its scheduler gave it.
        memory_gb: Of each; None where the batch system rules it.
    """

    where: str
    workers: int
    threads: int = 0
    memory_gb: float | None = None


def plan_pool(where: str, workers: int | None, memory_gb: float | None) -> Pool:
    """How many workers, and the share of each in the machine.

    Args:
        where: As in `Pool`.
        workers: As many as asked for; otherwise one a GPU, or one for every four cores if the
            memory holds them.
        memory_gb: For all local workers together; all that there is if not given.
    """
    if where != "local":
        if where not in BATCH_SYSTEMS and "://" not in where and not re.search(r":\d+$", where):
            known = ", ".join(["local", *BATCH_SYSTEMS])
            raise ConfigError(f"--cluster takes {known}, or an address such as tcp://host:8786")
        return Pool(where, workers or 1)
    import torch

    limit = extra("distributed.system").MEMORY_LIMIT
    cores, gpus = available_cores(), torch.cuda.device_count()
    memory = memory_gb or limit / 1e9
    count = workers or gpus or max(1, min(cores // _CORES_A_WORKER, int(memory // _GB_A_WORKER)))
    return Pool(where, count, max(1, cores // count), memory / count)


@contextmanager
def opened(pool: Pool, folder: Path) -> Iterator[Any]:
    """A dask client with the workers of the pool; they end with the block if they are ours.

    Args:
        pool: The workers.
        folder: Seen by all workers; for the keys of a batch system's workers.
    """
    distributed = extra("distributed")
    for name in ("distributed", "distributed.client", "tornado.application"):  # log tracebacks
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _cluster(pool, folder) as cluster:
        try:
            client = distributed.Client(cluster, set_as_default=False, timeout=_CONNECT_S)
        except (OSError, ValueError) as error:
            raise ConfigError(f"no dask scheduler answers at {pool.where}: {error}") from None
        try:
            yield client
        finally:
            with suppress(Exception):  # the scheduler may be gone
                client.close(timeout=5)


def dashboard(client: Any) -> str:
    """Where dask's dashboard is, or how to get one."""
    if find_spec("bokeh") is None:
        return "install bokeh to have dask's dashboard"
    return f"dask's dashboard: {client.dashboard_link}"


def run_jobs(
    client: Any, jobs: Sequence[Job], settings: Settings, stop: Event
) -> Iterator[Outcome]:
    """Do the jobs on the workers and yield what becomes of each, as it is known.

    A scan whose worker dies goes to another one. If several die over it, it is tried once more,
    alone, at the end, so that it fails without others that only happened to be there.

    Args:
        client: A dask client.
        jobs: To be done.
        settings: For all of them.
        stop: When set, scans in hand get `GRACE_S` to finish, and no new ones are begun.

    Raises:
        CohortError: The scheduler is lost.
        OutputError: The disk is full or gone.
    """
    suspects: list[Job] = []
    try:
        yield from _rounds(client, jobs, settings, stop, suspects)
        for job in suspects:
            again: list[Job] = []
            yield from _rounds(client, [job], settings, stop, again)
            if again:
                reason = "its worker died each time, perhaps for lack of memory"
                yield failure(job, settings, reason, "WorkerDied")
    except MedddpmError:
        raise
    except Exception as error:
        is_closed = isinstance(error, OSError | CancelledError)  # dask's CommClosedError is one
        if is_closed or client.status != "running":
            raise CohortError(_LOST) from error
        raise


def work(job: Job, settings: Settings) -> Outcome:
    """What a dask worker does for one scan."""
    worker = extra("distributed").get_worker()
    threads = settings.threads or worker.state.nthreads
    try:
        device = _device(settings, worker.name)
        options = _within(settings.options, worker.memory_manager.memory_limit)
        given = replace(settings, threads=threads, device=device, options=options)
        return do_job(job, given)
    except Exception as error:  # dask can lose one that cannot be pickled, and wait for ever
        return failure(job, settings, f"{type(error).__name__} in its worker", "bug")


def _within(options: RestoreOptions, limit: int | None) -> RestoreOptions:
    """Options with the budget of a worker that a batch system or another's command has limited."""
    if options.memory_gb is not None or not limit:
        return options
    return replace(options, memory_gb=limit * MEMORY_SHARE / 1e9)


def _rounds(
    client: Any, jobs: Sequence[Job], settings: Settings, stop: Event, suspects: list[Job]
) -> Iterator[Outcome]:
    killed = extra("distributed").KilledWorker
    watch, waiting, busy = _watch(client), deque(jobs), deque[Job]()
    futures: dict[Any, Job] = {}
    deadline = checked = float("inf")
    begun = time.time()
    while waiting or busy or futures:
        if stop.is_set():
            deadline = min(deadline, time.monotonic() + GRACE_S)
            waiting.clear()
            busy.clear()
            if time.monotonic() > deadline:
                client.cancel(list(futures))
                return
        num_workers = len(client.nthreads())
        watch(num_workers)
        _fill(client, futures, waiting, settings, _IN_HAND * max(num_workers, 1))
        for future in _finished(client, futures):
            job = futures.pop(future)
            try:
                outcome: Outcome = future.result()
            except killed:
                suspects.append(job)
                continue
            if outcome.state == "stopped":
                client.cancel(list(futures))
                raise OutputError(outcome.reason)
            if outcome.state == "busy":
                busy.append(job)
                checked = time.monotonic()
            else:
                yield outcome
        if busy and time.monotonic() - checked > _BUSY_POLL_S:
            checked = time.monotonic()
            yield from _look_at(busy, waiting, settings, begun)


def _fill(
    client: Any, futures: dict[Any, Job], waiting: deque[Job], settings: Settings, hands: int
) -> None:
    """Hand out as many scans as the workers have hands."""
    while waiting and len(futures) < hands:
        job = waiting.popleft()
        key = f"restore-{job.key}-{uuid.uuid4().hex[:8]}"  # the dashboard shows it
        futures[client.submit(work, job, settings, key=key, pure=False)] = job


def _finished(client: Any, futures: dict[Any, Job]) -> list[Any]:
    """The futures that are done by now, after a short wait."""
    if not futures:
        time.sleep(_POLL_S)
        return []
    with suppress(TimeoutError), client.as_current():
        extra("distributed").wait(list(futures), timeout=_POLL_S, return_when="FIRST_COMPLETED")
    if client.status != "running" or any(f.status in ("cancelled", "lost") for f in futures):
        raise CohortError(_LOST)
    return [future for future in futures if future.status in ("finished", "error")]


class _LocalWatch:
    """Ends the run if the workers, processes of ours, are all gone and do not come back."""

    def __init__(self) -> None:
        self.seen = time.monotonic()

    def __call__(self, num_workers: int) -> None:
        if num_workers:
            self.seen = time.monotonic()
        elif time.monotonic() - self.seen > _GONE_S:
            raise CohortError("all workers are gone and do not come back; --resume goes on")


def _watch(client: Any) -> Callable[[int], None]:
    """What is told, all the time, how many workers there are, and looks after them."""
    name = type(client.cluster).__name__
    if name == "LocalCluster":
        return _LocalWatch()
    if name in BATCH_SYSTEMS.values():
        return JobKeeper(client.cluster)
    return lambda num_workers: None  # another's cluster


def _look_at(
    busy: deque[Job], waiting: deque[Job], settings: Settings, begun: float
) -> Iterator[Outcome]:
    """What became of scans that another process was at: its outcome, or they are to be done."""
    for _ in range(len(busy)):
        job = busy.popleft()
        if is_claimed(settings.claims, job.key):
            busy.append(job)
            continue
        outcome = find_done(job, settings) or load_outcome(settings.state, job)
        is_new = outcome is not None and (outcome.is_done or outcome.finished >= begun)
        if outcome and is_new and outcome.settings == settings.fingerprint:
            yield replace(outcome, skipped=True)
        else:
            waiting.append(job)


@contextmanager
def _cluster(pool: Pool, folder: Path) -> Iterator[Any]:
    """A cluster of ours, or the address of another's."""
    if pool.where == "local":
        with extra("dask").config.set(_local_config(pool)), _local(pool) as cluster:
            yield cluster
    elif pool.where in BATCH_SYSTEMS:
        config = extra("dask").config.set(batch_config(pool.where))
        with config, open_batch(pool.where, pool.workers, folder) as cluster:
            yield cluster
    else:
        yield pool.where


def _local_config(pool: Pool) -> dict[str, Any]:
    """What dask is to do otherwise than by default, with workers that are processes of ours."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    preload = extra("dask").config.get("distributed.worker.preload", [])
    return {
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(names, str(pool.threads)),
        "distributed.deploy.lost-worker-timeout": "1 hour",  # a restart may take a while
        "distributed.scheduler.allowed-failures": _DEATHS - 1,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.preload": [*preload, "medddpm.cohort.preload"],
    }


def _local(pool: Pool) -> Any:
    extra("cryptography")
    return extra("distributed").LocalCluster(
        n_workers=pool.workers,
        threads_per_worker=_IN_HAND,
        memory_limit=int((pool.memory_gb or 0) * 1e9) or "auto",
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
        security=True,  # TLS with keys in memory: others on this machine reach its ports, too
        silence_logs=logging.CRITICAL,
    )


def _device(settings: Settings, name: object) -> str:
    """Each worker of a machine takes another GPU, if there are several."""
    import torch

    number = re.search(r"(\d+)$", str(name))
    if settings.device != "auto" or torch.cuda.device_count() < 2 or number is None:
        return settings.device
    return f"cuda:{int(number[1]) % torch.cuda.device_count()}"
