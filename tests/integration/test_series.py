"""Frames of a file that are restored together, from the command line."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medddpm.share import share_dir

PAGE = share_dir() / "docs" / "frames.md"


@pytest.fixture
def film(tmp_path: Path, head: Any, save_nifti: Any, rng: np.random.Generator) -> Path:
    clean = head((30, 32, 24))[..., None] * np.linspace(1, 0.4, 8, dtype=np.float32)
    noisy = np.hypot(*(rng.normal(0, 40, (2, *clean.shape)) + np.stack([clean, 0 * clean])))
    path: Path = save_nifti(tmp_path / "dwi.nii.gz", noisy.astype(np.float32), np.eye(4))
    path.with_name("dwi.bval").write_text("0 0 1000 1000 1000 1000 1000 1000\n")
    return path


def test_the_commands_of_the_page_restore_and_repeat(
    film: Path, tiny_weights: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dipy")
    monkeypatch.chdir(film.parent)
    [block] = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    restore, replay = (shlex.split(line) for line in block.splitlines())
    done = cli(*restore[1:], "--weights", tiny_weights, "--report")
    assert done.exit_code in (0, 6), done.stderr
    assert "all were restored together first, by MPPCA (dipy" in done.stdout + done.stderr
    facts = json.loads(Path("restored/dwi_desc-denoised.json").read_text())
    assert facts["series"]["frames"] == list(range(8))
    for frame in facts["frames"]:
        assert 0 < frame["sigma_left"] < frame["sigma"]["sigma"]
    page = Path("restored/dwi_desc-denoised.html").read_text()
    assert "all were restored together first" in page
    again = cli(*replay[1:], "--weights", tiny_weights)
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
