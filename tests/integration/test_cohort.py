"""`medddpm cohort` from end to end, and its dask part against workers in this process."""

from __future__ import annotations

import csv
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medddpm.cli.cohort import exit_code
from medddpm.cli.console import duration
from medddpm.cohort.job import Settings
from medddpm.cohort.pool import Pool, _device, _within, plan_pool, run_jobs
from medddpm.cohort.records import Outcome
from medddpm.cohort.run import CohortRun, cohort, make_settings
from medddpm.cohort.sources import find_jobs
from medddpm.cohort.table import Counts
from medddpm.errors import CohortError, ConfigError, OutputError
from medddpm.restoration.options import RestoreOptions

distributed = pytest.importorskip("distributed")
OPTIONS = RestoreOptions(sigma=50.0)


@pytest.fixture
def source(tmp_path: Path, head: Any, save_nifti: Any, rng: np.random.Generator) -> Path:
    """Four scans; the third is cut short."""
    (tmp_path / "in").mkdir()
    clean = head((24, 26, 20))
    for number in range(4):
        data = np.hypot(clean + rng.normal(0, 50, clean.shape), rng.normal(0, 50, clean.shape))
        path = tmp_path / "in" / f"s{number}.nii.gz"
        save_nifti(path, data.astype(np.float32), np.diag([1, 1, 1.5, 1.0]))
        if number == 2:
            path.write_bytes(path.read_bytes()[:4000])
    return tmp_path / "in"


@pytest.fixture
def settings(tmp_path: Path, tiny_weights: Path) -> Settings:
    return make_settings(tmp_path / "out", OPTIONS, tiny_weights, device="cpu")


@pytest.fixture
def client() -> Iterator[Any]:
    """Dask with its workers as threads of this process."""
    with distributed.Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0"
    ) as client:
        yield client


def states(outcomes: Any) -> dict[str, str]:
    return {outcome.scan: outcome.state for outcome in outcomes}


def test_from_the_command_line(
    cli: Callable[..., Any], source: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    words = ("cohort", source, tmp_path / "out", "--weights", tiny_weights, "--workers", 1)
    done = cli(*words, "--set", "restore.sigma=50")
    assert done.exit_code == 7, done.stderr
    assert "failed: s2: s2.nii.gz cannot be read" in done.stderr
    assert "dashboard" in done.stderr
    assert "1 x VolumeReadError" in done.stdout
    rows = list(csv.DictReader((tmp_path / "out" / "cohort.csv").read_text().splitlines()))
    assert [row["scan"] for row in rows] == ["s0", "s1", "s2", "s3"]
    assert [row["state"] == "failed" for row in rows] == [False, False, True, False]
    scans = json.loads((tmp_path / "out" / "cohort.json").read_text())["scans"]
    assert [scan["checksum"] for scan in scans] == [row["checksum"] for row in rows]
    assert str(tmp_path / "out" / "cohort.html") in done.stdout
    page = (tmp_path / "out" / "cohort.html").read_text(encoding="utf-8")
    assert "1 could not be restored" in page
    assert "<td>s2</td><td>VolumeReadError: s2.nii.gz cannot be read" in page
    assert 'href="s0_desc-denoised.json"' in page
    assert cli("report", tmp_path / "out" / "s0_desc-denoised.nii.gz").exit_code == 0
    (source / "s2.nii.gz").unlink()
    code = cli(*words, "--resume", "--set", "restore.sigma=50").exit_code
    assert code in (0, 6)
    page = (tmp_path / "out" / "cohort.html").read_text(encoding="utf-8")
    assert 'href="s0_desc-denoised.html"' in page  # it is there by now
    assert "could not be restored" not in page
    other = cli(*words, "--resume", "--set", "restore.sigma=40")
    assert other.exit_code == 2
    assert "another sigma" in other.stderr
    other = cli(*words, "--set", "restore.sigma=40")
    assert other.exit_code == 2
    assert "--overwrite" in other.stderr
    again = cli("cohort", source, tmp_path / "new", "--weights", tiny_weights, "--resume")
    assert again.exit_code == 2
    assert "no run to resume" in again.stderr


def test_jobs_on_workers(client: Any, source: Path, settings: Settings) -> None:
    jobs = find_jobs(source, settings.out).jobs
    found = states(run_jobs(client, jobs, settings, threading.Event()))
    assert found.pop("s2") == "failed"
    assert set(found.values()) <= {"restored", "flagged"}
    assert sorted(found) == ["s0", "s1", "s3"]


def test_a_scan_of_another_run_is_waited_for(
    client: Any, source: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medddpm.cohort import pool
    from medddpm.cohort.claims import claimed
    from medddpm.cohort.job import do_job

    jobs = find_jobs(source, settings.out).jobs[:2]
    held, seen, look_at = threading.Event(), threading.Event(), pool._look_at

    def looked_at(*arguments: Any) -> Iterator[Outcome]:
        yield from look_at(*arguments)
        seen.set()

    monkeypatch.setattr(pool, "_BUSY_POLL_S", 0.1)
    monkeypatch.setattr(pool, "_look_at", looked_at)

    def other_run() -> None:
        with claimed(settings.claims, jobs[0].key, "other"):
            held.set()
            assert seen.wait(60)
        do_job(jobs[0], settings)

    other = threading.Thread(target=other_run)
    other.start()
    held.wait()
    outcomes = list(run_jobs(client, jobs, settings, threading.Event()))
    other.join()
    assert sorted(o.scan for o in outcomes) == ["s0", "s1"]
    assert all(o.is_done for o in outcomes)


def test_stop_and_disk(
    client: Any, source: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = find_jobs(source, settings.out).jobs
    stop = threading.Event()
    stop.set()
    assert list(run_jobs(client, jobs, settings, stop)) == []
    full = Outcome("s0", "stopped", reason="no space")
    monkeypatch.setattr("medddpm.cohort.pool.do_job", lambda *_: full)
    with pytest.raises(OutputError, match="no space"):
        list(run_jobs(client, jobs, settings, threading.Event()))


def test_a_scheduler_that_is_lost(client: Any, source: Path, settings: Settings) -> None:
    jobs = find_jobs(source, settings.out).jobs
    run = run_jobs(client, jobs, settings, threading.Event())
    next(run)
    client.close()
    with pytest.raises(CohortError, match="scheduler is lost"):
        list(run)


def test_nothing_to_do_needs_no_workers(
    client: Any,
    source: Path,
    settings: Settings,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("medddpm.cohort.pool._CONNECT_S", 0.5)
    (source / "s2.nii.gz").unlink()
    jobs = find_jobs(source, settings.out).jobs
    list(run_jobs(client, jobs, settings, threading.Event()))
    pool = Pool("tcp://127.0.0.1:1", 1)  # nothing answers there
    run = CohortRun(source, settings.out, pool, OPTIONS, tiny_weights)
    result = cohort(run)
    assert result.counts.skipped == result.counts.total == 3
    with pytest.raises(ConfigError, match="no dask scheduler answers"):
        cohort(replace(run, options=replace(OPTIONS, fidelity=0.5)), overwrite=True)


def test_shares_of_a_machine() -> None:
    pool = plan_pool("local", 3, 6.0)
    assert (pool.workers, pool.memory_gb) == (3, 2.0)
    assert pool.threads >= 1
    assert plan_pool("tcp://host:8786", None, None).where == "tcp://host:8786"
    with pytest.raises(ConfigError, match="slurm"):
        plan_pool("lsf", None, None)


def test_a_scan_keeps_within_the_memory_of_its_worker() -> None:
    assert _within(RestoreOptions(), 10_000_000_000).memory_gb == 8.0
    assert _within(RestoreOptions(memory_gb=3.0), 10_000_000_000).memory_gb == 3.0
    assert _within(RestoreOptions(), None).memory_gb is None


def test_each_worker_takes_another_gpu(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    auto = replace(settings, device="auto")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [_device(auto, name) for name in (0, 1, 2)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert _device(settings, 1) == "cpu"
    assert plan_pool("local", None, None).workers == 2
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert _device(auto, 1) == "auto"


def test_a_batch_system_without_settings(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    from medddpm.cohort.pool import opened

    with pytest.raises(ConfigError, match=r"jobqueue\.slurm"), opened(Pool("slurm", 2), tmp_path):
        pass


def test_a_batch_system_that_takes_no_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue")
    pytest.importorskip("cryptography")
    dask = pytest.importorskip("dask")
    from medddpm.cohort.pool import opened

    for name, says in (("sbatch", "echo no such partition >&2; exit 1"), ("scancel", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{says}\n", encoding="ascii")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    given = {"cores": 1, "memory": "1GB", "scheduler-options": {"host": "127.0.0.1"}}
    config = {f"jobqueue.slurm.{name}": value for name, value in given.items()}
    refused = pytest.raises(ConfigError, match="slurm takes no jobs: no such partition")
    with dask.config.set(config), refused, opened(Pool("slurm", 2), tmp_path):
        pass
    assert not list(tmp_path.glob(".dask-jobqueue*")), "keys are left"


@pytest.mark.parametrize(
    ("counts", "stopped", "code"),
    [
        (Counts(4, 4, 0, 0, 0), False, 0),
        (Counts(4, 3, 1, 0, 0), False, 6),
        (Counts(4, 2, 1, 1, 0), False, 7),
        (Counts(4, 2, 1, 1, 0), True, 7),
        (Counts(4, 2, 0, 1, 0), True, 130),
    ],
)
def test_exit_codes(counts: Counts, stopped: bool, code: int) -> None:
    assert exit_code(counts, stopped=stopped) == code


def test_durations() -> None:
    assert [duration(s) for s in (5, 90, 4000)] == ["5 s", "2 min", "1 h 07 min"]


def test_a_dry_run_measures_once(
    cli: Callable[..., Any],
    source: Path,
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With smaller scans than a person's, and in this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("medddpm.cohort.calibration._EDGES", (32, 48))
    in_threads = lambda count, mp_context: ThreadPoolExecutor(count)  # noqa: E731
    monkeypatch.setattr("medddpm.cohort.calibration.ProcessPoolExecutor", in_threads)
    words = ("cohort", source, tmp_path / "out", "--weights", tiny_weights, "--dry-run")
    first = cli(*words, "--workers", 1, "--set", "restore.sigma=50")
    assert first.exit_code == 0, first.stderr
    assert "scans        4, 4 to do, 0 unreadable" in first.stdout
    assert not (tmp_path / "out").exists()
    [kept] = (tmp_path / "cache" / "medddpm").iterdir()
    measured = json.loads(kept.read_text())
    assert 0 <= measured["voxel_s"] < 1e-3
    assert 0.1 < measured["peak_gb"] < 16
    kept.write_text(json.dumps(measured | {"fixed_s": 900.0, "voxel_s": 0.0, "start_s": 0.0}))
    again = cli(*words, "--workers", 1, "--set", "restore.sigma=50")
    assert "3600 s = 1.00 h" in again.stdout
