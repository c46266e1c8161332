"""Threads: what is set before torch loads, and what stays as the user set it."""

import os
import subprocess
import sys

import pytest

from medddpm import threads


def test_waiting_threads_sleep_and_a_users_choice_stays() -> None:
    environ: dict[str, str] = {}
    threads.set_up(environ)
    assert environ["OMP_WAIT_POLICY"] == "PASSIVE"
    environ = {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "7"}
    threads.set_up(environ)
    assert environ == {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "7"}


def test_slurm_and_quota_lower_the_number_of_threads(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(threads, "affinity", lambda: 16)
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(threads, "_CGROUP_V2", quota)
    monkeypatch.setattr(threads, "_CGROUP_V1", tmp_path)
    assert threads.available_cores({}) == 16
    quota.write_text("max 100000\n")
    assert threads.available_cores({}) == 16
    quota.write_text("350000 100000\n")
    assert threads.available_cores({}) == 4
    environ = {"SLURM_CPUS_PER_TASK": "3"}
    threads.set_up(environ)
    assert environ["OMP_NUM_THREADS"] == "3"
    quota.unlink()
    (tmp_path / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    assert threads.available_cores({}) == 16
    (tmp_path / "cpu.cfs_quota_us").write_text("200000\n")
    assert threads.available_cores({}) == 2


@pytest.mark.parametrize("how", ["import medddpm, torch", "import medddpm.cli, torch"])
def test_every_entry_sets_it_before_torch_loads(how) -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    ask = f"{how}, os; print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run(
        [sys.executable, "-c", ask], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "PASSIVE"
