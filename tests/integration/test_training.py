"""The three stages on phantoms: they run, they resume bit for bit, their weights restore."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Cli = Callable[..., Any]
STAGES = ("autoencoder", "diffusion", "fidelity")


@pytest.fixture
def scans(tmp_path: Path, head: Any, save_nifti: Any) -> Path:
    """Three heads of different size; sub-03 is held out by tiny_cpu."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in (1, 2, 3):
        data = head((36 + 2 * number, 40, 38))
        save_nifti(folder / f"sub-0{number}_T1w.nii.gz", data, np.diag([1.0, 1.0, 1.1, 1.0]))
    return folder


def train(cli: Cli, stage: str, scans: Path, run: Path, *options: object) -> Any:
    return cli(
        *("train", stage, "--data", scans, "--config", "tiny_cpu", "--out", run),
        *("--set", "train.device=cpu", *options),
    )


def steps(count: int) -> list[str]:
    few = [f"{stage}.steps={count}" for stage in STAGES]
    settings = [*few, "train.validate_every=2", "train.schedule=constant"]
    return [word for setting in settings for word in ("--set", setting)]


def test_tiny_cpu_trains_all_stages_and_restores(
    cli: Cli, scans: Path, noisy_nifti: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    few = [word for stage in STAGES for word in ("--set", f"{stage}.steps=4")]
    for stage in STAGES:
        done = train(cli, stage, scans, run, *few)
        assert done.exit_code == 0, done.stderr
        assert f"{stage} 4/4" in done.stderr
        log = [json.loads(line) for line in (run / stage / "log.jsonl").read_text().splitlines()]
        losses = [row["loss"] for row in log if "loss" in row]
        assert np.isfinite(losses).all()
        assert (run / stage / "config.yaml").is_file()
        assert list((run / stage / "previews").glob("*.png"))
    weights = run / "model.safetensors"
    card = json.loads(cli("info", weights, "--json").stdout)["card"]
    assert set(card["stages"]) == set(STAGES)
    done = cli("restore", noisy_nifti, tmp_path / "out", "--weights", weights)
    assert done.exit_code in (0, 6), done.stderr


def test_a_run_is_not_overwritten(cli: Cli, scans: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(cli, "autoencoder", scans, run, *steps(1)).exit_code == 0
    before = (run / "autoencoder" / "state.safetensors").read_bytes()
    done = train(cli, "autoencoder", scans, run, *steps(2))
    assert done.exit_code == 5
    assert "--resume" in done.stderr
    assert (run / "autoencoder" / "state.safetensors").read_bytes() == before


def test_a_signal_ends_the_command_with_its_work_saved(
    cli: Cli, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medddpm.cli import training

    def interrupt(row: dict[str, Any]) -> str:
        if row.get("step") == 2 and "loss" in row:
            os.kill(os.getpid(), signal.SIGTERM)
        return ""

    monkeypatch.setattr(training, "log_line", interrupt)
    run = tmp_path / "run"
    done = train(cli, "autoencoder", scans, run, *steps(4), "--set", "train.log_every=1")
    assert done.exit_code == 130
    assert (run / "autoencoder" / "state.safetensors").is_file()
    monkeypatch.undo()
    done = train(cli, "autoencoder", scans, run, *steps(4), "--resume")
    assert done.exit_code == 0, done.stderr
    assert "autoencoder 4/4" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--set", "diffusion.stepz=1"), "diffusion.stepz"),
        (("--set", "data.holdout=[nobody*]"), "data.holdout"),
        (("--config", "huge"), "tiny_cpu"),
        (("--data", "no-such-folder"), "no-such-folder"),
    ],
)
def test_bad_training_options(
    options: tuple[str, ...], said: str, cli: Cli, scans: Path, tmp_path: Path
) -> None:
    done = train(cli, "autoencoder", scans, tmp_path / "run", *options)
    assert done.exit_code == 2, done.stderr
    assert said in done.stderr


def test_stages_in_the_wrong_order(cli: Cli, scans: Path, tmp_path: Path) -> None:
    done = train(cli, "fidelity", scans, tmp_path / "run")
    assert done.exit_code == 2
    assert "first" in done.stderr
