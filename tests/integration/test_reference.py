"""`restore --reference`: from file to file, again by `replay`, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medddpm.model.model import load_model
from medddpm.reference.network import ReferenceNetwork, ReferenceSpec
from medddpm.reference.weights import ReferenceCard, TrainedReference, save_reference
from medddpm.volume import Volume

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def own_weights(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random reference network beside the tiny model."""
    torch.manual_seed(0)
    network = ReferenceNetwork(ReferenceSpec((8, 8)))
    with torch.no_grad():
        network.gates.bias.fill_(0.5)
    digest = load_model(tiny_weights).networks_digest
    card = ReferenceCard(model=digest, scans=(), labels=1, held=(), steps=1, hours=0.0, figures={})
    path = tmp_path_factory.mktemp("reference") / "own.safetensors"
    save_reference(path, TrainedReference(network, card))
    return path


@pytest.fixture
def second(tmp_path: Path, phantom: Volume, save_nifti: Any) -> Path:
    """The phantom in another contrast: bright becomes dark, air stays air."""
    dark = np.where(phantom.data > 0, 1.2 * phantom.data.max() - phantom.data, 0)
    path: Path = save_nifti(tmp_path / "second.nii.gz", dark.astype(np.float32), phantom.affine)
    return path


@pytest.fixture
def restore(cli: Cli, noisy_nifti: Path, tiny_weights: Path, own_weights: Path) -> Any:
    """Runs the command with the tiny networks."""

    def run(output: Path, *more: object) -> Any:
        weights = ("--weights", tiny_weights, "--reference-weights", own_weights)
        return cli("restore", noisy_nifti, output, *weights, "--set", "restore.tile=32", *more)

    return run


def test_it_is_written_down_and_done_again(
    cli: Cli, restore: Any, second: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = restore(out, "--reference", second, "--report")
    assert done.exit_code in (0, 6), done.stderr
    sidecar = out / "noisy_desc-denoised.json"
    told = json.loads(sidecar.read_text())["reference"]
    assert told["case_id"] == "second"
    assert told["path"] == "../second.nii.gz"
    assert told["weights"]["source"].endswith("own.safetensors")
    assert "second, SHA-256" in (out / "noisy_desc-denoised.html").read_text(encoding="utf-8")
    again = cli("replay", sidecar)
    assert again.exit_code == 0, again.stdout + again.stderr
    assert "the same bytes" in again.stdout
    elsewhere = second.rename(tmp_path / "elsewhere.nii.gz")
    gone = cli("replay", sidecar)
    assert gone.exit_code == 3
    assert "second.nii.gz does not exist" in gone.stderr
    assert cli("replay", sidecar, "--reference", elsewhere).exit_code == 0
    other = cli("replay", sidecar, "--reference", out / "noisy_desc-denoised.nii.gz")
    assert other.exit_code == 3
    assert "has changed" in other.stderr


def test_what_is_refused(
    restore: Any,
    cli: Cli,
    second: Path,
    phantom: Volume,
    save_nifti: Any,
    noisy_nifti: Path,
    tiny_weights: Path,
) -> None:
    tmp_path = second.parent
    holed, film = phantom.data.copy(), np.stack([phantom.data] * 2, -1)
    holed[2, 2, 2] = np.nan
    away = phantom.affine.copy()
    away[:3, 3] += 1000
    files = {
        "holed": save_nifti(tmp_path / "holed.nii.gz", holed, phantom.affine),
        "film": save_nifti(tmp_path / "film.nii.gz", film, phantom.affine),
        "away": save_nifti(tmp_path / "away.nii.gz", phantom.data, away),
    }
    for name, code, words in (
        ("holed", 3, "NaN"),
        ("film", 3, "is 4D"),
        ("away", 4, "covers 0%"),
    ):
        failed = restore(tmp_path / "out", "--reference", files[name])
        assert failed.exit_code == code, name
        assert words in failed.stderr
    failed = restore(tmp_path / "out", "--reference", tmp_path / "none.nii.gz")
    assert failed.exit_code == 3
    failed = restore(tmp_path / "out", "--reference", second, "--mode", "sample")
    assert failed.exit_code == 2
    assert "mode sample" in failed.stderr
    failed = restore(tmp_path / "out")
    assert failed.exit_code == 2
    assert "--reference-weights goes with" in failed.stderr
    phase = ("--phase", second, "--reference", second)
    failed = restore(tmp_path / "out", *phase)
    assert failed.exit_code == 2
    weights = ("--weights", tiny_weights)
    failed = cli("restore", noisy_nifti, tmp_path / "out", *weights, "--reference", second)
    assert failed.exit_code == 3
    assert "other weights" in failed.stderr
    assert not list((tmp_path / "out").glob("*"))


def test_a_moved_one_is_said_and_changes_nothing(
    restore: Any, second: Path, phantom: Volume, save_nifti: Any, tmp_path: Path
) -> None:
    affine = phantom.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [3, 3, 0]
    dark = np.where(phantom.data > 0, 1.2 * phantom.data.max() - phantom.data, 0)
    moved = save_nifti(tmp_path / "moved.nii.gz", dark.astype(np.float32), affine)
    done = restore(tmp_path / "moved", "--reference", moved)
    assert "the reference does not fit the scan and was not used" in done.stderr
    facts = json.loads((tmp_path / "moved" / "noisy_desc-denoised.json").read_text())
    restore(tmp_path / "same", "--reference", moved)
    used = restore(tmp_path / "used", "--reference", second)
    assert "does not fit" not in used.stderr
    right = json.loads((tmp_path / "used" / "noisy_desc-denoised.json").read_text())
    assert facts["output"]["voxels_sha256"] != right["output"]["voxels_sha256"]


def test_another_patient_is_said(
    cli: Cli, restore: Any, dicom_series: Any, noisy_phantom: Volume, tiny_weights: Path,
    own_weights: Path, tmp_path: Path,
) -> None:  # fmt: skip
    import pydicom

    scan = dicom_series(tmp_path / "scan", noisy_phantom.data)
    other = dicom_series(tmp_path / "other", noisy_phantom.data, number=2)
    for path in other.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PatientID = "somebody else"
        dataset.save_as(path)
    weights = ("--weights", tiny_weights, "--reference-weights", own_weights)
    done = cli("restore", scan, tmp_path / "out", *weights, "--reference", other)
    assert "another PatientID" in done.stderr
    [sidecar] = (tmp_path / "out").glob("*.json")
    assert "other" not in json.dumps(json.loads(sidecar.read_text())["reference"])
