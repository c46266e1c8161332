"""b-values and directions beside a scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medddpm.errors import VolumeReadError
from medddpm.io import read_volume
from medddpm.io.gradients import gradient_files, read_gradients


@pytest.fixture
def scan(tmp_path: Path, head: Any, save_nifti: Any) -> Path:
    frames = np.stack([head((10, 10, 8))] * 3, axis=-1)
    path: Path = save_nifti(tmp_path / "dwi.nii.gz", frames, np.eye(4))
    return path


def test_files_beside_the_scan_are_read(scan: Path) -> None:
    assert read_gradients(read_volume(scan)) is None
    assert gradient_files(scan) == []
    scan.with_name("dwi.bval").write_text("0 1000 5\n")
    found = read_gradients(read_volume(scan))
    assert found is not None
    assert found.bvals.tolist() == [0, 1000, 5]
    assert found.bvecs is None
    assert found.unweighted == [0, 2]
    scan.with_name("dwi.bvec").write_text("0 1 0\n0 0 0\n0 0 1\n\n")
    found = read_gradients(read_volume(scan))
    assert found is not None
    assert found.bvecs is not None
    assert found.bvecs[1].tolist() == [1, 0, 0]
    assert [path.name for path in gradient_files(scan)] == ["dwi.bval", "dwi.bvec"]


def test_one_value_a_line_is_read(scan: Path) -> None:
    scan.with_name("dwi.bval").write_text("0\n1000\n1000\n")
    found = read_gradients(read_volume(scan))
    assert found is not None
    assert found.unweighted == [0]


@pytest.mark.parametrize("text", ["0 1 0\n0 0 0\n", "1 0 0\n0 1\n0 0 1\n", "a b c\n" * 3])
def test_other_tables_are_refused(scan: Path, text: str) -> None:
    scan.with_name("dwi.bval").write_text("0 1000 5\n")
    scan.with_name("dwi.bvec").write_text(text)
    with pytest.raises(VolumeReadError, match="three rows of 3 numbers"):
        read_gradients(read_volume(scan))
