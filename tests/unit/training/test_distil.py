"""Distillation of the diffusion network: what it learns, what it leaves alone, what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medddpm.errors import ConfigError
from medddpm.io import read_volume
from medddpm.model.model import load_model
from medddpm.restoration.restorer import Restorer
from medddpm.training.batches import Share
from medddpm.training.distil import path_places
from medddpm.training.options import (
    AutoencoderOptions,
    DataOptions,
    DiffusionOptions,
    DistilOptions,
    FidelityOptions,
    FinetuneOptions,
    Options,
    TrainOptions,
)
from medddpm.training.run import begin_from, train_stage

OPTIONS = Options(
    data=DataOptions(patch=16, holdout=("sub-2*",), sigma_min=0.04),
    autoencoder=AutoencoderOptions(
        encoder_channels=8, decoder_channels=8, encoder_blocks=1, decoder_blocks=1, steps=2, batch=2
    ),
    diffusion=DiffusionOptions(
        channels=(8,), num_blocks=1, embedding_width=16, steps=2, batch=2
    ),
    fidelity=FidelityOptions(channels=(8, 8), num_blocks=1, embedding_width=16),
    distil=DistilOptions(steps=3, batch=4, learning_rate=1e-3),
    train=TrainOptions(
        warmup=1, log_every=1, validate_every=3, validation_patches=1, bf16="off", device="cpu",
        ema=0.5,
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def scans(
    tmp_path_factory: pytest.TempPathFactory, head: Any, save_nifti: Callable[..., Path]
) -> Path:
    """A folder of two clean phantoms; the second is held out."""
    folder, data = tmp_path_factory.mktemp("data"), head((32, 30, 26))
    for name, image in (("sub-1", data), ("sub-2", data**0.9)):
        save_nifti(folder / f"{name}_T1w.nii.gz", image, np.diag([1.0, 1.1, 1.3, 1.0]))
    return folder


@pytest.fixture(scope="module")
def teacher(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a trained diffusion network."""
    out = tmp_path_factory.mktemp("teacher")
    for stage in ("autoencoder", "diffusion"):
        train_stage(stage, OPTIONS, scans, out)
    return out


@pytest.fixture(scope="module")
def student(
    scans: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """A copy of that folder after the distillation, and what was logged."""
    rows: list[dict[str, Any]] = []
    out = shutil.copytree(teacher, tmp_path_factory.mktemp("student") / "run", symlinks=True)
    train_stage("distil", OPTIONS, scans, out, on_log=rows.append)
    return out, rows


def test_the_log_says_how_near_one_step_is_to_the_ends_of_the_paths(
    student: tuple[Path, list[dict[str, Any]]],
) -> None:
    (row,) = [row for row in student[1] if "closed" in row]
    assert -1 < row["closed"] < 1
    assert row["closed"] == pytest.approx((row["closed_0.05"] + row["closed_0.09"]) / 2)
    assert list((student[0] / "distil" / "previews").glob("*.png"))


def test_only_the_unet_changes_and_the_card_names_its_sampler(
    teacher: Path, student: tuple[Path, list[dict[str, Any]]]
) -> None:
    out = student[0]
    before, after = (load_file(p / "model.safetensors") for p in (teacher, out))
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("unet.") for name in changed)
    card = load_model(out / "model.safetensors").card
    assert card["sampler"] == "consistency"
    assert card["stages"]["distil"]["options"]["intervals"] == 8
    kept = (out / "distil" / "teacher.safetensors").read_bytes()
    assert kept == (teacher / "model.safetensors").read_bytes()


def test_a_sample_takes_the_sampler_of_the_weights(
    scans: Path, student: tuple[Path, list[dict[str, Any]]]
) -> None:
    restorer = Restorer.from_pretrained(student[0] / "model.safetensors")
    scan = read_volume(scans / "sub-2_T1w.nii.gz")
    small: dict[str, Any] = {"sigma": 20.0, "tile": 32, "overlap": 0, "steps": 2, "texture": 0.0}
    plain = restorer.restore(scan, mode="sample", **small)
    named = restorer.restore(scan, mode="sample", sampler="consistency", **small)
    assert plain.facts.options["sampler"] == "consistency"
    np.testing.assert_array_equal(plain.volume.data, named.volume.data)
    restorer.model.card.pop("sampler")
    other = restorer.restore(scan, mode="sample", **small)
    assert other.facts.options["sampler"] == "ddim"
    assert not np.array_equal(other.volume.data, plain.volume.data)


def test_another_sampler_is_refused_and_mean_takes_none(
    scans: Path, student: tuple[Path, list[dict[str, Any]]]
) -> None:
    restorer = Restorer.from_pretrained(student[0] / "model.safetensors")
    scan = read_volume(scans / "sub-2_T1w.nii.gz")
    with pytest.raises(ConfigError, match="distilled for consistency"):
        restorer.restore(scan, mode="sample", sampler="heun", sigma=20.0)
    done = restorer.restore(scan, mode="mean", sigma=20.0, tile=32, overlap=0)
    assert done.facts.options["sampler"] == "ddim"


def test_more_training_of_the_network_takes_the_sampler_off(
    scans: Path, student: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    begin_from(student[0] / "model.safetensors", tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").own_sampler == "consistency"
    few = replace(OPTIONS, diffusion=replace(OPTIONS.diffusion, steps=1))
    path = train_stage("diffusion", few, scans, tmp_path)
    assert load_model(path).own_sampler == ""


def test_low_rank_adapters_distil_too(scans: Path, teacher: Path, tmp_path: Path) -> None:
    begin_from(teacher / "model.safetensors", tmp_path / "model.safetensors")
    few = replace(
        OPTIONS, distil=replace(OPTIONS.distil, steps=2), finetune=FinetuneOptions(rank=2)
    )
    path = train_stage("distil", few, scans, tmp_path)
    assert load_model(path).card["finetuned"]["distil"]["finetune"]["rank"] == 2


def test_what_cannot_be_distilled_is_said(
    scans: Path, student: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--from"):
        train_stage("distil", OPTIONS, scans, tmp_path / "empty")
    begin_from(student[0] / "model.safetensors", tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="distilled already"):
        train_stage("distil", OPTIONS, scans, tmp_path)
    train_stage("autoencoder", OPTIONS, scans, tmp_path / "one")
    with pytest.raises(ConfigError, match="no trained diffusion"):
        train_stage("distil", OPTIONS, scans, tmp_path / "one")


def test_places_on_the_paths_are_stratified_whatever_the_parts() -> None:
    whole = path_places(Share(5, 0, 8, 8), 0.25)
    parts = [path_places(Share(5, start, 2, 8), 0.25) for start in range(0, 8, 2)]
    for index in range(2):
        torch.testing.assert_close(torch.cat([p[index] for p in parts]), whole[index])
    is_terminal, height = whole
    assert int(is_terminal.sum()) == 2
    assert sorted((height[~is_terminal] * 6).int().tolist()) == [0, 1, 2, 3, 4, 5]
