"""Trainings as processes: killed at any moment, and several of them as one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and gloo of POSIX")
SETTINGS = {
    "train.device": "cpu",
    "train.log_every": 1,
    "train.validate_every": 1000,
    "train.validation_patches": 1,
    "train.schedule": "constant",
    "data.patch": 32,
}


def arguments(scans: Path, run: Path, **changes: object) -> list[str]:
    settings = SETTINGS | {name.replace("__", "."): value for name, value in changes.items()}
    sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    paths = ["--data", str(scans), "--out", str(run), "--config", "tiny_cpu"]
    return ["train", "autoencoder", *paths, *sets]


def started(words: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "medddpm", *words]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def finished(words: list[str]) -> str:
    """What a process said that ran to its end.

    Never this process: what ran in it before may change in which order sums are added.
    """
    process = started(words)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return said


def wait_for_step(process: subprocess.Popen[str], step: int) -> None:
    assert process.stderr
    for line in process.stderr:
        if line.startswith(f"autoencoder {step}/"):
            return
    pytest.fail(f"the training ended with {process.wait()} before step {step}")


def losses(run: Path) -> list[float]:
    log = [json.loads(row) for row in (run / "autoencoder" / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in log if "loss" in row]


@pytest.mark.slow
def test_a_run_killed_at_random_equals_an_uninterrupted_one(scans: Path, tmp_path: Path) -> None:
    step, killed = 0, []
    whole, halves = tmp_path / "whole", tmp_path / "killed"
    changes = {"autoencoder__steps": 60, "train__save_minutes": 1e-4}
    for _ in range(2):
        step += random.randint(3, 20)
        process = started([*arguments(scans, halves, **changes), "--resume"])
        wait_for_step(process, step)
        time.sleep(random.random() / 20)  # to be killed anywhere in a step
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        killed.append(step)
    for run in (halves, whole):
        finished([*arguments(scans, run, **changes), "--resume"])
    assert losses(whole) == losses(halves), killed
    for file in ("autoencoder/state.safetensors", "model.safetensors"):
        a, b = (load_file(run / file) for run in (whole, halves))
        assert a.keys() == b.keys()
        assert all(torch.equal(value, b[name]) for name, value in a.items()), killed


@pytest.mark.slow
def test_two_processes_equal_one_with_the_doubled_batch(scans: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    finished(arguments(scans, one, autoencoder__batch=4, autoencoder__steps=6))
    split = {"autoencoder__batch": 2, "train__devices": 2, "autoencoder__steps": 6}
    said = finished(arguments(scans, two, **split))
    assert said.count("autoencoder 6/6: loss") == 1
    # Rounding is 1e-7 of a loss, and may grow: Adam makes a full step of a gradient that is
    # rounding error alone. Training with half the batch differs by 1e-3 in the weights.
    assert losses(two) == pytest.approx(losses(one), rel=1e-3)
    a, b = (load_file(run / "model.safetensors") for run in (one, two))
    weights = [torch.cat([t.flatten() for _, t in sorted(w.items())]) for w in (a, b)]
    assert torch.linalg.norm(weights[0] - weights[1]) < 2e-4 * torch.linalg.norm(weights[0])


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_one_goes_on(
    cli: Callable[..., Any], scans: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    steps = {"autoencoder__steps": 2000}
    process = started(arguments(scans, run, autoencoder__batch=2, train__devices=2, **steps))
    wait_for_step(process, 3)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    done = len(losses(run))
    assert done < 2000
    steps = {"autoencoder__steps": done + 2}
    ended = cli(*arguments(scans, run, autoencoder__batch=4, **steps), "--resume")
    assert ended.exit_code == 0, ended.stderr
    assert "processes: 1, before 2; the same 4 samples a step" in ended.stderr
    assert len(losses(run)) == done + 2
