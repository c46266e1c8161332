"""dcm2niix reads what we read and write to the same place; dciodvfy finds no error in it."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from support.sidecars import sidecar_of
from support.validator import errors_in

from medddpm.io import (
    DicomOptions,
    read_volumes,
    write_dicom,
    write_dicom_page,
    write_parametric_map,
)
from medddpm.volume import Volume

pytestmark = pytest.mark.peers
FACTS = sidecar_of(options={"mode": "ensemble", "seed": 0, "samples": 8})
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
    # ours first: Debian's of 2022 reads no enhanced object in RLE
    tool = shutil.which("dcm2niix", path=Path(sys.executable).parent) or shutil.which("dcm2niix")
    if tool is None:
        pytest.skip("dcm2niix is not installed")
    out.mkdir()
    command = [tool, "-z", "n", "-b", "n", "-f", "x", "-o", str(out), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = out.glob("*.nii")
    return nib.load(path)


def assert_no_error(folder: Path) -> None:
    assert not errors_in(folder)


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
    written = write_dicom(volume, tmp_path / "out", facts=FACTS)
    assert_same(volume, dcm2niix(written, tmp_path / "b"))
    assert_no_error(written)


def test_a_phantom_without_a_patient(phantom: Volume, tmp_path: Path) -> None:
    volume = phantom.with_data(np.rint(phantom.data))
    written = write_dicom(volume, tmp_path / "out")
    assert_same(volume, dcm2niix(written, tmp_path / "a"))
    assert_no_error(written)


@pytest.mark.parametrize("syntax", ["explicit", "rle", "jpeg2000-lossless"])
@pytest.mark.parametrize("objects", ["source", "classic"])
@pytest.mark.parametrize("times", [1, 3])
def test_an_enhanced_source(
    times: int, objects: Any, syntax: Any, enhanced_object: Any, head: Any, tmp_path: Path
) -> None:
    film = np.stack([head((40, 44, 12)) + 50 * t for t in range(times)], -1)
    path = enhanced_object(tmp_path / "source" / "a.dcm", film)
    assert_no_error(path.parent)
    (volume,) = read_volumes(path)
    assert_same(volume, dcm2niix(path.parent, tmp_path / "a"))
    options = DicomOptions(objects=objects, transfer_syntax=syntax)
    written = write_dicom(volume, tmp_path / "out", facts=FACTS, options=options)
    assert len(list(written.iterdir())) == (1 if objects == "source" else 12 * times)
    assert_no_error(written)
    assert_same(volume, dcm2niix(written, tmp_path / "b"))


@pytest.mark.parametrize("quantity", ["std", "lower", "upper"])
@pytest.mark.parametrize("times", [1, 3])
def test_parametric_maps(
    times: int, quantity: Any, enhanced_object: Any, head: Any, tmp_path: Path
) -> None:
    film = np.stack([head((40, 44, 12)) for _ in range(times)], -1)
    (volume,) = read_volumes(enhanced_object(tmp_path / "source" / "a.dcm", film))
    spread = volume.with_data(volume.data * np.float32(1e-3 / 3))
    folder = tmp_path / "maps"
    folder.mkdir()
    write_parametric_map(spread, folder / "m.dcm", quantity=quantity, facts=FACTS)
    assert_no_error(folder)
    assert_same(spread, dcm2niix(folder, tmp_path / "a"))


def test_highdicom_reads_a_parametric_map(dicom_series: Any, head: Any, tmp_path: Path) -> None:
    pm = pytest.importorskip("highdicom.pm")
    (volume,) = read_volumes(dicom_series(tmp_path / "source", head((20, 24, 12))))
    path = write_parametric_map(volume, tmp_path / "m.dcm", quantity="std", facts=FACTS)
    theirs = pm.ParametricMap.from_dataset(dcmread(path)).get_volume()
    # theirs are (slice, row, column) in LPS
    swap = np.eye(4)[[2, 1, 0, 3]]
    affine = np.diag([-1.0, -1, 1, 1]) @ theirs.affine @ swap
    data = theirs.array.transpose(2, 1, 0)
    image = nib.nifti1.Nifti1Image(data.astype(np.float32), affine)
    assert_same(volume, image)


@pytest.mark.parametrize("kind", ["pdf", "image"])
def test_pages(kind: str, dicom_series: Any, head: Any, tmp_path: Path) -> None:
    (volume,) = read_volumes(dicom_series(tmp_path / "source", head((20, 24, 12))))
    page = b"%PDF-1.4" if kind == "pdf" else np.zeros((60, 41, 3), np.uint8)
    folder = tmp_path / "page"
    folder.mkdir()
    write_dicom_page(volume, folder / "page.dcm", page, facts=FACTS)
    assert_no_error(folder)


@pytest.mark.parametrize("name", ["philips_mprage.dcm.gz", "siemens_dwi_1000.dcm.gz"])
def test_headers_of_vendors(name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    """Nibabel ships a Philips enhanced object and a Siemens mosaic, both without pixels."""
    packed = Path(nib.__file__).parent / "nicom" / "tests" / "data" / name
    if not packed.is_file():
        pytest.skip(f"nibabel was installed without {name}")
    dataset = dcmread(io.BytesIO(gzip.decompress(packed.read_bytes())))
    shape = dataset.pixel_array.shape
    dataset.PixelData = rng.integers(0, 4000, shape).astype("<u2").tobytes()
    source = tmp_path / "source"
    source.mkdir()
    dataset.save_as(source / "a.dcm")
    (volume,) = read_volumes(source)
    written = write_dicom(volume, tmp_path / "out", facts=FACTS)
    (back,) = read_volumes(written)
    assert_same(back, dcm2niix(written, tmp_path / "b"))
    assert np.allclose(back.affine, volume.affine, rtol=0, atol=1e-3)
    maps = tmp_path / "maps"
    maps.mkdir()
    write_parametric_map(volume, maps / "m.dcm", quantity="std", facts=FACTS)
    assert not (errors_in(written) | errors_in(maps)) - errors_in(source)


@pytest.mark.skipif(DATA is None, reason="MEDDDPM_DATA names no folder with a dicom folder in it")
@pytest.mark.parametrize("name", CASES)
def test_real_series(name: str, tmp_path: Path) -> None:
    folder = Path(str(DATA)) / "dicom" / name
    if not folder.is_dir():
        pytest.skip(f"no {name} in MEDDDPM_DATA")
    (volume,) = read_volumes(folder)
    assert_same(volume, dcm2niix(folder, tmp_path / "a"))
    written = write_dicom(volume, tmp_path / "out", facts=FACTS)
    (back,) = read_volumes(written)
    assert_same(back, dcm2niix(written, tmp_path / "b"))
    assert np.allclose(back.affine, volume.affine, rtol=0, atol=1e-3)
    assert_no_error(written)
    maps = tmp_path / "maps"
    maps.mkdir()
    write_parametric_map(volume, maps / "m.dcm", quantity="std", facts=FACTS)
    assert_no_error(maps)
