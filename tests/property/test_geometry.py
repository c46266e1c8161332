"""Any rigid grid with any spacing keeps its place through NIfTI and through DICOM."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from medddpm.io import read_volume, write_dicom, write_volume
from medddpm.volume import Geometry, Volume

angle = st.floats(-3.1, 3.1)
size = st.floats(0.3, 8)
offset = st.floats(-200, 200)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    a, b, c = draw(angle), draw(angle), draw(angle)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    affine = np.eye(4)
    mirror = draw(st.sampled_from([1.0, -1.0]))
    affine[:3, :3] = x @ y @ z @ np.diag([mirror * draw(size), draw(size), draw(size)])
    affine[:3, 3] = draw(offset), draw(offset), draw(offset)
    return affine


def scan(affine: np.ndarray) -> Volume:
    shape = (4, 5, 6)
    return Volume(np.arange(120, dtype=np.float32).reshape(shape) * 10, Geometry(shape, affine))


@settings(deadline=None, max_examples=25)
@given(affines())
def test_nifti(affine: np.ndarray) -> None:
    volume = scan(affine)
    with tempfile.TemporaryDirectory() as folder:
        back = read_volume(write_volume(volume, Path(folder) / "x.nii"))
        again = read_volume(write_volume(back, Path(folder) / "y.nii"))
    # float32 in the file: 2e-5 mm at 200 mm, then no change at all
    assert np.allclose(back.affine, affine, rtol=0, atol=2e-5)
    assert np.array_equal(again.affine, back.affine)
    assert np.array_equal(again.data, volume.data)


@settings(deadline=None, max_examples=15)
@given(affines())
def test_dicom_puts_each_voxel_at_its_place(affine: np.ndarray) -> None:
    volume = scan(affine)
    with tempfile.TemporaryDirectory() as folder:
        back = read_volume(write_dicom(volume, Path(folder) / "x"))
    z = np.arange(6)
    order = z if np.linalg.det(affine[:3, :3]) > 0 else z[::-1]
    # DICOM reads slices along the normal; in RAS+ and LPS+ the handedness is one and the same
    assert np.array_equal(back.data, volume.data[:, :, order])
    ours = affine @ np.array([[0, 0, order[0], 1], [3, 4, order[-1], 1]]).T
    theirs = back.affine @ np.array([[0, 0, 0, 1], [3, 4, 5, 1]]).T
    assert np.allclose(ours, theirs, rtol=0, atol=1e-6)
