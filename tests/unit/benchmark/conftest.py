"""Clean scans for a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.volume import Geometry, Volume

Head = Callable[..., NDArray[np.float32]]


@pytest.fixture
def phantom_shape() -> tuple[int, int, int]:
    return (40, 44, 36)


@pytest.fixture
def scan(head: Head) -> Volume:
    x = head((40, 44, 36))
    return Volume(x, Geometry(x.shape, np.diag([1.0, 1.0, 1.2, 1.0])), case_id="head")


@pytest.fixture
def folder(scan: Volume, tmp_path: Path, save_nifti: Any) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a", "b"):
        save_nifti(data / f"{name}.nii.gz", scan.data, scan.affine)
    return data
