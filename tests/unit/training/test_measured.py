from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from medddpm.errors import ConfigError
from medddpm.model.model import load_model
from medddpm.training.data import PackedScans, build_cache, find_scans
from medddpm.training.measured import MeasuredScans, measure_noise, pack_repeats
from medddpm.training.options import (
    AutoencoderOptions,
    DataOptions,
    DiffusionOptions,
    FidelityOptions,
    Options,
    TrainOptions,
)
from medddpm.training.run import train_stage
from medddpm.volume import Volume

Save = Callable[..., Path]
SIGMA = 50.0

OPTIONS = Options(
    DataOptions(patch=16, holdout=("sub-2*",)),
    AutoencoderOptions(
        encoder_channels=8, decoder_channels=8, encoder_blocks=1, decoder_blocks=1, steps=2, batch=1
    ),
    DiffusionOptions(channels=(8,), num_blocks=1, embedding_width=16, steps=2, batch=1),
    FidelityOptions(channels=(8, 8), num_blocks=1, embedding_width=16, steps=4, batch=2),
    TrainOptions(
        warmup=1, log_every=2, validate_every=4, validation_patches=2, bf16="off", device="cpu"
    ),
)


def rician(data: NDArray[Any], seed: int) -> NDArray[np.float32]:
    real, imaginary = np.random.default_rng(seed).normal(0, SIGMA, (2, *data.shape))
    return np.hypot(data + real, imaginary).astype(np.float32)


@pytest.fixture
def phantom_shape() -> tuple[int, int, int]:
    return (40, 44, 36)


@pytest.fixture
def scans(tmp_path: Path, phantom: Volume, save_nifti: Save) -> Path:
    """Two noisy heads, each scanned twice, and a clean one; sub-2 is held out."""
    folder = tmp_path / "data"
    folder.mkdir()
    for sub, data in (("1", phantom.data), ("2", phantom.data**0.9 * 2)):
        for run in (1, 2):
            name = f"sub-{sub}_run-{run}_T1w.nii.gz"
            save_nifti(folder / name, rician(data, int(sub) * 10 + run), phantom.affine)
    save_nifti(folder / "sub-3_T1w.nii.gz", phantom.data**0.95, phantom.affine)
    return folder


@pytest.fixture
def cache(scans: Path, tmp_path: Path) -> Path:
    assert build_cache(find_scans(scans), tmp_path / "cache") == []
    return tmp_path / "cache"


def test_sigma_is_measured_once_and_kept(cache: Path, tmp_path: Path, phantom: Volume) -> None:
    packed = PackedScans(cache, ["sub-2*", "sub-3*"], 16)
    folder = tmp_path / "measured"
    noise = measure_noise(packed, [0, 1], folder)
    for number, found in noise.items():
        unit = SIGMA / np.percentile(phantom.data[phantom.data > 0], 99.5)
        assert found.sigma / found.scale == pytest.approx(unit, rel=0.12), number
        assert 0.9 < found.scale <= 1.0
    rows = json.loads((folder / "noise.json").read_text())
    rows["sub-1_run-1_T1w"]["sigma"] = 0.5
    (folder / "noise.json").write_text(json.dumps(rows))
    assert measure_noise(packed, [0, 1], folder)[0].sigma == 0.5


def test_a_scan_without_noise_is_no_noisy_scan(tmp_path: Path, phantom: Volume) -> None:
    from medddpm.data.cache import pack, write_index

    flat = phantom.with_data((phantom.data > 0) * 500.0 + (phantom.data > 500) * 300.0)
    case = pack(replace(flat, case_id="flat"), tmp_path)
    write_index(tmp_path, [case])
    with pytest.raises(ConfigError, match="flat"):
        measure_noise(PackedScans(tmp_path, [], 16), [0], tmp_path / "measured")


def test_repeats_lie_on_the_grid_of_the_packed_scan(
    scans: Path, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "measured"
    assert pack_repeats(scans, folder) == []
    names = json.loads((folder / "repeats.json").read_text())
    assert names == ["sub-1_run-1_T1w", "sub-2_run-1_T1w"]
    stack = np.load(folder / "sub-1_run-1_T1w.repeats.npy")
    scan = PackedScans(cache, ["sub-2*", "sub-3*"], 16)
    number = next(n for n, case in enumerate(scan.cases) if case.name == "sub-1_run-1_T1w")
    packed = np.asarray(scan.images[number])
    np.testing.assert_array_equal(stack[0], packed)
    assert stack.shape == (2, *packed.shape)
    bright = packed > 0.5
    difference = (stack[1].astype(float) - packed.astype(float))[bright]
    assert difference.std() == pytest.approx(np.sqrt(2) * 0.05, rel=0.1)
    assert abs(difference.mean()) < 0.01


def test_frames_are_repeats_and_what_moved_is_not(
    tmp_path: Path, phantom: Volume, save_nifti: Save
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    frames = np.stack([rician(phantom.data, i) for i in range(3)], axis=-1)
    save_nifti(folder / "sub-1_bold.nii.gz", frames, phantom.affine)
    moved = np.stack([frames[..., 0], np.roll(frames[..., 1], 3, axis=0), frames[..., 2]], axis=-1)
    save_nifti(folder / "sub-2_bold.nii.gz", moved, phantom.affine)
    other = np.stack([frames[..., 0], 0.6 * frames[..., 1]], axis=-1)
    save_nifti(folder / "sub-3_dwi.nii.gz", other, phantom.affine)
    for run, shift in ((1, 0.0), (2, 0.4)):
        affine = phantom.affine + np.array([[0, 0, 0, shift]] * 3 + [[0, 0, 0, 0]])
        save_nifti(folder / f"sub-4_run-{run}_T1w.nii.gz", frames[..., run], affine)
    failures = pack_repeats(folder, tmp_path / "measured")
    names = json.loads((tmp_path / "measured" / "repeats.json").read_text())
    stacks = {n: np.load(tmp_path / "measured" / f"{n}.repeats.npy") for n in names}
    assert {n: len(stack) for n, stack in stacks.items()} == {"sub-1_bold": 3, "sub-2_bold": 2}
    np.testing.assert_array_equal(stacks["sub-2_bold"], stacks["sub-1_bold"][[0, 2]])
    assert [f.split(":")[0].removeprefix("repeats of ") for f in failures] == [
        "sub-2_bold.nii.gz",
        "sub-3_dwi.nii.gz",
        "sub-4_run-1_T1w.nii.gz",
    ]
    assert "1 differ from the first by over 1.5 times the noise" in failures[0]
    assert "another grid" in failures[2]


@pytest.mark.parametrize("repeats", [True, False])
def test_patches_keep_the_law_of_their_noise(
    scans: Path, cache: Path, tmp_path: Path, repeats: bool
) -> None:
    folder = tmp_path / "measured"
    pack_repeats(scans, folder)
    options = DataOptions(patch=16, holdout=("sub-2*",), references=("sub-3*",))
    measured = MeasuredScans(cache, folder, options, 2, repeats=repeats)
    assert measured.num_cases == (1 if repeats else 2)
    ratios = []
    for seed in range(8):
        batch, again = (
            measured.batch([np.random.default_rng([seed, i]) for i in range(2)]) for _ in range(2)
        )
        assert torch.equal(batch.y, again.y)
        if not repeats:
            assert torch.equal(batch.x, batch.y)
            continue
        bright = (batch.x + batch.y) / 2 > 0.4
        ratios.append(((batch.x - batch.y) / batch.sigma)[bright].std().item())
    if repeats:
        assert np.mean(ratios) == pytest.approx(np.sqrt(2), rel=0.12)


@pytest.mark.parametrize("objective", ["single", "pairs"])
def test_one_switch_trains_from_noisy_scans_and_resumes_exactly(
    scans: Path, tmp_path: Path, objective: Any
) -> None:
    data = replace(OPTIONS.data, references=("sub-3*",))
    options = replace(OPTIONS, train=replace(OPTIONS.train, schedule="constant"))
    noisy = replace(options, data=data, fidelity=replace(OPTIONS.fidelity, objective=objective))
    runs = tmp_path / "whole", tmp_path / "halves"
    rows: list[dict[str, Any]] = []
    for out in runs:
        # Stands for weights that were learned elsewhere.
        for stage in ("autoencoder", "diffusion"):
            train_stage(stage, options, scans, out)
    half = replace(noisy, fidelity=replace(noisy.fidelity, steps=2))
    path = train_stage("fidelity", noisy, scans, runs[0], on_log=rows.append)
    train_stage("fidelity", half, scans, runs[1])
    train_stage("fidelity", noisy, scans, runs[1], resume=True)
    a, b = (load_file(out / "fidelity" / "state.safetensors") for out in runs)
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
    figures = next(row for row in rows if "risk" in row)
    assert 0 < figures["risk"] < 1
    assert 0 < figures["risk_base"] < 1
    assert figures["psnr_0.05"] > 15
    card = load_model(path).card["stages"]["fidelity"]
    assert card["options"]["objective"] == objective
    assert card["cases"] == (1 if objective == "pairs" else 2)
    assert list((runs[0] / "fidelity" / "previews").glob("*.png"))


def test_what_needs_clean_scans_or_repeats_is_said(
    scans: Path, tmp_path: Path, phantom: Volume
) -> None:
    single = replace(OPTIONS, fidelity=replace(OPTIONS.fidelity, objective="single"))
    with pytest.raises(ConfigError, match="keep the shipped one"):
        train_stage("autoencoder", single, scans, tmp_path / "run")
    for path in scans.glob("*run-2*"):
        path.unlink()
    pairs = replace(OPTIONS, fidelity=replace(OPTIONS.fidelity, objective="pairs"))
    with pytest.raises(ConfigError, match=r"fidelity\.objective=single"):
        train_stage("fidelity", pairs, scans, tmp_path / "run")
