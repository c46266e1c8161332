"""Files that are more or less DICOM, and files that are not there."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from medddpm.errors import ContentAbsentError, DicomSeriesError, VolumeReadError
from medddpm.io import find_series, read_series, read_volume, read_volumes, write_dicom
from medddpm.io.dicom_files import read_header

KEY = "../../.git/annex/objects/aa/bb/SHA256E-s1--0/SHA256E-s1--0"
POINTERS = [
    b"/annex/objects/SHA256E-s123--abc.dcm\n",
    KEY.encode(),
    b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n",
]


@pytest.fixture
def data(rng: np.random.Generator) -> Any:
    return rng.integers(0, 2000, (8, 10, 6)).astype(np.float32)


@pytest.fixture
def series(dicom_series: Any, data: Any, tmp_path: Path) -> Path:
    return Path(dicom_series(tmp_path / "series", data))


def strip(path: Path, *, implicit: bool, suffix: str = ".dcm") -> Path:
    """The data set alone, without preamble and meta header."""
    dataset = dcmread(path)
    del dataset.file_meta
    dataset.preamble = None
    buffer = io.BytesIO()
    pydicom.dcmwrite(
        buffer, dataset, implicit_vr=implicit, little_endian=True, enforce_file_format=False
    )
    path.unlink()
    path = path.with_suffix(suffix)
    path.write_bytes(buffer.getvalue())
    return path


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("suffix", [".dcm", "", ".IMA"])
def test_no_preamble(series: Path, data: Any, implicit: bool, suffix: str, tmp_path: Path) -> None:
    for path in sorted(series.iterdir()):
        strip(path, implicit=implicit, suffix=suffix)
    volume = read_volume(series)
    assert np.array_equal(volume.data, data)
    [found] = find_series(series, lambda error: pytest.fail(str(error)))
    assert np.array_equal(read_series(found.files)[0].data, data)
    write_dicom(volume, tmp_path / "out")
    assert np.array_equal(read_volume(tmp_path / "out").data, data)


def test_meta_header_without_preamble(series: Path, data: Any) -> None:
    for path in series.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    assert np.array_equal(read_volume(series).data, data)


def test_no_preamble_and_cut_short(series: Path) -> None:
    path = strip(sorted(series.iterdir())[2], implicit=True, suffix="")
    path.write_bytes(path.read_bytes()[:300])
    errors: list[Exception] = []
    assert read_volumes(series, on_error=errors.append) == []
    assert "cut short" in str(errors[0])


def test_garbage_is_no_dicom(tmp_path: Path, rng: np.random.Generator) -> None:
    starts = [b"", b"\x08\0", b"\x08\0\x05\0CS\x0a\0", b"\x08\0\0\0\x04\0\0\0", b"\x02\0\0\0UL\4\0"]
    for number in range(60):
        start = starts[number % len(starts)]
        path = tmp_path / f"{number}"
        path.write_bytes(start + rng.bytes(int(rng.integers(0, 2000))))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert read_header(path) is None
    (tmp_path / "text").write_text("8 bytes of text, and more")
    with pytest.raises(VolumeReadError, match="no DICOM image"):
        read_volumes(tmp_path)


@pytest.mark.parametrize("name", ["DICOMDIR", "index", "dicomdir.dcm"])
def test_dicomdir(name: str, series: Path, data: Any) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.FileSetID, dataset.DirectoryRecordSequence = "DISC", Sequence([])
    dataset.save_as(series / name, enforce_file_format=True)
    with pytest.raises(VolumeReadError, match=r"a DICOMDIR, .* give the folder"):
        read_volume(series / name)
    assert np.array_equal(read_volume(series).data, data)


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.dcm", "folder"])
def test_a_link_that_was_never_fetched(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to(KEY)
    with pytest.raises(ContentAbsentError, match="content was not fetched"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("pointer", POINTERS)
@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.mgz", "scan.dcm"])
def test_a_pointer_that_was_never_fetched(name: str, pointer: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pointer)
    with pytest.raises(ContentAbsentError, match="content was not fetched"):
        read_volume(tmp_path / name)


def test_a_series_some_of_which_was_never_fetched(
    series: Path, dicom_series: Any, data: Any
) -> None:
    """The last slices would go unnoticed: what is left is a stack without a gap."""
    dicom_series(series / "whole", data + 1, number=2)
    for number, path in enumerate(sorted(series.glob("*.dcm"))[-2:]):
        path.unlink()
        if number:
            path.symlink_to(KEY)
        else:
            path.write_bytes(POINTERS[0])
    (series / "README.txt").symlink_to(KEY)
    (series / "whole" / "notes.md").symlink_to(KEY)
    errors: list[Exception] = []
    [volume] = read_volumes(series, on_error=errors.append)
    assert np.array_equal(volume.data, data + 1)
    assert [isinstance(e, ContentAbsentError) for e in errors] == [True, False]
    assert "not there" in str(errors[1])
    found = find_series(series, errors.append)
    assert len(found) == 1


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(VolumeReadError, match="does not exist"):
        read_volume(tmp_path / "scan.nii.gz")
    with pytest.raises(VolumeReadError, match="cannot be read: File name too long"):
        read_volume(tmp_path / ("x" * 300))


@pytest.fixture
def uih(mosaic: Any, data: Any, tmp_path: Path) -> Any:
    """A mosaic of United Imaging, 3 x 2 tiles: uih(change(dataset))."""

    def make(change: Any = None) -> Path:
        path = mosaic(tmp_path / "uih", data)
        dataset = dcmread(path)
        dataset.Rows = 20  # Siemens has a third row of tiles, which is empty
        dataset.PixelData = dataset.PixelData[: 2 * 20 * 24]
        dataset.remove_private_tags()
        del dataset.ImagePositionPatient
        dataset.Manufacturer = "UIH"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "VFRAME"]
        block = dataset.private_block(0x65, "Image Private Header", create=True)
        block.add_new(0x50, "DS", "6")
        items = [Dataset() for _ in range(6)]
        for number, item in enumerate(items):
            item.ImagePositionPatient = [-30, -40, 3.0 * number - 25]
        block.add_new(0x51, "SQ", Sequence(items))
        if change:
            change(dataset)
        dataset.save_as(path)
        return Path(path)

    return make


def test_mosaic_of_united_imaging(uih: Any, data: Any, series: Path, tmp_path: Path) -> None:
    volume = read_volume(uih())
    assert np.array_equal(volume.data, data)
    assert np.allclose(volume.affine, read_volume(series).affine)
    write_dicom(volume, tmp_path / "out")
    back = read_volume(tmp_path / "out")
    assert np.array_equal(back.data, data)
    assert "VFRAME" not in dcmread(next((tmp_path / "out").iterdir())).ImageType


def _no_sequence(dataset: Dataset) -> None:
    del dataset[0x65, 0x1051]


def _other_count(dataset: Dataset) -> None:
    dataset[0x65, 0x1050].value = "9"


def _no_position(dataset: Dataset) -> None:
    del dataset[0x65, 0x1051].value[3].ImagePositionPatient


def _unknown(dataset: Dataset) -> None:
    del dataset[0x65, 0x1051]
    dataset.add_new((0x65, 0x1051), "UN", b"\xfe\xff")


@pytest.mark.parametrize(
    "change", [Dataset.remove_private_tags, _no_sequence, _other_count, _no_position, _unknown]
)
def test_mosaic_of_united_imaging_without_its_header(change: Any, uih: Any) -> None:
    with pytest.raises(DicomSeriesError, match="is a mosaic of United Imaging"):
        read_volume(uih(change))


def test_the_same_series_in_two_folders(series: Path, data: Any, tmp_path: Path) -> None:
    shutil.copytree(series, tmp_path / "all" / "a")
    shutil.copytree(series, tmp_path / "all" / "b")
    with pytest.warns(UserWarning, match="6 files are copies"):
        assert np.array_equal(read_volume(tmp_path / "all").data, data)


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["uih", "MONOCHROME1"])
def test_dcm2niix_reads_the_same(kind: str, uih: Any, series: Path, tmp_path: Path) -> None:
    tool = shutil.which("dcm2niix") or shutil.which("dcm2niix", path=Path(sys.executable).parent)
    if tool is None:
        pytest.skip("dcm2niix is not installed")
    folder = uih().parent if kind == "uih" else series
    if kind == "MONOCHROME1":
        for path in folder.iterdir():
            dataset = dcmread(path)
            dataset.PhotometricInterpretation = kind
            dataset.save_as(path)
    command = [tool, "-z", "n", "-b", "n", "-f", "x", "-o", str(tmp_path), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    volume = read_volume(folder)
    ours = nib.as_closest_canonical(nib.nifti1.Nifti1Image(volume.data, volume.affine))
    theirs = nib.as_closest_canonical(nib.load(tmp_path / "x.nii"))
    assert np.array_equal(ours.get_fdata(), theirs.get_fdata())
    assert np.allclose(ours.affine, theirs.affine, rtol=0, atol=1e-3)
