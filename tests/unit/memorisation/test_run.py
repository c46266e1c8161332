from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.config import Config, load_config
from medddpm.data.manifest import ScanRow, write_manifest
from medddpm.errors import CheckpointError, ConfigError, OutputError, VolumeReadError
from medddpm.memorisation.run import memorisation
from medddpm.workflows.training import train

SMALL: dict[str, Any] = {
    "data": {"patch": 16, "holdout": ["sub-3*", "sub-4*", "sub-5*"]},
    "autoencoder": {
        "latent_channels": 24,
        "encoder_channels": 8,
        "decoder_channels": 8,
        "encoder_blocks": 1,
        "decoder_blocks": 1,
        "steps": 2,
        "batch": 1,
    },
    "diffusion": {
        "channels": [8, 8],
        "num_blocks": 1,
        "embedding_width": 16,
        "steps": 2,
        "batch": 1,
    },
    "train": {"validation_patches": 1, "bf16": "off", "device": "cpu"},
}
ALPHA = 0.1


def brain(number: int) -> NDArray[np.float32]:
    """An ellipsoid in air with a texture of its own: another subject for each number."""
    shape = (36, 40, 34)
    axes = [np.linspace(-1, 1, n) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    noise = np.random.default_rng(number).standard_normal(shape)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    image = np.where(x**2 + y**2 + z**2 < 0.9, 600 + 150 * smooth / smooth.std(), 0)
    return np.clip(image, 0, None).astype(np.float32)


def write_scans(folder: Path, save: Any, images: dict[str, NDArray[np.float32]]) -> Path:
    folder.mkdir()
    for name, image in images.items():
        save(folder / f"{name}.nii.gz", image, np.diag([1.0, 1.0, 1.1, 1.0]))
    return folder


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(SMALL)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, save_nifti: Any, config: Config) -> Path:
    """A small trained run: subjects 1 and 2 trained on, 3 to 5 held out."""
    folder = tmp_path_factory.mktemp("trained")
    images = {f"sub-{i}_T1w": brain(i) for i in range(1, 6)}
    data = write_scans(folder / "data", save_nifti, images)
    for stage in ("autoencoder", "diffusion"):
        train(stage, data=data, out=folder / "run", config=config)  # type: ignore[arg-type]
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "run")


def test_copies_are_named_and_other_subjects_are_not(
    run: Path, tmp_path: Path, save_nifti: Any
) -> None:
    rng = np.random.default_rng(0)
    turned = np.ascontiguousarray(brain(1).transpose(1, 0, 2)[::-1, :, ::-1])
    noisy = turned + 20 * rng.standard_normal(turned.shape).astype(np.float32) * (turned > 0)
    others = {f"other-{i}": brain(i) for i in (11, 12, 13)}
    given = write_scans(tmp_path / "given", save_nifti, {"copy": noisy, **others})
    done = memorisation(run, scans=given, samples=6, alpha=ALPHA, device="cpu")
    copies = [row["copy"] for row in done.rows if row["source"] == "copy"]
    false = [row["copy"] for row in done.rows if row["source"] != "copy"]
    assert sum(copies) >= 5
    assert sum(false) <= 3  # of 18, 1.8 to be expected
    assert {r["nearest_subject"] for r in done.rows if r["source"] == "copy"} == {"sub-1"}
    assert done.verdict.chance < 0.05
    facts = json.loads((run / "memorisation" / "memorisation.json").read_text())
    assert facts["copies"] == sum(copies) + sum(false)
    assert facts["thresholds"]["correlation"]["low"] < ALPHA / 2
    assert (facts["training_subjects"], facts["held_out_subjects"]) == (2, 3)
    with (run / "memorisation" / "nearest.csv").open() as file:
        kinds = [line["kind"] for line in csv.DictReader(file)]
    assert (kinds.count("given"), kinds.count("held-out")) == (24, 20)
    page = (run / "memorisation" / "memorisation.html").read_text()
    assert f"{facts['copies']} of 24 samples are called copies" in page
    assert page.count(">nearest in training<") == page.count("<img ") / 2 > 8
    with pytest.raises(OutputError, match="overwrite"):
        memorisation(run, scans=given, alpha=ALPHA)


def test_samples_are_drawn_with_and_without_a_scan(run: Path, cli: Callable[..., Any]) -> None:
    seen = ("--samples", 2, "--alpha", ALPHA, "--device", "cpu", "--out", run / "seen")
    done = cli("memorisation", run, *seen)
    assert done.exit_code in (0, 6), done.stderr
    facts = json.loads((run / "seen" / "memorisation.json").read_text())
    assert {kind: found["samples"] for kind, found in facts["kinds"].items()} == {
        "conditional": 2,
        "prior": 2,
    }
    assert done.exit_code == (6 if facts["copies"] else 0)
    assert f"{facts['copies']} of 4 samples are copies" in done.stdout


def test_the_manifest_says_who_is_who(run: Path) -> None:
    rows = [ScanRow(f"sub-{i}_T1w", "anna" if i in (1, 3) else f"p{i}") for i in range(1, 6)]
    write_manifest(run / "manifest.csv", rows)
    with pytest.raises(ConfigError, match="1 subjects are trained on and held out"):
        memorisation(run, samples=1, alpha=ALPHA, device="cpu")


def test_what_is_missing_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        memorisation(tmp_path / "none", samples=1)
    with pytest.raises(ConfigError, match="alpha"):
        memorisation(run, alpha=0.9)
    with pytest.raises(ConfigError, match="at least one"):
        memorisation(run, samples=0)
    (tmp_path / "bad.nii.gz").write_bytes(b"nonsense")
    with pytest.raises(VolumeReadError, match=r"bad\.nii\.gz"):
        memorisation(run, scans=tmp_path / "bad.nii.gz", alpha=ALPHA)
    assert not (run / "memorisation").exists()
    (run / "cache" / "index.json").unlink()
    with pytest.raises(ConfigError, match="packed scans"):
        memorisation(run, samples=1)
