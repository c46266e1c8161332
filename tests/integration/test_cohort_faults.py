"""What a night holds, with real processes: workers and schedulers die, disks fill, jobs end early.

Each test counts: nothing lost, nothing done twice, no half file.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("distributed")
pytestmark = pytest.mark.slow

SPY = '''
"""Loaded into each worker: logs every record, and does the harm that a test asks for."""
import os, resource, signal, sys, time
from pathlib import Path
from medddpm.cohort import job
from medddpm.workflows import outputs

HERE = Path(os.environ["SPY_FOLDER"])  # dask loads a copy of this file
if not hasattr(job, "spied"):  # dask loads this twice
    job.spied = job._read, job.write_restored, job.Restorer.restore, job.save_outcome, os.rename
READ, WRITE, RESTORE, SAVE, RENAME = job.spied


def die_once(phase):
    if phase not in os.environ.get("SPY_KILL", "").split(","):
        return
    try:
        (HERE / f"killed-in-{phase}").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def read(item):
    volumes = READ(item)
    die_once("read")
    if os.environ.get("SPY_DEADLY") == item.name:
        os.kill(os.getpid(), signal.SIGKILL)
    return volumes


def restore(self, *args, **kwargs):
    time.sleep(float(os.environ.get("SPY_SLEEP", "0")))
    result = RESTORE(self, *args, **kwargs)
    die_once("compute")
    return result


def write(*args):
    done = WRITE(*args)
    die_once("write")
    return done


def rename(source, target):
    RENAME(source, target)
    if Path(target).parent.name == "out" and str(target).endswith(".nii.gz"):
        die_once("move")


def save(state, item, outcome):
    die_once("record")
    SAVE(state, item, outcome)
    with open(HERE / "saved.log", "a") as log:
        log.write(f"{item.name} {outcome.state}\\n")


job._read, job.write_restored, job.save_outcome = read, write, save
job.Restorer.restore = restore
outputs.os.rename = rename
if "SPY_FILE_SIZE" in os.environ:
    size = int(os.environ["SPY_FILE_SIZE"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
'''


class Workplace:
    """A folder with scans, weights and a spy, and the command that restores them."""

    def __init__(self, folder: Path, weights: Path, num_scans: int) -> None:
        self.folder, self.weights, self.num_scans = folder, weights, num_scans
        self.out = folder / "out"
        (folder / "spy.py").write_text(SPY, encoding="utf-8")

    def start(self, *options: object, **spy: object) -> subprocess.Popen[str]:
        words = [self.folder / "in", self.out, "--weights", self.weights, *options]
        command = [sys.executable, "-m", "medddpm", "cohort", *map(str, words)]
        environment = os.environ | {f"SPY_{k.upper()}": str(v) for k, v in spy.items()}
        environment["SPY_FOLDER"] = str(self.folder)
        environment["DASK_DISTRIBUTED__WORKER__PRELOAD"] = f"['{self.folder / 'spy.py'}']"
        return subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def run(self, *options: object, **spy: object) -> tuple[int, str]:
        process = self.start(*options, **spy)
        return finish(process)

    def wait_for_records(self, count: int = 1) -> None:
        deadline = time.monotonic() + 120
        while len(self.saved()) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(self.saved()) >= count

    def saved(self) -> list[str]:
        log = self.folder / "saved.log"
        return log.read_text(encoding="utf-8").splitlines() if log.exists() else []

    def check_whole(self) -> None:
        """Every scan restored once, with its report; nothing else is left."""
        names = [f"s{number:03d}" for number in range(self.num_scans)]
        rows = list(csv.DictReader((self.out / "cohort.csv").read_text().splitlines()))
        assert [row["scan"] for row in rows] == names
        assert Counter(line for line in self.saved()) == Counter(f"{n} restored" for n in names)
        found = sorted(p.name for p in self.out.iterdir() if not p.name.startswith("cohort."))
        wanted = [f"{n}_desc-denoised{s}" for n in names for s in (".json", ".nii.gz")]
        assert found == [".medddpm", *wanted]
        self.check_clean()

    def check_clean(self) -> None:
        assert not list(self.out.rglob(".medddpm-*")), "a half-written output is left"
        assert not list((self.out / ".medddpm" / "claims").glob("*")), "a claim is left"


def finish(process: subprocess.Popen[str], seconds: float = 150) -> tuple[int, str]:
    """Its exit code and what it said; it never outlives the test."""
    try:
        said = process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said = process.communicate()[1] + "\nit hung"
    return process.returncode, said


@pytest.fixture
def workplace(
    tmp_path: Path, head: Any, save_nifti: Any, tiny_weights: Path, rng: np.random.Generator
) -> Callable[[int], Workplace]:
    def make(num_scans: int) -> Workplace:
        (tmp_path / "in").mkdir()
        clean = head((36, 36, 32))
        for number in range(num_scans):
            noisy = np.hypot(*(rng.normal(0, 50, (2, *clean.shape)) + np.stack([clean, 0 * clean])))
            path = tmp_path / "in" / f"s{number:03d}.nii.gz"
            save_nifti(path, noisy.astype(np.float32), np.diag([1, 1, 1.5, 1.0]))
        return Workplace(tmp_path, tiny_weights, num_scans)

    return make


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A dask scheduler and a worker of somebody else."""
    file = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    where = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file), "--port", "0"]
    code = "from distributed.cli.dask_{0} import main; main()"
    base = [sys.executable, "-c"]
    first = subprocess.Popen([*base, code.format("scheduler"), *where], **quiet)  # type: ignore[call-overload]
    options = ["--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--no-nanny"]
    spy = ["--preload", str(tmp_path / "spy.py")]
    (tmp_path / "spy.py").write_text(SPY, encoding="utf-8")
    environment = os.environ | {"SPY_SLEEP": "0.5", "SPY_FOLDER": str(tmp_path)}
    second = subprocess.Popen(
        [*base, code.format("worker"), *options, *spy],
        env=environment,
        **quiet,  # type: ignore[call-overload]
    )
    while not file.exists():
        time.sleep(0.1)
    yield json.loads(file.read_text())["address"], first
    for process in (first, second):
        process.kill()
        process.wait()


def test_a_worker_killed_in_each_phase(workplace: Any) -> None:
    place = workplace(6)
    phases = ("read", "compute", "write", "move", "record")
    code, said = place.run("--workers", 2, kill=",".join(phases))
    assert code == 0, said
    assert {p.name for p in place.folder.glob("killed-in-*")} == {f"killed-in-{p}" for p in phases}
    place.check_whole()


def test_a_scan_that_kills_its_workers_fails_alone(workplace: Any) -> None:
    place = workplace(3)
    code, said = place.run("--workers", 1, deadly="s001")
    assert code == 7, said
    assert "s001: its worker died each time" in said
    assert sorted(place.saved()) == ["s000 restored", "s002 restored"]
    code, said = place.run("--workers", 1, "--resume")
    assert code == 0, said
    place.check_whole()


def test_the_main_process_and_its_scheduler_killed(workplace: Any) -> None:
    place = workplace(8)
    process = place.start("--workers", 2, sleep=0.3)
    place.wait_for_records(2)
    process.kill()
    process.communicate()
    before = len(place.saved())
    assert before < 8
    code, said = place.run("--workers", 2, "--resume")
    assert code == 0, said
    place.check_whole()


def test_a_scheduler_of_others_killed(workplace: Any, scheduler: Any) -> None:
    place = workplace(8)
    address, process = scheduler
    ours = place.start("--cluster", address)
    place.wait_for_records(2)
    process.kill()
    code, said = finish(ours)
    assert code == 7, said
    assert "scheduler is lost" in said
    assert "Traceback" not in said
    code, said = place.run("--workers", 1, "--resume")
    assert code == 0, said
    place.check_whole()


def test_sigterm_to_all_processes_as_slurm_sends_it(workplace: Any) -> None:
    place = workplace(12)
    process = place.start("--workers", 2, sleep=0.5)
    place.wait_for_records(2)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGTERM)
    code, said = finish(process, 60)
    assert code == 130, said
    assert time.monotonic() - began < 28  # Slurm kills after 30
    assert "--resume" in said
    place.check_clean()
    assert 2 <= len(place.saved()) < 12
    code, said = place.run("--workers", 2, "--resume")
    assert code == 0, said
    place.check_whole()


def test_a_full_disk(workplace: Any) -> None:
    place = workplace(4)
    code, said = place.run("--workers", 2, file_size=20_000)
    assert code == 5, said
    assert "File too large" in said
    assert "Traceback" not in said
    place.check_clean()
    assert place.saved() == []
    assert not list(place.out.glob("*.nii.gz"))
    code, said = place.run("--workers", 2, "--resume")
    assert code == 0, said
    place.check_whole()


def test_two_runs_at_once(workplace: Any) -> None:
    place = workplace(8)
    both = [place.start("--workers", 1, sleep=0.2) for _ in range(2)]
    for process in both:
        code, said = finish(process)
        assert code == 0, said
    place.check_whole()


def test_500_scans_of_which_50_are_bad(workplace: Any) -> None:
    place = workplace(500)
    bad = [place.folder / "in" / f"s{number:03d}.nii.gz" for number in range(5, 500, 10)]
    for path in bad:
        path.write_bytes(path.read_bytes()[:3000])
    began = time.monotonic()
    code, said = finish(place.start("--workers", 2), 450)
    seconds = time.monotonic() - began
    assert code == 7, said
    rows = list(csv.DictReader((place.out / "cohort.csv").read_text().splitlines()))
    assert Counter(row["state"] for row in rows) == {"restored": 450, "failed": 50}
    assert all("cut short" in row["reason"] for row in rows if row["state"] == "failed")
    assert len(place.saved()) == 500
    assert len(list(place.out.glob("*.nii.gz"))) == 450
    place.check_clean()
    sys.stderr.write(f"\n500 scans, 450 restored, 50 failed: {seconds:.0f} s\n")
