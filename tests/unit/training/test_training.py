from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from medddpm.data.cache import build_cache, find_scans, pack, write_index
from medddpm.errors import CheckpointError, ConfigError, SamplingDivergedError
from medddpm.io import read_volume
from medddpm.preprocess.noise_law import NoiseKind
from medddpm.restoration.restorer import Restorer
from medddpm.training.batches import clean_batch, noisy_batch, seed_of
from medddpm.training.data import PackedScans, augment, check_split, crop
from medddpm.training.guard import AdaptiveClip
from medddpm.training.loop import learning_rate_at
from medddpm.training.options import (
    AutoencoderOptions,
    DataOptions,
    DiffusionOptions,
    DistilOptions,
    FidelityOptions,
    JointOptions,
    Options,
    TrainOptions,
)
from medddpm.training.run import train_stage
from medddpm.training.state import Ema
from medddpm.volume import Volume

OPTIONS = Options(
    DataOptions(patch=16, holdout=("sub-2*",)),
    AutoencoderOptions(
        encoder_channels=8, decoder_channels=8, encoder_blocks=1, decoder_blocks=1, steps=4, batch=2
    ),
    DiffusionOptions(channels=(8,), num_blocks=1, embedding_width=16, steps=4, batch=2),
    FidelityOptions(channels=(8, 8), num_blocks=1, embedding_width=16, steps=4, batch=2),
    JointOptions(steps=4, batch=2, cond_dropout=0.3),
    DistilOptions(steps=4, batch=2),
    TrainOptions(
        warmup=1, log_every=2, validate_every=4, validation_patches=2, bf16="off", device="cpu"
    ),
)


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
def trained_once(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders that hold the stages before each."""
    folder = tmp_path_factory.mktemp("trained")
    train_stage("autoencoder", OPTIONS, scans, folder / "one")
    shutil.copytree(folder / "one", folder / "two", symlinks=True)
    train_stage("diffusion", OPTIONS, scans, folder / "two")
    (folder / "none").mkdir()
    return {
        "autoencoder": folder / "none",
        "diffusion": folder / "one",
        "joint": folder / "one",
        "fidelity": folder / "two",
        "distil": folder / "two",
    }


def test_no_scan_stands_in_both_halves(scans: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    build_cache(find_scans(scans), cache)
    train = PackedScans(cache, ["sub-2*"], 16)
    held = PackedScans(cache, ["sub-2*"], 16, validation=True)
    assert [c.name for c in train.cases] == ["sub-1_T1w"]
    assert [c.name for c in held.cases] == ["sub-2_T1w"]
    with pytest.raises(ConfigError, match="holdout"):
        PackedScans(cache, ["*"], 16)


def test_a_crop_is_mirrored_where_the_image_ends() -> None:
    image = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((1, 4, 4), np.float32)
    patch = crop(image, np.array([2, 2, 2]), [8, 4, 4])
    assert patch[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 4, 3, 2]
    inner = crop(image, np.array([3, 2, 2]), [2, 4, 4])
    assert inner[:, 0, 0].tolist() == [2, 3]


def test_augmentation_moves_the_spacing_along() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        patch = np.ones((4, 4, 4), np.float32)
        patch[:, :, :2] = 0.1
        out, spacing = augment(patch, [1.0, 1.0, 5.0], rng)
        axis = int(np.argmax([np.abs(np.diff(out, axis=a)).max() for a in range(3)]))
        assert spacing[axis] == 5.0
        seen.add(axis)
    assert seen == {0, 1, 2}


def test_zero_background_stays_zero_in_augmentation() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        patch = rng.random((8, 8, 8), dtype=np.float32) + 0.2
        patch[:4] = 0
        out, _ = augment(patch, [1.0, 1.0, 1.0], rng)
        assert (out == 0).sum() == 256


def test_noisy_batches_hold_the_noise_they_state(scans: Path, tmp_path: Path) -> None:
    build_cache(find_scans(scans), tmp_path / "cache")
    train = PackedScans(tmp_path / "cache", ["sub-2*"], 16)
    options = replace(OPTIONS.data, rician=0.0, gain_map=1.0, masked_background=0.0, acquired=0.0)
    kinds: set[NoiseKind] = set()
    ratios = []
    for step in range(12):
        rng = np.random.default_rng(step)
        batch = noisy_batch(train, 2, rng, options)
        ratio = ((batch.y - batch.x) / batch.sigma).flatten(1)
        ratios += ratio.std(dim=1).tolist()
        kinds |= {"gaussian" if float(batch.y.min()) < 0 else "rician"}
    assert 0.9 < np.median(ratios) < 1.6
    assert kinds == {"gaussian", "rician"}


def test_batches_depend_on_the_seed_alone(scans: Path, tmp_path: Path) -> None:
    build_cache(find_scans(scans), tmp_path / "cache")
    train = PackedScans(tmp_path / "cache", ["sub-2*"], 16)
    a, _ = clean_batch(train, 2, np.random.default_rng(3), OPTIONS.data)
    b, _ = clean_batch(train, 2, np.random.default_rng(3), OPTIONS.data)
    c, _ = clean_batch(train, 2, np.random.default_rng(4), OPTIONS.data)
    torch.testing.assert_close(a, b, atol=0, rtol=0)
    assert not torch.equal(a, c)
    assert seed_of(0, "diffusion", 1) != seed_of(0, "diffusion", 2)


def test_thick_slices_are_averages(scans: Path, tmp_path: Path) -> None:
    build_cache(find_scans(scans), tmp_path / "cache")
    train = PackedScans(tmp_path / "cache", ["sub-2*"], 8)
    spacings = [train.draw(np.random.default_rng(i), thicken=1.0)[1] for i in range(20)]
    assert all(max(s) / min(s) >= 1.4 for s in spacings)
    assert len({int(np.argmax(s)) for s in spacings}) > 1


def test_all_stages_fill_one_weights_file(scans: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    out = tmp_path / "run"
    for stage in ("autoencoder", "diffusion", "fidelity"):
        path = train_stage(stage, OPTIONS, scans, out, on_log=rows.append)
        assert (out / stage / "log.csv").read_text().startswith("step,key,value")
        assert list((out / stage / "previews").glob("*.png"))
    from medddpm.model.model import load_model

    card = load_model(path).card
    assert set(card["stages"]) == {"autoencoder", "diffusion", "fidelity"}
    assert card["stages"]["fidelity"]["cases"] == 1
    assert any("psnr_0.05" in row for row in rows)


def test_both_networks_are_trained_at_once_on_coloured_noise(scans: Path, tmp_path: Path) -> None:
    options = replace(
        OPTIONS,
        diffusion=replace(OPTIONS.diffusion, coloured=True),
        fidelity=replace(OPTIONS.fidelity, coloured=True),
        train=replace(OPTIONS.train, schedule="decay", decay_steps=2, warmup=0),
    )
    rows: list[dict[str, Any]] = []
    out = tmp_path / "run"
    train_stage("autoencoder", options, scans, out)
    before = load_file(out / "model.safetensors")
    path = train_stage("joint", options, scans, out, on_log=rows.append)
    after = load_file(path)
    for network in ("unet.", "fidelity."):
        assert any(not torch.equal(before[k], after[k]) for k in after if k.startswith(network))
    assert all(torch.equal(before[k], after[k]) for k in after if k.startswith("codec.vae"))
    assert any("psnr_acquired" in row for row in rows)
    scan = read_volume(scans / "sub-2_T1w.nii.gz")
    result = Restorer.from_pretrained(path).restore(scan, sigma=20.0)
    assert np.isfinite(result.volume.data).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_all_stages_train_on_a_gpu(scans: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, train=replace(OPTIONS.train, device="cuda", bf16="on"))
    rows: list[dict[str, Any]] = []
    for stage in ("autoencoder", "diffusion", "fidelity"):
        train_stage(stage, options, scans, tmp_path / "run", on_log=rows.append)
    assert np.isfinite([row["loss"] for row in rows if "loss" in row]).all()


@pytest.mark.parametrize("stage", ["diffusion", "fidelity", "joint"])
def test_accumulated_parts_equal_the_whole_batch(
    scans: Path, trained_once: dict[str, Path], tmp_path: Path, stage: Any
) -> None:
    ends = []
    for batch, accumulate in ((4, 1), (2, 2)):
        out = shutil.copytree(trained_once[stage], tmp_path / str(batch), symlinks=True)
        train = replace(OPTIONS.train, accumulate=accumulate, log_every=1)
        section = replace(getattr(OPTIONS, stage), batch=batch)
        rows: list[dict[str, Any]] = []
        options = replace(OPTIONS, train=train, **{stage: section})
        train_stage(stage, options, scans, out, on_log=rows.append)
        ends.append([row["loss"] for row in rows if "loss" in row])
    assert len(ends[0]) == 4
    assert ends[0] == pytest.approx(ends[1], rel=1e-4)


@pytest.mark.parametrize("stage", ["autoencoder", "diffusion", "fidelity", "distil"])
def test_a_resumed_run_is_the_same_bit_for_bit(
    scans: Path, trained_once: dict[str, Path], tmp_path: Path, stage: Any
) -> None:
    def run(out: Path, steps: int, *, resume: bool) -> None:
        section = replace(getattr(OPTIONS, stage), steps=steps)
        options = replace(OPTIONS, train=replace(OPTIONS.train, schedule="constant"))
        train_stage(stage, replace(options, **{stage: section}), scans, out, resume=resume)

    whole, halves = (
        shutil.copytree(trained_once[stage], tmp_path / name, symlinks=True)
        for name in ("whole", "halves")
    )
    run(whole, 4, resume=False)
    run(halves, 2, resume=False)
    run(halves, 4, resume=True)
    a, b = (load_file(out / stage / "state.safetensors") for out in (whole, halves))
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


@pytest.mark.parametrize(
    ("names", "holdout", "said"),
    [
        (("sub-1_ses-1_T1w", "sub-1_ses-2_T1w"), "*ses-2*", "sub-1 is in both halves"),
        (("siteA_sub-1_T1w", "siteA_sub-1_T2w"), "*T2w", "siteA_sub-1 is in both halves"),
        (("sub-1_T1w", "sub-2_T1w"), "sub-2*", "are the same image"),
        (("first", "second"), "second", "first .train. and second .val. are the same"),
        (("siteA_sub-1_T1w", "siteB_sub-1_T1w", "siteB_sub-12_T1w"), "siteB_sub-1_*", ""),
    ],
)
def test_nobody_stands_in_both_halves(
    tmp_path: Path, phantom: Volume, names: tuple[str, ...], holdout: str, said: str
) -> None:
    same = "same image" in said or "first" in said
    cases = []
    for number, name in enumerate(names):
        other = phantom if same else phantom.with_data(phantom.data ** (1 - 0.1 * number))
        cases.append(pack(replace(other, case_id=name), tmp_path))
    write_index(tmp_path, cases)
    train = PackedScans(tmp_path, [holdout], 16)
    held = PackedScans(tmp_path, [holdout], 16, validation=True)
    if said:
        with pytest.raises(ConfigError, match=said):
            check_split(train, held)
    else:
        check_split(train, held)


def test_stages_come_in_order(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="autoencoder"):
        train_stage("diffusion", OPTIONS, scans, tmp_path / "run")
    train_stage("autoencoder", OPTIONS, scans, tmp_path / "run")
    with pytest.raises(ConfigError, match="diffusion"):
        train_stage("fidelity", OPTIONS, scans, tmp_path / "run")
    wider = replace(OPTIONS, autoencoder=replace(OPTIONS.autoencoder, encoder_channels=16))
    with pytest.raises(ConfigError, match="other options"):
        train_stage("diffusion", wider, scans, tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_that_then_goes_on_exactly(
    scans: Path, tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)

    def stop(row: dict[str, Any]) -> None:
        if row.get("step") == 1:
            os.kill(os.getpid(), number)

    options = replace(OPTIONS, train=replace(OPTIONS.train, log_every=1))
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train_stage("autoencoder", options, scans, whole)
    with pytest.raises(KeyboardInterrupt):
        train_stage("autoencoder", options, scans, halves, on_log=stop)
    assert signal.getsignal(number) is before
    rows: list[dict[str, Any]] = []
    train_stage("autoencoder", options, scans, halves, resume=True, on_log=rows.append)
    assert min(row["step"] for row in rows if "step" in row) == 2
    a, b = ((out / "autoencoder" / "state.safetensors").read_bytes() for out in (whole, halves))
    assert a == b


def test_a_loss_that_is_not_finite_stops_the_run(scans: Path, tmp_path: Path) -> None:
    wild = replace(OPTIONS, autoencoder=replace(OPTIONS.autoencoder, kl_weight=float("inf")))
    with pytest.raises(SamplingDivergedError, match="step 0"):
        train_stage("autoencoder", wild, scans, tmp_path / "run")


def test_a_damaged_state_is_said(scans: Path, tmp_path: Path) -> None:
    state = tmp_path / "run" / "autoencoder" / "state.safetensors"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot resume"):
        train_stage("autoencoder", OPTIONS, scans, tmp_path / "run", resume=True)


def test_the_learning_rate_warms_up_and_falls() -> None:
    options = TrainOptions(warmup=10)
    rates = [learning_rate_at(i, 100, 1.0, options) for i in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == pytest.approx(1)
    assert rates[99] < 0.02
    assert learning_rate_at(50, 100, 1.0, replace(options, schedule="constant")) == 1.0


def test_ema_is_the_running_average() -> None:
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    ema = Ema(net, decay=0.5)
    torch.nn.init.ones_(net.weight)
    ema.update(net, step=1000)
    assert float(ema.values["weight"]) == pytest.approx(0.5)
    ema.update(net, step=1001)
    assert float(ema.values["weight"]) == pytest.approx(0.75)


def test_a_rare_gradient_is_clipped_to_the_usual_and_a_broken_one_is_skipped() -> None:
    network = nn.Linear(4, 1, bias=False)
    clip = AdaptiveClip(2.0)

    def step(size: float) -> tuple[bool, float]:
        network.weight.grad = torch.full_like(network.weight, size / 2)
        return clip.limit(network), float(network.weight.grad.norm())

    for _ in range(5):
        useful, norm = step(0.1)
        assert useful
        assert norm == pytest.approx(0.1)
    useful, norm = step(100.0)
    assert useful
    assert norm == pytest.approx(0.2, rel=1e-3)
    assert clip.usual == pytest.approx(0.102)
    assert not step(float("nan"))[0]
    assert clip.usual == pytest.approx(0.102)
