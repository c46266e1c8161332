"""Phantoms made in code, a tiny model, a DICOM series: nothing here needs external data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.volume import Geometry, Volume

mpl.use("Agg")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


@pytest.fixture
def oblique_affine() -> NDArray[np.float64]:
    """Voxels of 1.0 x 1.1 x 1.3 mm, turned by 0.3 rad about x and 0.2 rad about z."""
    cx, sx, cz, sz = np.cos(0.3), np.sin(0.3), np.cos(0.2), np.sin(0.2)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([1.0, 1.1, 1.3])
    affine[:3, 3] = [-20.5, 11.25, 3.0]
    return affine


def _head(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Nested ellipsoids with a smooth shading and fine stripes, in air; brightest about 1000."""
    axes = [np.linspace(-1, 1, n) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt((x / 0.8) ** 2 + (y / 0.85) ** 2 + (z / 0.9) ** 2)
    head = np.select([radius < 0.45, radius < 0.75, radius < 1.0], [950.0, 700.0, 350.0], 0.0)
    head *= 1 + 0.1 * x + 0.05 * np.sin(12 * y)
    return head.astype(np.float32)


@pytest.fixture
def head() -> Callable[..., NDArray[np.float32]]:
    """Makes a clean head of any shape: head((24, 26, 20))."""
    return _head


@pytest.fixture
def phantom(oblique_affine: NDArray[np.float64]) -> Volume:
    """A clean oblique head of 24 x 26 x 20 voxels."""
    shape = (24, 26, 20)
    return Volume(_head(shape), Geometry(shape, oblique_affine), case_id="phantom")


@pytest.fixture
def noisy_phantom(phantom: Volume, rng: np.random.Generator) -> Volume:
    """The same head with Rician noise, sigma 50 (about 0.05 of its scale)."""
    real, imaginary = rng.normal(0, 50, (2, *phantom.data.shape))
    return phantom.with_data(np.hypot(phantom.data + real, imaginary))


def _save_nifti(path: Path, data: NDArray[Any], affine: NDArray[np.float64]) -> Path:
    image = nib.nifti1.Nifti1Image(data, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


@pytest.fixture
def save_nifti() -> Callable[[Path, NDArray[Any], NDArray[np.float64]], Path]:
    """Writes an array as NIfTI with both forms set: save_nifti(path, data, affine)."""
    return _save_nifti


@pytest.fixture
def noisy_nifti(tmp_path: Path, noisy_phantom: Volume) -> Path:
    """The noisy head as a NIfTI file."""
    return _save_nifti(tmp_path / "noisy.nii.gz", noisy_phantom.data, noisy_phantom.affine)


@pytest.fixture
def clean_nifti(tmp_path: Path, phantom: Volume) -> Path:
    """The clean head as a NIfTI file."""
    return _save_nifti(tmp_path / "clean.nii.gz", phantom.data, phantom.affine)
