"""Jobs of a batch system, without one: what its commands print comes from scripts of ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from medddpm.cohort import batch
from medddpm.cohort.batch import JobKeeper, _exports, batch_config
from medddpm.errors import CohortError

HOLD_AND_WAIT = """
import signal, sys, time
from functools import partial
from pathlib import Path
from medddpm.cohort.batch_preload import dask_setup
from medddpm.cohort.claims import claimed
dask_setup(None)
half = Path(sys.argv[1]) / "half"
half.touch()
with claimed(Path(sys.argv[1]) / "claims", "a", "run", half.unlink):
    print("held", flush=True)
    time.sleep(60)
"""


@dataclass
class FakeJob:
    job_id: str | None
    status: Any = None


@dataclass
class SLURMCluster:
    """Keeps what it is asked for; the class is named as dask-jobqueue's."""

    workers: dict[str, FakeJob] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)

    @property
    def worker_spec(self) -> dict[str, FakeJob]:
        return dict(self.workers)

    def sync(self, call: Any, names: list[str]) -> None:
        call(names)

    def scale_down(self, names: list[str]) -> None:
        self.asked.append(sorted(names))

    def scale(self, jobs: int) -> None:
        self.asked.append(jobs)


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What squeue says."""
    says = tmp_path / "says"
    program = tmp_path / "squeue"
    program.write_text(f'#!/bin/sh\n[ "$3" = --user ] && cat {says}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(batch, "_LOOK_EVERY_S", 0.0)
    return says


def test_ended_and_refused_jobs_are_replaced(squeue: Path) -> None:
    cluster = SLURMCluster({"a": FakeJob("11"), "b": FakeJob("12"), "c": FakeJob(None)})
    keep = JobKeeper(cluster)
    squeue.write_text("11\n12\n99\n")
    keep(3)
    assert cluster.asked == []  # all work: squeue is not even asked
    keep(1)
    assert cluster.asked == [["c"], 3]
    squeue.write_text("12\n")
    keep(1)
    assert cluster.asked[2:] == [["a", "c"], 3]


def test_nothing_is_cancelled_while_slurm_is_away(squeue: Path) -> None:
    cluster = SLURMCluster({"a": FakeJob("11")})
    keep = JobKeeper(cluster)
    keep(0)  # cat fails: there is no such file
    assert cluster.asked == [1]


def test_jobs_that_never_work_end_the_run(squeue: Path) -> None:
    keep = JobKeeper(SLURMCluster({"a": FakeJob("11"), "b": FakeJob("12")}))
    squeue.write_text("")
    for _ in range(3):
        keep(0)
    keep(1)  # one worked: counting begins anew
    for _ in range(2):
        keep(0)
    with pytest.raises(CohortError, match="end before they work"):
        keep(0)


def test_a_long_wait_is_told_once(squeue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_WARN_S", -1.0)
    keep = JobKeeper(SLURMCluster({"a": FakeJob("11")}))
    squeue.write_text("11\n")
    with pytest.warns(UserWarning, match="no job has begun to work"):
        keep(0)
    keep(0)


def test_what_a_job_script_tells_dask() -> None:
    config = pytest.importorskip("dask.config")
    lines = "\n".join(_exports({"distributed.worker.preload": ["a b", "c"]}))
    done = subprocess.run(["bash", "-c", f"{lines}\nenv -0"], capture_output=True, check=True)
    pairs = (entry.partition("=") for entry in done.stdout.decode().split("\0") if entry)
    told = config.collect_env({name: value for name, _, value in pairs})
    worker = told["distributed"]["worker"]
    assert worker["preload"] == ["a b", "c"]
    assert worker["memory"] == {"target": False, "spill": False, "pause": False}


def test_only_where_jobs_are_listed_dask_forgets_none() -> None:
    assert batch_config("slurm")
    assert batch_config("pbs") == {}


def test_a_cancelled_job_hands_its_scan_back(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD_AND_WAIT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert len(list((tmp_path / "claims").iterdir())) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    assert list((tmp_path / "claims").iterdir()) == []
    assert not (tmp_path / "half").exists()
