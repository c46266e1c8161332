"""dcm2niix reads what we read and write to the same place; dciodvfy finds no error in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medddpm.io import read_volumes, write_dicom
from medddpm.volume import Volume

pytestmark = pytest.mark.peers
DATA = os.environ.get("MEDDDPM_DATA")
CASES = [
    "siemens_mprage_saganon",
    "ge_epi",
    "dicom2nifti/ge/anatomical",
    "dicom2nifti/siemens/anatomical",
    "dicom2nifti/siemens_multiframe/anatomical",
    "dicom2nifti/generic/anatomical",
    "dicom2nifti/generic/compressed_rle",
    "dicom2nifti/generic/compressed_j2k",
    "dicom2nifti/generic/compressed_jpeg",
    "dicom2nifti/generic/compressed_jpegls",
]


def dcm2niix(folder: Path, out: Path) -> Any:
    tool = shutil.which("dcm2niix") or shutil.which("dcm2niix", path=Path(sys.executable).parent)
    if tool is None:
        pytest.skip("dcm2niix is not installed")
    out.mkdir()
    command = [tool, "-z", "n", "-b", "n", "-f", "x", "-o", str(out), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = out.glob("*.nii")
    return nib.load(path)


def assert_no_error(folder: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed")
    for path in folder.iterdir():
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        assert "Error" not in done.stdout + done.stderr


def assert_same(volume: Volume, image: Any) -> None:
    """Every voxel has one value and one place, whatever the order of the axes."""
    ours, theirs = volume.affine, image.affine
    turn = np.linalg.inv(theirs[:3, :3]) @ ours[:3, :3]
    axes = np.argsort(np.abs(turn).argmax(axis=0))
    data = np.transpose(volume.data, [*axes, *range(3, volume.data.ndim)])
    affine = ours[:, [*axes, 3]].copy()
    for axis in range(3):
        if (np.linalg.inv(theirs[:3, :3]) @ affine[:3, :3])[axis, axis] < 0:
            affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
            affine[:, axis] *= -1
            data = np.flip(data, axis)
    assert np.allclose(affine, theirs, rtol=0, atol=1e-3)
    assert np.allclose(data, image.get_fdata(), rtol=1e-5, atol=1e-4)


def test_a_series_made_in_code(dicom_series: Any, head: Any, tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "source", head((20, 24, 12)))
    (volume,) = read_volumes(folder)
    assert_same(volume, dcm2niix(folder, tmp_path / "a"))
    written = write_dicom(volume, tmp_path / "out", model_id="tiny", checkpoint_hash="abc")
    assert_same(volume, dcm2niix(written, tmp_path / "b"))
    assert_no_error(written)


def test_a_phantom_without_a_patient(phantom: Volume, tmp_path: Path) -> None:
    volume = phantom.with_data(np.rint(phantom.data))
    written = write_dicom(volume, tmp_path / "out")
    assert_same(volume, dcm2niix(written, tmp_path / "a"))
    assert_no_error(written)


@pytest.mark.skipif(DATA is None, reason="MEDDDPM_DATA names no folder with a dicom folder in it")
@pytest.mark.parametrize("name", CASES)
def test_real_series(name: str, tmp_path: Path) -> None:
    folder = Path(str(DATA)) / "dicom" / name
    if not folder.is_dir():
        pytest.skip(f"no {name} in MEDDDPM_DATA")
    (volume,) = read_volumes(folder)
    assert_same(volume, dcm2niix(folder, tmp_path / "a"))
    written = write_dicom(volume, tmp_path / "out", model_id="tiny", checkpoint_hash="abc")
    (back,) = read_volumes(written)
    assert_same(back, dcm2niix(written, tmp_path / "b"))
    assert_no_error(written)
