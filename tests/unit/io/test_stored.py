"""Outputs as integers: what is rounded is what a reader gets, and the steps are those asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medddpm.errors import ConfigError
from medddpm.io import read_volume, write_volume
from medddpm.io.stored import Stored, stored_as
from medddpm.volume import Geometry, Volume

KINDS = ("uint8", "int16", "uint16", "int32", "int64", "uint64", "int8", "uint32")


@given(
    kind=st.sampled_from(KINDS),
    slope=st.sampled_from([1.0, 0.25, -0.5, 3.7, 1e-3]),
    inter=st.sampled_from([0.0, -1024.0, 7.5]),
    values=st.lists(st.floats(-(2.0**40), 2.0**40, width=32), min_size=1, max_size=20),
)
def test_values_are_the_nearest_of_the_type(
    kind: str, slope: float, inter: float, values: list[float]
) -> None:
    stored, data = Stored(kind, slope, inter), np.array(values, np.float32)
    integers = stored.integers(data)
    assert integers.dtype == kind
    rounded, clipped = stored.rounded(data)
    ends = np.iinfo(kind)
    inside = (integers > ends.min) & (integers < ends.max)
    off = np.abs(rounded.astype(np.float64) - data)
    assert (off[inside] <= 0.5001 * abs(slope) + 1e-6 * np.abs(data[inside])).all()
    assert clipped <= (~inside).sum()
    np.testing.assert_array_equal(stored.integers(rounded)[inside], integers[inside])


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".img"])
def test_a_file_holds_the_integers_with_the_slope_that_was_asked_for(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    data = np.linspace(0, 250, 64, dtype=np.float32).reshape(4, 4, 4)
    volume = Volume(data, Geometry((4, 4, 4), np.eye(4)))
    path = write_volume(volume, tmp_path / f"a{suffix}", stored=Stored(kind))
    image = nib.load(path)
    assert image.get_data_dtype() == kind
    assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.rint(data))
    np.testing.assert_array_equal(read_volume(path).data, np.rint(data))


@pytest.mark.parametrize(("slope", "inter"), [(1, 0), (0.25, 0), (2.5, -1024), (-1, 0)])
def test_input_keeps_type_and_steps(slope: float, inter: float, tmp_path: Path) -> None:
    """A voxel that did not change is the same integer."""
    integers = np.arange(27, dtype=np.int16).reshape(3, 3, 3) + 5
    image = nib.nifti1.Nifti1Image(integers, np.eye(4))
    image.header.set_slope_inter(slope, inter)
    nib.save(image, tmp_path / "in.nii")
    volume = read_volume(tmp_path / "in.nii")
    stored = stored_as(volume, "input")
    assert stored == Stored("int16", slope, inter)
    rounded, clipped = stored.rounded(volume.data)
    np.testing.assert_array_equal(rounded, volume.data)
    assert clipped == 0
    again = nib.load(write_volume(volume, tmp_path / "out.nii", stored=stored))
    np.testing.assert_array_equal(again.dataobj.get_unscaled(), integers)
    np.testing.assert_array_equal(read_volume(tmp_path / "out.nii").data, volume.data)
    plain = nib.load(write_volume(volume, tmp_path / "float.nii"))
    assert plain.get_data_dtype() == np.float32
    assert (plain.dataobj.slope, plain.dataobj.inter) == (1, 0)


def test_input_of_another_kind(tmp_path: Path, dicom_series: Any, phantom: Volume) -> None:
    assert stored_as(phantom, "input") is None
    assert stored_as(phantom, "float32") is None
    assert stored_as(phantom, "int16") == Stored("int16")
    write_volume(phantom, tmp_path / "f.nii")
    assert stored_as(read_volume(tmp_path / "f.nii"), "input") is None
    mgh = nib.freesurfer.MGHImage(np.arange(27, dtype=np.int16).reshape(3, 3, 3), np.eye(4))
    nib.save(mgh, tmp_path / "m.mgz")
    assert stored_as(read_volume(tmp_path / "m.mgz"), "input") == Stored("int16")
    series = read_volume(dicom_series(tmp_path / "d", phantom.data))
    assert stored_as(series, "input") == Stored("uint16")
    series.native[0].RescaleSlope, series.native[0].RescaleIntercept = 2.0, 0.0
    with pytest.raises(ConfigError, match="different rescale"):
        stored_as(series, "input")
