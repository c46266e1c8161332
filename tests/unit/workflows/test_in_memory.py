"""Images that a program holds: given back as what they were, restored as their file would be."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medddpm.errors import ConfigError
from medddpm.volume import Volume
from medddpm.workflows import restore, restore_image


def test_an_image_of_nibabel_gets_the_voxels_of_its_file(
    noisy_nifti: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    restore(noisy_nifti, tmp_path / "ours.nii.gz", weights=tiny_weights)
    given = nib.load(noisy_nifti)
    given.header["descrip"] = b"of a study"
    found = restore_image(given, weights=tiny_weights)
    assert type(found) is type(given)
    ours = nib.load(tmp_path / "ours.nii.gz")
    np.testing.assert_array_equal(found.get_fdata(), ours.get_fdata())
    np.testing.assert_array_equal(found.affine, given.affine)
    assert found.header["descrip"] == given.header["descrip"]
    assert found.header.get_xyzt_units() == given.header.get_xyzt_units()


def test_an_array_with_its_affine(noisy_phantom: Volume, tiny_weights: Path) -> None:
    data, affine = noisy_phantom.data, noisy_phantom.affine
    found = restore_image(data, affine=affine, weights=tiny_weights)
    image = restore_image(nib.Nifti1Image(data, affine), weights=tiny_weights)
    np.testing.assert_array_equal(found, image.get_fdata(dtype=np.float32))
    assert found.dtype == np.float32
    assert not np.array_equal(found, data)


def test_an_image_of_simpleitk_lies_where_it_lay(
    noisy_phantom: Volume, tiny_weights: Path, tmp_path: Path
) -> None:
    sitk = pytest.importorskip("SimpleITK")
    affine = np.diag([-1.5, 2.0, 1.0, 1.0]) @ np.eye(4)
    affine[:3, 3] = 11, -22, 33
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(noisy_phantom.data, affine), path)
    given = sitk.ReadImage(str(path))
    found = restore_image(given, weights=tiny_weights)
    for part in ("GetOrigin", "GetSpacing", "GetDirection", "GetSize"):
        np.testing.assert_allclose(getattr(found, part)(), getattr(given, part)())
    ours = restore_image(noisy_phantom.data, affine=affine, weights=tiny_weights)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found).T, ours)
    with pytest.raises(ConfigError, match="three axes"):
        restore_image(given[:, :, 0], weights=tiny_weights)


def test_what_is_no_image_is_named(noisy_phantom: Volume, tiny_weights: Path) -> None:
    with pytest.raises(ConfigError, match="needs affine="):
        restore_image(noisy_phantom.data, weights=tiny_weights)
    image = nib.Nifti1Image(noisy_phantom.data, np.eye(4))
    with pytest.raises(ConfigError, match="has its own"):
        restore_image(image, affine=np.eye(4), weights=tiny_weights)
    with pytest.raises(ConfigError, match="a list cannot be restored"):
        restore_image([1, 2], weights=tiny_weights, affine=None)
