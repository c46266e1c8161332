"""Fine-tuning: it starts from given weights, changes what it may, and says where it came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

Cli = Callable[..., Any]


@pytest.fixture
def phantom_shape() -> tuple[int, int, int]:
    return (40, 44, 36)


def tune(cli: Cli, stage: str, scans: Path, run: Path, *options: object, steps: int = 3) -> Any:
    settings = [f"{stage}.steps={steps}", "train.device=cpu", "train.validate_every=3"]
    words = [word for setting in settings for word in ("--set", setting)]
    return cli(
        *("train", stage, "--data", scans, "--config", "tiny_cpu", "--out", run),
        *words,
        *options,
    )


def changed(before: Path, after: Path) -> set[str]:
    """Names of the tensors that differ, in half precision of rounding."""
    a, b = load_file(before), load_file(after)
    assert set(a) == set(b)
    return {name for name in a if not torch.equal(a[name].float(), b[name].float())}


def test_only_the_network_of_the_stage_changes_and_the_card_tells(
    cli: Cli, scans: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = tune(cli, "fidelity", scans, run, "--from", tiny_weights)
    assert done.exit_code == 0, done.stderr
    weights = run / "model.safetensors"
    names = changed(tiny_weights, weights)
    assert names
    assert all(name.startswith("fidelity.") for name in names)
    card = json.loads(cli("info", weights, "--json").stdout)["card"]
    assert card["finetuned_from"]["name"] == "tiny"
    assert card["finetuned"]["fidelity"]["steps"] == 3
    assert card["data"] == "none: random weights for tests"
    # The next stage needs no --from: the folder knows.
    done = tune(cli, "diffusion", scans, run, "--set", "finetune.freeze=[unet.stem.*]")
    assert done.exit_code == 0, done.stderr
    both = changed(tiny_weights, run / "model.safetensors")
    assert any(name.startswith("unet.") for name in both)
    assert not any(name.startswith(("codec.", "unet.unet.stem.")) for name in both)


def test_adapters_change_what_they_adapt_and_leave_no_trace(
    cli: Cli, scans: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = ("--from", tiny_weights, "--set", "finetune.rank=2")
    done = tune(cli, "diffusion", scans, run, *options)
    assert done.exit_code == 0, done.stderr
    names = changed(tiny_weights, run / "model.safetensors")  # the same names: merged
    assert names
    assert all(name.startswith("unet.") and name.endswith("weight") for name in names)
    before, after = load_file(tiny_weights), load_file(run / "model.safetensors")
    name = "unet.unet.stem.weight"
    ranks = torch.linalg.matrix_rank((after[name] - before[name].float()).flatten(1), rtol=1e-3)
    assert 1 <= ranks <= 2


def test_a_resumed_fine_tuning_is_the_same_bit_for_bit(
    cli: Cli, scans: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    start = ("--from", tiny_weights, "--set", "train.schedule=constant")
    constant = ("--set", "train.schedule=constant", "--set", "finetune.rank=2")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert tune(cli, "diffusion", scans, whole, *start, *constant[2:], steps=4).exit_code == 0
    assert tune(cli, "diffusion", scans, halves, *start, *constant[2:], steps=2).exit_code == 0
    # The first half ended: its merged weights must not be what the second half starts from.
    done = tune(cli, "diffusion", scans, halves, *constant, "--resume", steps=4)
    assert done.exit_code == 0, done.stderr
    assert not changed(whole / "model.safetensors", halves / "model.safetensors")


def test_replay_draws_from_the_other_scans_too(
    cli: Cli, scans: Path, tiny_weights: Path, head: Any, save_nifti: Any, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    save_nifti(other / "sub-09_T1w.nii.gz", head((40, 44, 36)), np.diag([1.0, 1.0, 1.0, 1.0]))
    plain, mixed = tmp_path / "plain", tmp_path / "mixed"
    start = ("--from", tiny_weights)
    assert tune(cli, "fidelity", scans, plain, *start).exit_code == 0
    done = tune(cli, "fidelity", scans, mixed, *start, "--replay", other)
    assert done.exit_code == 0, done.stderr
    card = json.loads(cli("info", mixed / "model.safetensors", "--json").stdout)["card"]
    assert card["finetuned"]["fidelity"]["cases"] == 2
    assert changed(plain / "model.safetensors", mixed / "model.safetensors")


def test_noisy_scans_tune_the_decoder_alone(
    cli: Cli, scans: Path, tiny_weights: Path, head: Any, save_nifti: Any, tmp_path: Path
) -> None:
    rng, noisy = np.random.default_rng(0), tmp_path / "noisy"
    noisy.mkdir()
    for number in (1, 3):
        data = head((36 + 2 * number, 40, 38))
        parts = rng.normal(0, 40, (2, *data.shape))
        image = np.hypot(data + parts[0], parts[1]).astype(np.float32)
        save_nifti(noisy / f"sub-0{number}_T1w.nii.gz", image, np.diag([1.0, 1.0, 1.1, 1.0]))
    options = ("--from", tiny_weights, "--set", "fidelity.objective=single")
    done = tune(cli, "fidelity", noisy, tmp_path / "run", *options)
    assert done.exit_code == 0, done.stderr
    names = changed(tiny_weights, tmp_path / "run" / "model.safetensors")
    assert names
    assert all(name.startswith("fidelity.") for name in names)
    done = tune(cli, "fidelity", noisy, tmp_path / "other", *options, "--replay", scans)
    assert done.exit_code == 2
    assert "--replay mixes in clean scans" in done.stderr


@pytest.mark.parametrize(
    ("stage", "setting", "words"),
    [
        ("fidelity", "finetune.rank=2", "adapters are for diffusion and distil"),
        ("fidelity", "finetune.freeze=[nothing.*]", "matches no parameter; they are called"),
        ("fidelity", "finetune.freeze=['*']", "nothing to train"),
    ],
)
def test_what_cannot_be_tuned_is_said(
    stage: str,
    setting: str,
    words: str,
    cli: Cli,
    scans: Path,
    tiny_weights: Path,
    tmp_path: Path,
) -> None:
    done = tune(cli, stage, scans, tmp_path / "r", "--from", tiny_weights, "--set", setting)
    assert done.exit_code == 2
    assert words in done.stderr


def test_two_models_are_compared_in_one_benchmark(
    cli: Cli, clean_nifti: Path, scans: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "bench"
    assert tune(cli, "fidelity", scans, run, "--from", tiny_weights).exit_code == 0
    after = f"mean@weights={run / 'model.safetensors'}"
    done = cli(
        *("benchmark", clean_nifti, "--out", out, "--sigma", "0.05", "--weights", tiny_weights),
        *("--method", "mean", "--method", after, "--reference", "mean"),
    )
    assert done.exit_code == 0, done.stderr
    facts = json.loads((out / "results.json").read_text())
    assert len(set(facts["weights_sha256"].values())) == 2
    gains = {line["method"]: line["gain"] for line in facts["summary"]}
    assert gains["mean"] == 0
    assert gains[after] != 0
