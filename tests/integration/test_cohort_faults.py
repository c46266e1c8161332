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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.node_process import wait_until

pytest.importorskip("distributed")
pytestmark = pytest.mark.slow


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
    spy = ["--preload", str(Path(__file__).parents[1] / "cohort_spy.py")]
    environment = os.environ | {"SPY_SLEEP": "0.5", "SPY_FOLDER": str(tmp_path)}
    second = subprocess.Popen(
        [*base, code.format("worker"), *options, *spy],
        env=environment,
        **quiet,  # type: ignore[call-overload]
    )
    wait_until(file.exists)
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
    code, said = place.finish(ours)
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
    code, said = place.finish(process, 60)
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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB, mounted where the output goes."""
    folder = tmp_path / "out"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted: that needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_on_the_way(workplace: Any, small_disk: Path) -> None:
    place = workplace(8)
    code, said = place.run("--workers", 2)
    assert code == 5, said
    assert "No space left" in said
    assert "Traceback" not in said
    done = len(list(small_disk.glob("*.nii.gz")))
    assert 1 <= done < 8
    place.check_clean()
    subprocess.run(["mount", "-o", "remount,size=9m", str(small_disk)], check=True)
    code, said = place.run("--workers", 2, "--resume")
    assert code == 0, said
    place.check_whole()


def test_a_scan_that_changes_while_it_is_read(workplace: Any) -> None:
    place = workplace(5)
    code, said = place.run("--workers", 2, change="s002")
    assert code == 7, said
    assert "s002: it changed while it was read" in said
    assert Counter(line.split()[1] for line in place.saved()) == {"restored": 4, "failed": 1}
    assert len(list(place.out.glob("*.nii.gz"))) == 4
    place.check_clean()
    code, said = place.run("--workers", 2, "--resume")
    assert code == 0, said
    (place.folder / "saved.log").write_text(
        "".join(f"{line}\n" for line in place.saved() if not line.endswith("failed"))
    )
    place.check_whole()


def test_a_damaged_scan_in_the_middle(workplace: Any) -> None:
    place = workplace(5)
    path = place.folder / "in" / "s002.nii.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF  # found by gzip's checksum at the earliest
    path.write_bytes(content)
    code, said = place.run("--workers", 2)
    assert code == 7, said
    assert "s002: s002.nii.gz cannot be read" in said
    assert sorted(place.saved()) == [
        f"s{n:03d} {'failed' if n == 2 else 'restored'}" for n in range(5)
    ]
    assert len(list(place.out.glob("*.nii.gz"))) == 4
    place.check_clean()


def test_two_runs_at_once(workplace: Any) -> None:
    place = workplace(8)
    both = [place.start("--workers", 1, sleep=0.2) for _ in range(2)]
    for process in both:
        code, said = place.finish(process)
        assert code == 0, said
    place.check_whole()


def test_500_scans_of_which_50_are_bad(workplace: Any) -> None:
    place = workplace(500)
    bad = [place.folder / "in" / f"s{number:03d}.nii.gz" for number in range(5, 500, 10)]
    for path in bad:
        path.write_bytes(path.read_bytes()[:3000])
    began = time.monotonic()
    code, said = place.run("--workers", 2, seconds=450)
    seconds = time.monotonic() - began
    assert code == 7, said
    rows = list(csv.DictReader((place.out / "cohort.csv").read_text().splitlines()))
    assert Counter(row["state"] for row in rows) == {"restored": 450, "failed": 50}
    assert all("cut short" in row["reason"] for row in rows if row["state"] == "failed")
    assert len(place.saved()) == 500
    assert len(list(place.out.glob("*.nii.gz"))) == 450
    place.check_clean()
    sys.stderr.write(f"\n500 scans, 450 restored, 50 failed: {seconds:.0f} s\n")
