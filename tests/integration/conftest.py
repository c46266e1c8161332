"""Scans to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def scans(tmp_path: Path, head: Any, save_nifti: Any) -> Path:
    """Two heads; sub-03 is held out by tiny_cpu."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in (1, 3):
        data = head((36 + 2 * number, 40, 38))
        save_nifti(folder / f"sub-0{number}_T1w.nii.gz", data, np.diag([1.0, 1.0, 1.1, 1.0]))
    return folder
