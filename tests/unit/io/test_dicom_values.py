"""Numbers that are none or several, polarity, palettes and padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from support.dicom_fuzz import set_raw

from medddpm.errors import DicomSeriesError
from medddpm.io import (
    find_series,
    read_volume,
    read_volumes,
    with_padding,
    without_padding,
    write_dicom,
    write_volume,
)

STRICT = (
    "SeriesNumber",
    "InstanceNumber",
    "AcquisitionNumber",
    "RescaleSlope",
    "RescaleIntercept",
    "RepetitionTime",
    "EchoTime",
    "TriggerTime",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
)
DROPPED = ("FlipAngle", "InversionTime", "MagneticFieldStrength", "EchoTrainLength", "SAR")


@pytest.fixture
def data(rng: np.random.Generator) -> Any:
    return rng.integers(1, 2000, (8, 10, 6)).astype(np.float32)


@pytest.fixture
def series(dicom_series: Any, data: Any, tmp_path: Path) -> Path:
    return Path(dicom_series(tmp_path / "in" / "series", data))


def with_raw(edit: Any, folder: Path, keyword: str, value: bytes) -> None:
    edit(folder, lambda dataset, _: set_raw(dataset, keyword, value))


@pytest.mark.parametrize("value", [b"abc ", b"1\\2 ", b"nan ", b"inf ", b"1e300 ", b"1\\x "])
@pytest.mark.parametrize("keyword", STRICT)
def test_a_number_that_is_none_or_several(
    keyword: str, value: bytes, series: Path, dicom_series: Any, edit: Any, data: Any
) -> None:
    if keyword == "PixelSpacing" and value == b"1\\2 ":
        pytest.skip("two numbers are right there")
    dicom_series(series, data + 1, number=2)
    bad = [p for p in series.iterdir() if p.name.startswith("01")]
    for path in bad:
        dataset = dcmread(path)
        set_raw(dataset, keyword, value)
        dataset.save_as(path)
    errors: list[Exception] = []
    [volume] = read_volumes(series, on_error=errors.append)
    assert np.array_equal(volume.data, data + 1)
    [error] = errors
    assert isinstance(error, DicomSeriesError)
    assert keyword in str(error)
    assert str(error).startswith("series ")
    assert value.decode().strip() not in str(error).replace("export it again", "")
    assert len(find_series(series, errors.append)) == 2


@pytest.mark.parametrize("value", [b"abc ", b"1\\2 ", b"nan "])
@pytest.mark.parametrize("keyword", DROPPED)
def test_a_number_that_nothing_needs_is_dropped(
    keyword: str, value: bytes, series: Path, edit: Any, data: Any, tmp_path: Path
) -> None:
    with_raw(edit, series, keyword, value)
    volume = read_volume(series)
    assert np.array_equal(volume.data, data)
    write_volume(volume, tmp_path / "out.nii.gz")
    write_dicom(volume, tmp_path / "out")
    assert np.array_equal(read_volume(tmp_path / "out").data, data)


def test_empty_numbers_are_absent(series: Path, edit: Any, data: Any) -> None:
    for keyword in ("SeriesNumber", "RescaleSlope", "RepetitionTime", "EchoTime", "TriggerTime"):
        with_raw(edit, series, keyword, b"")
    volume = read_volume(series)
    assert np.array_equal(volume.data, data)


def test_a_number_at_the_end_of_its_range(series: Path, edit: Any, tmp_path: Path) -> None:
    with_raw(edit, series, "SeriesNumber", b"2147483647")
    write_dicom(read_volume(series), tmp_path / "out")
    assert dcmread(tmp_path / "out" / "00001.dcm").SeriesNumber == 1000


def test_polarity_is_kept(series: Path, edit: Any, data: Any, tmp_path: Path) -> None:
    def change(dataset: Dataset, _: int) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"

    edit(series, change)
    volume = read_volume(series)
    assert np.array_equal(volume.data, data)  # as dcm2niix
    write_dicom(volume, tmp_path / "out")
    derived = dcmread(tmp_path / "out" / "00001.dcm")
    assert derived.PhotometricInterpretation == "MONOCHROME1"
    assert np.array_equal(read_volume(tmp_path / "out").data, data)


def test_polarity_of_an_enhanced_object(enhanced_object: Any, data: Any, tmp_path: Path) -> None:
    path = enhanced_object(tmp_path / "in" / "a.dcm", data[..., None])
    dataset = dcmread(path)
    dataset.PhotometricInterpretation, dataset.PresentationLUTShape = "MONOCHROME1", "INVERSE"
    dataset.save_as(path)
    write_dicom(read_volume(path), tmp_path / "out")
    [made] = (tmp_path / "out").iterdir()
    derived = dcmread(made)
    assert derived.PhotometricInterpretation == "MONOCHROME1"
    assert derived.PresentationLUTShape == "INVERSE"


def test_mixed_polarity(series: Path, edit: Any) -> None:
    def change(dataset: Dataset, _: int) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"

    edit(series, change, slice(0, 2))
    with pytest.raises(DicomSeriesError, match="mixes MONOCHROME1"):
        read_volume(series)


@pytest.mark.parametrize("word", ["PALETTE COLOR", "palette color"])
def test_palette(word: str, series: Path, edit: Any) -> None:
    def change(dataset: Dataset, _: int) -> None:
        set_raw(dataset, "PhotometricInterpretation", word.encode())

    edit(series, change)
    with pytest.raises(DicomSeriesError, match=r"colour image .*palette"):
        read_volume(series)


def pad(
    value: Any, limit: Any = None, *, signed: bool = True, fill: int = -2000, slope: float = 1
) -> Any:
    """The first column of each image is padding."""

    def change(dataset: Dataset, _: int) -> None:
        pixels = dataset.pixel_array.astype("<i2" if signed else "<u2")
        pixels[:, 0] = fill
        if limit is not None:
            pixels[0, 0] = limit
        dataset.PixelRepresentation = int(signed)
        dataset.BitsStored, dataset.HighBit = 16, 15
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, 0
        dataset.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
        if limit is not None:
            dataset.add_new("PixelPaddingRangeLimit", "SS" if limit < 0 else "US", limit)
        dataset.PixelData = pixels.tobytes()

    return change


@pytest.mark.parametrize(
    "change",
    [
        pad(-2000),
        pad(63536),  # as GE writes -2000
        pad(-2000, -1990),
        pad(-1990, -2000),
        pad(-2000, slope=0.5),
        pad(-2000, slope=-0.3),
        pad(65535, signed=False, fill=65535),
        pad(0, fill=0),
    ],
)
def test_padding(change: Any, series: Path, edit: Any, tmp_path: Path) -> None:
    edit(series, change)
    volume = read_volume(series)
    first = np.zeros(volume.data.shape, bool)
    first[0] = True
    assert np.array_equal(volume.native.padding, first)
    bare = without_padding(volume)
    assert not bare.data[first].any()
    assert np.array_equal(bare.data[~first], volume.data[~first])
    restored = with_padding(bare.with_data(bare.data * 0.5 + 3), volume)
    assert np.array_equal(restored.data[first], volume.data[first])
    write_dicom(volume, tmp_path / "out")
    back = read_volume(tmp_path / "out")
    assert np.abs(back.data - volume.data).max() <= np.abs(volume.data).max() / 32767
    assert back.native.padding is not None
    assert np.array_equal(back.native.padding, first)


def test_padding_of_some_slices_in_time(series: Path, edit: Any) -> None:
    edit(series, pad(-2000), slice(2, 4))

    def signed(dataset: Dataset, _: int) -> None:
        dataset.PixelRepresentation = 1

    edit(series, signed)
    padding = read_volume(series).native.padding
    assert padding.any(axis=(0, 1)).tolist() == [False, False, True, True, False, False]


def test_no_padding_where_no_pixel_has_it(series: Path, edit: Any, data: Any) -> None:
    def change(dataset: Dataset, _: int) -> None:
        dataset.add_new("PixelPaddingValue", "US", 60000)

    edit(series, change)
    volume = read_volume(series)
    assert volume.native.padding is None
    assert without_padding(volume) is volume
    assert with_padding(volume, volume) is volume


def test_a_restoration_does_not_see_padding(
    dicom_series: Any, edit: Any, tmp_path: Path, noisy_phantom: Any, tiny_weights: Path
) -> None:
    from medddpm.restoration.restorer import Restorer

    plain = dicom_series(tmp_path / "plain", noisy_phantom.data[:, :, 10:20])
    edit(plain, pad(-2000, fill=0))
    padded = dicom_series(tmp_path / "padded", noisy_phantom.data[:, :, 10:20])
    edit(padded, pad(-2000))
    restorer = Restorer.from_pretrained(tiny_weights, device="cpu")
    few = {"mean": {}, "ensemble": {"samples": 2, "steps": 1}}
    for mode, options in few.items():
        one, other = (
            restorer.restore(_named(read_volume(folder)), mode=mode, noise_map="off", **options)
            for folder in (plain, padded)
        )
        assert np.array_equal(one.volume.data[1:], other.volume.data[1:])
        assert (other.volume.data[0] == -2000).all()
        if other.std is not None and other.lower is not None:
            assert (other.std.data[0] == 0).all()
            assert (other.lower.data[0] == -2000).all()


def _named(volume: Any) -> Any:
    """With one name, so that the noise is the same."""
    from dataclasses import replace

    return replace(volume, case_id="scan")
