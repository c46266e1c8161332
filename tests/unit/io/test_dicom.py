"""Classic, enhanced and mosaic series in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from medddpm.errors import DicomSeriesError, LeftOutWarning, VolumeReadError
from medddpm.io import (
    dicom_headers,
    find_series,
    read_series,
    read_volume,
    read_volumes,
    scan_shape,
)
from medddpm.io.dicom_geometry import plane

AFFINE = np.array([[-0.96, 0.42, 0, 30], [-0.28, -1.44, 0, 40], [0, 0, 3.0, -25], [0, 0, 0, 1]])
TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture
def data(rng: np.random.Generator) -> Any:
    return rng.integers(0, 2000, (8, 10, 6)).astype(np.float32)


@pytest.fixture
def series(dicom_series: Any, data: Any, tmp_path: Path) -> Path:
    return dicom_series(tmp_path / "series", data)


def film(dicom_series: Any, edit: Any, tmp_path: Path, data: Any, change: Any) -> Path:
    """Two series of one grid under one UID, the second one changed."""
    a = dicom_series(tmp_path / "film", data)
    b = dicom_series(tmp_path / "second", data + 100, number=2)
    uid = dcmread(next(a.iterdir())).SeriesInstanceUID

    def join(dataset: Dataset, number: int) -> None:
        dataset.SeriesInstanceUID = uid
        dataset.InstanceNumber = 50 + number
        change(dataset)

    edit(b, join)
    for path in b.iterdir():
        shutil.move(path, a / f"second-{path.name}")
    return a


def test_sorted_by_geometry(series: Path, data: Any, edit: Any) -> None:
    def renumber(dataset: Dataset, number: int) -> None:
        dataset.InstanceNumber = 99 - (number * 5) % 7

    edit(series, renumber)
    volume = read_volume(series)
    assert np.array_equal(volume.data, data)
    assert np.allclose(volume.affine, AFFINE)
    assert volume.modality == "MR"
    assert [float(d.ImagePositionPatient[2]) for d in volume.native] == [
        3.0 * z - 25 for z in range(6)
    ]
    assert all("PixelData" not in d for d in volume.native)


def test_case_id_tells_nothing(series: Path) -> None:
    volume = read_volume(series)
    assert len(volume.case_id) == 12
    assert volume.case_id not in str(volume.native[0].SeriesInstanceUID)
    assert "Private" not in repr(volume)


def test_one_file_brings_its_series(series: Path, data: Any, dicom_series: Any) -> None:
    dicom_series(series, data, number=2)
    (series / "notes.txt").write_text("a note")
    volume = read_volume(sorted(series.iterdir())[3])
    assert np.array_equal(volume.data, data)


def test_several_series(series: Path, data: Any, dicom_series: Any) -> None:
    dicom_series(series / "deeper", data + 1, number=2)
    first, second = read_volumes(series)
    assert np.array_equal(second.data, first.data + 1)
    with pytest.raises(VolumeReadError, match="2 scans"):
        read_volume(series)


def test_rescale(series: Path, data: Any, edit: Any) -> None:
    def scale(dataset: Dataset, number: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 + number, -3

    edit(series, scale)
    expected = data * (0.5 + np.arange(6)) - 3
    assert np.allclose(read_volume(series).data, expected)


def test_real_world_values(series: Path, data: Any, edit: Any) -> None:
    def scale(dataset: Dataset, _: int) -> None:
        item = Dataset()
        item.RealWorldValueSlope, item.RealWorldValueIntercept = 2.5, 4.0
        dataset.RealWorldValueMappingSequence = Sequence([item])

    edit(series, scale)
    assert np.allclose(read_volume(series).data, data * 2.5 + 4)


def _rescale(slope: float, intercept: float) -> Any:
    def change(dataset: Dataset, _: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept

    return change


def _real_world(slope: float | None, intercept: float | None) -> Any:
    """A mapping by a table, which is passed over, and a linear one."""

    def change(dataset: Dataset, _: int) -> None:
        table, item = Dataset(), Dataset()
        table.RealWorldValueLUTData = [0.0, 1.0]
        if slope is not None:
            item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, intercept
        dataset.RealWorldValueMappingSequence = Sequence([table, item])

    return change


def _scale_slope(dataset: Dataset, _: int) -> None:
    block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    block.add_new(0x0E, "FL", 0.25)


SCALINGS = [
    pytest.param([_rescale(2, 3)], (2, 3), id="rescale"),
    pytest.param([_rescale(2, 3), _scale_slope], (2, 3), id="private"),
    pytest.param([_rescale(2, 3), _real_world(5, 7)], (2, 3), id="disagree"),
    pytest.param([_rescale(1, 0), _real_world(5, 7)], (5, 7), id="combined"),
    pytest.param([_real_world(5, 7)], (5, 7), id="real-world"),
    pytest.param([_real_world(5, None)], (5, 0), id="no-intercept"),
    pytest.param([_real_world(None, None)], (1, 0), id="table"),
]


@pytest.mark.parametrize(("changes", "linear"), SCALINGS)
def test_which_scaling_is_taken(
    changes: Any, linear: tuple[float, float], series: Path, data: Any, edit: Any
) -> None:
    for change in changes:
        edit(series, change)
    assert np.allclose(read_volume(series).data, data * linear[0] + linear[1])


@pytest.mark.peers
@pytest.mark.parametrize(("changes", "linear"), SCALINGS[:5])
def test_dcm2niix_takes_the_same_scaling(
    changes: Any, linear: Any, series: Path, edit: Any, tmp_path: Path
) -> None:
    tool = shutil.which("dcm2niix") or shutil.which("dcm2niix", path=Path(sys.executable).parent)
    if tool is None:
        pytest.skip("dcm2niix is not installed")
    for change in [*changes, _set(Manufacturer="Philips Medical Systems")]:
        edit(series, change)
    options = ["-p", "n", "-z", "n", "-b", "n", "-f", "x", "-o", str(tmp_path)]
    subprocess.run([tool, *options, str(series)], check=True, capture_output=True)
    image = nib.load(tmp_path / "x.nii").get_fdata()
    assert np.allclose(np.sort(image.ravel()), np.sort(read_volume(series).data.ravel()))


def test_rle(series: Path, data: Any, edit: Any) -> None:
    edit(series, lambda dataset, _: dataset.compress(RLELossless))
    assert np.array_equal(read_volume(series).data, data)


def test_repeats_are_a_fourth_axis(data: Any, dicom_series: Any, edit: Any, tmp_path: Path) -> None:
    volume = read_volume(film(dicom_series, edit, tmp_path, data, lambda d: None))
    assert np.array_equal(volume.data, np.stack([data, data + 100], -1))
    assert len(volume.native) == 12


def test_echoes_are_volumes(data: Any, dicom_series: Any, edit: Any, tmp_path: Path) -> None:
    def later(dataset: Dataset) -> None:
        dataset.EchoTime = 20

    first, second = read_volumes(film(dicom_series, edit, tmp_path, data, later))
    assert np.array_equal(second.data, first.data + 100)
    assert first.case_id != second.case_id


def test_magnitude_and_phase_are_volumes(
    data: Any, dicom_series: Any, edit: Any, tmp_path: Path
) -> None:
    def phase(dataset: Dataset) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "P"]

    assert len(read_volumes(film(dicom_series, edit, tmp_path, data, phase))) == 2


def _shift_in_plane(dataset: Dataset) -> None:
    dataset.ImagePositionPatient = [-29.0, -40.0, dataset.ImagePositionPatient[2]]


def test_repeats_must_lie_at_one_place(
    data: Any, dicom_series: Any, edit: Any, tmp_path: Path
) -> None:
    with pytest.raises(DicomSeriesError, match="shifted by 1 mm"):
        read_volume(film(dicom_series, edit, tmp_path, data, _shift_in_plane))


def _same_number(dataset: Dataset) -> None:
    dataset.InstanceNumber = 1 + round((float(dataset.ImagePositionPatient[2]) + 25) / 3)


def test_repeats_need_an_order(data: Any, dicom_series: Any, edit: Any, tmp_path: Path) -> None:
    with pytest.raises(DicomSeriesError, match="duplicated slices"):
        read_volume(film(dicom_series, edit, tmp_path, data, _same_number))


def test_copies_of_files_are_passed_over_and_said(series: Path, data: Any) -> None:
    first, second, *_ = sorted(series.iterdir())
    shutil.copy(first, series / f"{first.stem} (1).dcm")
    (series / "sub").mkdir()
    shutil.copy(second, series / "sub" / second.name)
    with pytest.warns(LeftOutWarning, match="2 files are copies, byte for byte"):
        volume = read_volume(series)
    assert np.array_equal(volume.data, data)
    assert len(volume.native) == 6


def test_one_image_in_two_ways(series: Path, edit: Any) -> None:
    path = next(series.iterdir())
    dataset = dcmread(path)
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(series / "copy.dcm")
    with pytest.raises(DicomSeriesError, match="are the same image in other bytes"):
        read_volume(series)


@pytest.mark.parametrize(
    ("skip", "message"), [((2,), "1 missing slice "), ((2, 3), "2 missing slices")]
)
def test_gap(skip: Any, message: str, data: Any, dicom_series: Any, tmp_path: Path) -> None:
    with pytest.raises(DicomSeriesError, match=message):
        read_volume(dicom_series(tmp_path / "gap", data, skip=skip))


def _set(**values: Any) -> Any:
    def change(dataset: Dataset, _: int) -> None:
        for name, value in values.items():
            if value is None:
                del dataset[name]
            else:
                setattr(dataset, name, value)

    return change


def _smaller(dataset: Dataset, _: int) -> None:
    dataset.Rows -= 1
    dataset.PixelData = dataset.PixelData[: dataset.Rows * dataset.Columns * 2]


def _cut(dataset: Dataset, _: int) -> None:
    dataset.PixelData = dataset.PixelData[:40]


BROKEN = [
    (_set(ImagePositionPatient=[-30, -40, -25]), "duplicated or missing"),
    (_set(ImagePositionPatient=[-30, -40, -15.5]), "unequal spacing"),
    (_set(ImagePositionPatient=[-28, -40, -16]), "shifted sideways"),
    (_set(ImagePositionPatient=None), "no ImagePositionPatient"),
    (_set(ImageOrientationPatient=None), "ImageOrientationPatient"),
    (_set(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "perpendicular"),
    (_set(ImageOrientationPatient=[1, 0, 0, 0, 0, 1]), "mixes orientations"),
    (_set(PixelSpacing=[1.5, 1.2]), "mixes pixel spacings"),
    (_set(PixelSpacing=None), "no PixelSpacing"),
    (_set(PixelData=None), "no pixel data"),
    (_set(SamplesPerPixel=3), "colour"),
    (_set(NumberOfFrames=2), "several frames"),
    (_set(Modality="CT"), "--force"),
    (_smaller, "mixes image sizes"),
    (_cut, "cut short"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN, ids=[m for _, m in BROKEN])
def test_broken_series(change: Any, message: str, series: Path, edit: Any) -> None:
    edit(series, change, slice(3, 4))
    with pytest.raises(DicomSeriesError, match=message):
        read_volume(series)


def test_sheared(series: Path, edit: Any) -> None:
    def shear(dataset: Dataset, number: int) -> None:
        dataset.ImagePositionPatient = [-30 + number, -40, 3 * number - 25]

    edit(series, shear)
    with pytest.raises(DicomSeriesError, match="sideways"):
        read_volume(series)


def test_one_slice(data: Any, dicom_series: Any, tmp_path: Path) -> None:
    with pytest.raises(DicomSeriesError, match="one slice"):
        read_volume(dicom_series(tmp_path / "one", data[:, :, :1]))


def test_ct_with_force(data: Any, dicom_series: Any, tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "ct", data, modality="CT")
    assert read_volume(folder, force=True).modality == "CT"


def test_constant(dicom_series: Any, tmp_path: Path) -> None:
    with pytest.raises(VolumeReadError, match="all zeros"):
        read_volume(dicom_series(tmp_path / "z", np.zeros((4, 4, 4))))


def test_no_dicom(tmp_path: Path) -> None:
    with pytest.raises(VolumeReadError, match="no DICOM image"):
        read_volumes(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(VolumeReadError, match="no DICOM image"):
        read_volumes(tmp_path)
    with pytest.raises(VolumeReadError, match="neither a DICOM nor"):
        read_volumes(tmp_path / "a.txt")


def test_a_bad_series_does_not_stop_the_others(series: Path, data: Any, dicom_series: Any) -> None:
    dicom_series(series / "gap", data, number=2, skip=(2,))
    dicom_series(series / "ct", data, number=3, modality="CT")
    dicom_series(series / "good", data + 1, number=4)
    with pytest.raises(DicomSeriesError, match=r"series 2 .*missing"):
        read_volumes(series)
    errors: list[Exception] = []
    first, second = read_volumes(series, on_error=errors.append)
    assert np.array_equal(second.data, first.data + 1)
    assert [str(e).split(" (")[0] for e in errors] == ["series 2", "series 3"]


def test_a_damaged_file_spoils_the_series_beside_it(
    series: Path, data: Any, dicom_series: Any, edit: Any
) -> None:
    """It may be the last slice of one of them, which would go unnoticed."""
    dicom_series(series / "beside", data, number=2)
    dicom_series(series / "other", data, number=3)
    path = sorted((series / "beside").iterdir())[-1]
    path.write_bytes(path.read_bytes()[:300])
    errors: list[Exception] = []
    volumes = read_volumes(series, on_error=errors.append)
    assert len(volumes) == 2
    assert path.name in str(errors[0])
    assert "series 2" in str(errors[1])
    assert path.name in str(errors[1])
    with pytest.raises(DicomSeriesError, match="damaged"):
        read_volumes(series)


def test_a_cut_anywhere_is_seen(dicom_series: Any, tmp_path: Path) -> None:
    """Of the last slice, too: a scan that lost its end has no gap."""
    folder = dicom_series(tmp_path / "cut", np.random.default_rng(0).integers(1, 99, (4, 4, 3)))
    [path] = folder.glob("*-2.dcm")
    content = path.read_bytes()
    for size in range(0, len(content) - 1, 29):
        path.write_bytes(content[:size])
        with pytest.raises(VolumeReadError):
            read_volumes(folder)
        errors: list[Exception] = []
        assert read_volumes(folder, on_error=errors.append) == []
        assert errors


def test_what_a_mac_leaves_beside_a_file_is_no_dicom(series: Path) -> None:
    (series / "._0.dcm").write_bytes(b"\0\5\x16\7")
    assert len(read_volumes(series)) == 1


def test_dicom_that_is_no_image() -> None:
    with pytest.raises(VolumeReadError, match="no image"):
        read_volumes(TEST_FILES / "rtplan.dcm")


def test_unreadable_and_damaged(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, kind in ((PermissionError(13, "denied"), "denied"), (KeyError("x"), "damaged")):

        def refuse(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr("medddpm.io.dicom_files.dcmread", refuse)
        with pytest.raises(VolumeReadError, match=kind):
            read_volumes(series)


def test_lone_file_without_series(tmp_path: Path, series: Path, edit: Any) -> None:
    edit(series, _set(SeriesInstanceUID=None))
    with pytest.raises(DicomSeriesError, match="one slice"):
        read_volume(next(series.iterdir()))


@pytest.mark.parametrize("name", ["MR1", "MR2", "MR700"])
def test_localizers_of_pydicom(name: str) -> None:
    folder = TEST_FILES / "dicomdirtests" / "98892003" / name
    with pytest.raises(DicomSeriesError, match=r"orientations|one slice"):
        read_volumes(folder)


def test_missing_decoder(series: Path, edit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise RuntimeError("no plugin")

    class Decoder:
        is_available = False

    edit(series, lambda dataset, _: dataset.compress(RLELossless))
    monkeypatch.setattr(Dataset, "pixel_array", property(refuse))
    monkeypatch.setattr("medddpm.io.dicom_slices.get_decoder", lambda _: Decoder)
    with pytest.raises(DicomSeriesError, match=r"pip install -e '.\[dicom\]'"):
        read_volume(series)

    def unknown(_: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr("medddpm.io.dicom_slices.get_decoder", unknown)
    with pytest.raises(DicomSeriesError, match="pydicom does not know"):
        read_volume(series)


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm"])
def test_decoders(name: str) -> None:
    from medddpm.io.dicom_slices import read_pixels

    path, plain = get_testdata_file(name), get_testdata_file("MR_small.dcm")
    assert np.array_equal(read_pixels(Path(str(path))), read_pixels(Path(str(plain))))


def test_enhanced(data: Any, enhanced: Any, tmp_path: Path) -> None:
    film = np.stack([data, data + 7, data + 20], -1)
    path = enhanced(tmp_path, film)
    for source in (path, tmp_path):
        volume = read_volume(source)
        assert np.array_equal(volume.data, 2 * film + 1)
        assert np.allclose(volume.affine, AFFINE)
        assert len(volume.native) == 1


def test_enhanced_without_groups(data: Any, enhanced: Any, tmp_path: Path) -> None:
    path = enhanced(tmp_path, data[..., None])
    dataset = dcmread(path)
    del dataset.SharedFunctionalGroupsSequence
    dataset.save_as(path)
    with pytest.raises(DicomSeriesError, match=r"frame 1 of enhanced.dcm"):
        read_volume(path)


def test_mosaic(data: Any, mosaic: Any, tmp_path: Path) -> None:
    volume = read_volume(mosaic(tmp_path, data))
    assert np.array_equal(volume.data, data)
    assert np.allclose(volume.affine, AFFINE)


def test_mosaics_in_time(data: Any, mosaic: Any, tmp_path: Path) -> None:
    mosaic(tmp_path, data + 5, number=2)
    mosaic(tmp_path, data, number=1)
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.data, np.stack([data, data + 5], -1))
    assert len(volume.native) == 2


def test_moved_mosaics_are_two_scans(data: Any, mosaic: Any, tmp_path: Path) -> None:
    mosaic(tmp_path, data, number=1)
    mosaic(tmp_path, data, number=2, shift=1.0)
    first, second = read_volumes(tmp_path)
    assert np.allclose((second.affine - first.affine)[:3, 3], [0, 0, 1])


@pytest.mark.parametrize("harm", ["gone", "broken"])
def test_mosaic_without_its_header(harm: str, data: Any, mosaic: Any, tmp_path: Path) -> None:
    path = mosaic(tmp_path, data)
    dataset = dcmread(path)
    if harm == "gone":
        dataset.remove_private_tags()
    else:
        dataset[0x29, 0x1010].value = dataset[0x29, 0x1010].value[:90] + bytes(8)
    dataset.save_as(path)
    with pytest.raises(DicomSeriesError, match="private header"):
        read_volume(path)


def test_mosaic_that_does_not_divide() -> None:
    """nibabel's example was made smaller: 48 slices in 256 x 256 pixels."""
    path = Path(nib.__file__).parent / "nicom" / "tests" / "data" / "0.dcm"
    with pytest.raises(DicomSeriesError, match="do not divide into 7 x 7 tiles"):
        read_volume(path)


@pytest.mark.peers
def test_mosaic_lies_where_dcm2niix_puts_it(data: Any, mosaic: Any, tmp_path: Path) -> None:
    tool = shutil.which("dcm2niix") or shutil.which("dcm2niix", path=Path(sys.executable).parent)
    if tool is None:
        pytest.skip("dcm2niix is not installed")
    square = data[:, :8]
    path = mosaic(tmp_path, square)
    dataset = dcmread(path)
    dataset.Manufacturer = "SIEMENS"
    dataset.save_as(path)
    command = [tool, "-z", "n", "-b", "n", "-f", "x", "-o", str(tmp_path), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    image, volume = nib.load(tmp_path / "x.nii"), read_volume(path)
    assert np.array_equal(image.get_fdata(), volume.data[::-1, ::-1])  # it flips both
    affine = volume.affine.copy()
    affine[:3, 3] += 7 * (affine[:3, 0] + affine[:3, 1])
    affine[:3, :2] *= -1
    assert np.allclose(image.affine, affine, rtol=0, atol=1e-3)


def test_plane_needs_all_numbers() -> None:
    with pytest.raises(DicomSeriesError, match="its place is"):
        plane([1, 2], [1, 0, 0, 0, 1, 0], "x")


def test_headers_are_read_in_part_and_damage_is_reported(
    dicom_series: Any, head: Any, tmp_path: Path
) -> None:
    folder = dicom_series(tmp_path / "series", head((12, 14, 6)))
    (folder / "broken.dcm").write_bytes(b"\0" * 300)
    (folder / "notes.txt").write_text("no DICOM")
    damaged: list[Path] = []
    found = list(dicom_headers(tmp_path, ["PatientID"], lambda path, _: damaged.append(path)))
    assert len(found) == 6
    assert [path.name for path in damaged] == ["broken.dcm"]
    _, header = found[0]
    assert header.PatientID == "P-0001"
    assert "PatientName" not in header


def test_series_are_found_then_read(tmp_path: Path, head: Any, dicom_series: Any) -> None:
    for number in (1, 2):
        dicom_series(tmp_path / str(number), head((16, 18, 5)), number=number)
    found = find_series(tmp_path, lambda error: pytest.fail(str(error)))
    assert [len(series.files) for series in found] == [5, 5]
    whole = {volume.case_id: volume for volume in read_volumes(tmp_path)}
    for series in found:
        assert scan_shape(series.files) == ((16, 18, 5), 1)
        [volume] = read_series(series.files)
        assert volume.case_id == series.tag
        np.testing.assert_array_equal(volume.data, whole[series.tag].data)
        np.testing.assert_array_equal(volume.affine, whole[series.tag].affine)


def test_a_series_that_is_damaged_or_gone(tmp_path: Path, head: Any, dicom_series: Any) -> None:
    dicom_series(tmp_path / "a", head((16, 18, 5)))
    [series] = find_series(tmp_path, lambda error: pytest.fail(str(error)))
    errors: list[Exception] = []
    series.files[2].write_bytes(series.files[2].read_bytes()[:200])
    assert find_series(tmp_path, errors.append) == []
    assert len(errors) == 2
    for path in series.files:
        path.rename(path.with_suffix(".txt"))
        path.with_suffix(".txt").write_text("no scan")
    gone = [path.with_suffix(".txt") for path in series.files]
    with pytest.raises(DicomSeriesError, match="no readable file"):
        read_series(gone)
    with pytest.raises(DicomSeriesError, match="without readable headers"):
        scan_shape(gone)
