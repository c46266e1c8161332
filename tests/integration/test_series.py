"""Frames of a file that are restored together, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def film(tmp_path: Path, head: Any, save_nifti: Any, rng: np.random.Generator) -> Path:
    clean = head((22, 24, 16))[..., None] * np.linspace(1, 0.4, 9, dtype=np.float32)
    noisy = np.hypot(*(rng.normal(0, 30, (2, *clean.shape)) + np.stack([clean, 0 * clean])))
    path: Path = save_nifti(tmp_path / "film.nii.gz", noisy.astype(np.float32), np.eye(4))
    return path


def test_restored_reported_and_repeated(film: Path, tiny_weights: Path, cli: Any) -> None:
    pytest.importorskip("dipy")
    out = film.parent / "out"
    told = ["--weights", tiny_weights, "--set", "restore.frames=mppca", "--sigma", 30]
    done = cli("restore", film, f"{out}/", *told, "--report")
    assert done.exit_code in (0, 6), done.stderr
    assert "all were restored together first, by MPPCA (dipy" in done.stdout + done.stderr
    sidecar = out / "film_desc-denoised.json"
    facts = json.loads(sidecar.read_text())
    assert facts["series"]["frames"] == list(range(9))
    assert all(frame["sigma_left"] is not None for frame in facts["frames"])
    assert "all were restored together first" in (out / "film_desc-denoised.html").read_text()
    again = cli("replay", sidecar, "--weights", tiny_weights)
    assert again.exit_code == 0, again.stdout + again.stderr


def test_a_scan_of_one_frame_is_refused_before_anything_is_written(
    noisy_nifti: Path, tiny_weights: Path, cli: Any
) -> None:
    out = noisy_nifti.parent / "out"
    told = ["--weights", tiny_weights, "--set", "restore.frames=mppca"]
    done = cli("restore", noisy_nifti, f"{out}/", *told)
    assert done.exit_code == 2
    assert "has 1 frame, and restore.frames=mppca needs 8 or more" in done.stderr
    assert not list(out.glob("*"))
