"""Derived series out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import dcmread
from support.sidecars import sidecar_of

from medddpm.errors import ConfigError, GeometryError, OutputError
from medddpm.io import DicomOptions, read_volume, write_dicom
from medddpm.io.dicom_attributes import (
    ENHANCED_REQUIRED,
    FRAME_CONTENT,
    GROUPS,
    KEPT,
    KEPT_ENHANCED,
    PATIENT,
    PATIENT_REQUIRED,
    REQUIRED,
    STUDY,
)
from medddpm.io.dicom_pixels import to_integers
from medddpm.volume import Geometry, Volume


@pytest.fixture
def data(rng: np.random.Generator) -> Any:
    return rng.integers(0, 2000, (8, 10, 6)).astype(np.float32)


@pytest.fixture
def source(dicom_series: Any, data: Any, tmp_path: Path) -> Volume:
    return read_volume(dicom_series(tmp_path / "source", data))


def images(folder: Path) -> list[Any]:
    return [dcmread(p) for p in sorted(folder.iterdir())]


def test_round_trip(source: Volume, tmp_path: Path) -> None:
    back = read_volume(write_dicom(source, tmp_path / "out"))
    assert np.array_equal(back.data, source.data)
    assert np.allclose(back.affine, source.affine, rtol=0, atol=1e-6)


def test_what_is_new_and_what_is_kept(source: Volume, tmp_path: Path) -> None:
    written = images(write_dicom(source, tmp_path / "out", facts=sidecar_of()))
    for new, old in zip(written, source.native, strict=True):
        for name in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
            assert new[name] == old[name]
        assert new.SeriesInstanceUID != old.SeriesInstanceUID
        assert new.SeriesNumber == 1001
        assert new.SeriesDescription == "T1w AI-denoised"
        assert list(new.ImageType) == ["DERIVED", "PRIMARY", "M"]
        reference = new.SourceImageSequence[0]
        assert reference.ReferencedSOPInstanceUID == old.SOPInstanceUID
        assert "tiny abc123" in new.DerivationDescription
        assert new.DerivationCodeSequence[0].CodeMeaning == "Denoising"
        assert new.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert (new.BitsStored, new.HighBit, new.PixelRepresentation) == (16, 15, 0)
        assert not any(element.tag.is_private for element in new)
    uids = {d.SOPInstanceUID for d in written}
    assert len(uids) == 6
    assert len({d.SeriesInstanceUID for d in written}) == 1
    assert max(len(uid) for uid in uids) <= 64


def test_codes_are_those_of_the_dictionary(source: Volume, tmp_path: Path) -> None:
    from pydicom.sr.codedict import codes

    image = images(write_dicom(source, tmp_path / "out"))[0]
    for item in (image.SourceImageSequence[0], image.ContributingEquipmentSequence[0]):
        code = item.PurposeOfReferenceCodeSequence[0]
        name = {
            "121322": "SourceImageForImageProcessingOperation",
            "109102": "ProcessingEquipment",
        }[code.CodeValue]
        known = getattr(codes.DCM, name)
        assert (known.value, known.meaning) == (code.CodeValue, code.CodeMeaning)


def test_without_a_model_nothing_is_claimed(source: Volume, tmp_path: Path) -> None:
    image = images(write_dicom(source, tmp_path / "out"))[0]
    assert "DerivationCodeSequence" not in image
    assert "denois" not in (image.DerivationDescription + image.SeriesDescription).lower()


def test_same_bytes_for_the_same_pixels(source: Volume, tmp_path: Path) -> None:
    a, b = (write_dicom(source, tmp_path / n) for n in "ab")
    c = write_dicom(source.with_data(source.data + 1), tmp_path / "c")
    for x, y in zip(sorted(a.iterdir()), sorted(b.iterdir()), strict=True):
        assert x.read_bytes() == y.read_bytes()
    assert images(a)[0].SeriesInstanceUID != images(c)[0].SeriesInstanceUID


def test_stale_attributes(source: Volume, tmp_path: Path) -> None:
    for dataset in source.native:
        dataset.WindowCenter, dataset.WindowWidth = 5, 10
        dataset.SmallestImagePixelValue = 0
        dataset.private_block(0x29, "SOMEONE", create=True).add_new(1, "LO", "secret")
        dataset.ScanningSequence, dataset.LossyImageCompression = "IR", "01"
        dataset.PatientIdentityRemoved = "YES"
        dataset.add_new("PatientAge", "AS", "030Y")
    image = images(write_dicom(source, tmp_path / "out"))[0]
    assert "WindowCenter" not in image
    assert "SmallestImagePixelValue" not in image
    assert image.LossyImageCompression == "01"
    assert image["InversionTime"].is_empty
    assert image.DeidentificationMethod == "not stated by the source"
    assert image.PatientAge == "030Y"


@pytest.mark.parametrize("rescale", [None, (1, 0), (2, 3)])
def test_real_world_values_do_not_outlive_their_stored_values(
    rescale: Any, dicom_series: Any, edit: Any, data: Any, tmp_path: Path
) -> None:
    """The mapping of the source holds for its stored values, and new ones are written."""

    def change(dataset: Any, _: int) -> None:
        item = pydicom.Dataset()
        item.RealWorldValueSlope, item.RealWorldValueIntercept = 0.5, 7.0
        item.RealWorldValueFirstValueMapped, item.RealWorldValueLastValueMapped = 0, 4095
        dataset.RealWorldValueMappingSequence = pydicom.Sequence([item])
        if rescale is not None:
            dataset.RescaleSlope, dataset.RescaleIntercept = rescale
            dataset.RescaleType = "normalized"

    folder = dicom_series(tmp_path / "philips", data)
    edit(folder, change)
    volume = read_volume(folder)
    written = write_dicom(volume, tmp_path / "out")
    for image in images(written):
        assert "RealWorldValueMappingSequence" not in image
        assert image.get("RescaleType", "US") == "US"
    slope = float(images(written)[0].get("RescaleSlope", 1))
    assert np.abs(read_volume(written).data - volume.data).max() <= slope / 2 * 1.01


def test_enhanced_frames_of_several_slopes_are_no_integers(
    data: Any, enhanced: Any, tmp_path: Path
) -> None:
    path = enhanced(tmp_path, data[..., None], slope=1.0)
    dataset = dcmread(path)
    for frame in dataset.PerFrameFunctionalGroupsSequence[1:]:
        frame.PixelValueTransformationSequence[0].RescaleSlope = 0.37
    dataset.save_as(path)
    volume = read_volume(path)
    folder = write_dicom(volume, tmp_path / "out")
    assert np.abs(read_volume(folder).data - volume.data).max() < 0.1


def test_4d(source: Volume, tmp_path: Path) -> None:
    film = np.stack([source.data, source.data + 50], -1)
    volume = Volume(film, source.geometry, "dicom", modality="MR", native=source.native)
    folder = write_dicom(volume, tmp_path / "out")
    assert np.array_equal(read_volume(folder).data, film)
    assert [d.TemporalPositionIdentifier for d in images(folder)] == [1] * 6 + [2] * 6


@pytest.mark.parametrize("syntax", ["rle", "jpeg2000-lossless"])
@pytest.mark.parametrize("shift", [0, -700])
def test_compressed(
    syntax: Any, shift: float, dicom_series: Any, rng: np.random.Generator, tmp_path: Path
) -> None:
    """Lossless: the same values under the same UIDs, also below zero."""
    source = read_volume(dicom_series(tmp_path / "s", rng.integers(0, 2000, (32, 34, 3))))
    volume = source.with_data(source.data + shift)
    plain = images(write_dicom(volume, tmp_path / "plain"))
    options = DicomOptions(transfer_syntax=syntax)
    folder = write_dicom(volume, tmp_path / "out", options=options)
    assert np.array_equal(read_volume(folder).data, volume.data)
    for a, b in zip(plain, images(folder), strict=True):
        assert a.SOPInstanceUID == b.SOPInstanceUID
        assert np.array_equal(a.pixel_array, b.pixel_array)
        assert b.file_meta.TransferSyntaxUID.is_compressed
        assert "LossyImageCompression" not in b


def test_from_mosaics(data: Any, mosaic: Any, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for number in (1, 2):
        mosaic(tmp_path / "m", data + number, number=number)
    volume = read_volume(tmp_path / "m")
    folder = write_dicom(volume, tmp_path / "out")
    assert np.array_equal(read_volume(folder).data, volume.data)
    second = images(folder)[-1].SourceImageSequence[0].ReferencedSOPInstanceUID
    assert second == volume.native[1].SOPInstanceUID


def test_from_array(phantom: Volume, tmp_path: Path) -> None:
    volume = phantom.with_data(phantom.data / 1000)
    folder = write_dicom(volume, tmp_path / "out")
    image = images(folder)[0]
    assert image.PatientName == "Anonymous^"
    assert re.search(r"divided by [\d.e-]+\.", image.DerivationDescription)
    back = read_volume(folder)
    assert np.abs(back.data - volume.data).max() < 1e-4
    assert np.allclose(back.affine, volume.affine, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "keep", "dtype", "exact"),
    [
        (0, 4000, True, np.uint16, True),
        (0, 60000, True, np.uint16, True),
        (-500, 4000, True, np.int16, True),
        (-500, 60000, True, np.int16, False),
        (0, 70000, True, np.uint16, False),
        (0, 100, True, np.uint16, False),
        (0, 4000, False, np.uint16, False),
    ],
)
def test_integers(low: float, high: float, keep: bool, dtype: Any, exact: bool) -> None:
    data = np.linspace(low, high, 1001, dtype=np.float32)
    stored = to_integers(data, keep_units=keep)
    assert stored.values.dtype == dtype
    assert (stored.slope == 1) == exact
    assert np.abs(stored.values * stored.slope - data).max() <= stored.slope / 2 * 1.01


def test_too_small_for_jpeg_2000(source: Volume, tmp_path: Path) -> None:
    options = DicomOptions(transfer_syntax="jpeg2000-lossless")
    with pytest.raises(ConfigError, match="8 x 10 pixels is too small"):
        write_dicom(source, tmp_path / "out", options=options)
    assert list(tmp_path.iterdir()) == [tmp_path / "source"]


def test_refusals(source: Volume, phantom: Volume, tmp_path: Path) -> None:
    ct = Volume(source.data, source.geometry, "dicom", modality="CT", native=source.native)
    with pytest.raises(ConfigError, match="CT"):
        write_dicom(ct, tmp_path / "out")
    sheared = phantom.affine.copy()
    sheared[:3, 1] += 0.3 * sheared[:3, 0]
    with pytest.raises(GeometryError, match="sheared"):
        write_dicom(Volume(phantom.data, Geometry(phantom.data.shape, sheared)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_dicom(source, tmp_path / "out")
    with pytest.raises(OutputError, match="exists"):
        write_dicom(source, tmp_path / "out")
    write_dicom(source, tmp_path / "out", overwrite=True)


def test_keywords_exist() -> None:
    names = {*KEPT, *KEPT_ENHANCED, *GROUPS, *FRAME_CONTENT, *PATIENT.split(), *STUDY.split()}
    for keyword in {*names, *REQUIRED, *PATIENT_REQUIRED, *ENHANCED_REQUIRED}:
        assert pydicom.datadict.tag_for_keyword(keyword), keyword
