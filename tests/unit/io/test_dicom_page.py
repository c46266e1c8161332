"""A report page in the study: Encapsulated PDF and Secondary Capture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from support.sidecars import sidecar_of

from medddpm.errors import OutputError
from medddpm.io import (
    DicomOptions,
    read_volume,
    write_dicom,
    write_dicom_page,
    write_parametric_map,
)
from medddpm.volume import Volume

FACTS = sidecar_of()
PDF = b"%PDF-1.4 nothing much"


@pytest.fixture
def source(dicom_series: Any, rng: np.random.Generator, tmp_path: Path) -> Volume:
    return read_volume(dicom_series(tmp_path / "source", rng.integers(0, 2000, (8, 10, 6))))


@pytest.mark.parametrize("pdf", [PDF, PDF + b"\n"])
def test_pdf(pdf: bytes, source: Volume, tmp_path: Path) -> None:
    dataset = dcmread(write_dicom_page(source, tmp_path / "report.dcm", pdf, facts=FACTS))
    assert dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength] == pdf
    assert dataset.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert dataset.SOPClassUID.name == "Encapsulated PDF Storage"
    assert dataset.StudyInstanceUID == source.native[0].StudyInstanceUID
    assert dataset.SeriesNumber == 5001
    assert len(dataset.SourceInstanceSequence) == 6
    assert "report" in dataset.ContributingEquipmentSequence[0].ContributionDescription


@pytest.mark.parametrize("syntax", ["explicit", "rle", "jpeg2000-lossless"])
def test_secondary_capture(
    syntax: Any, source: Volume, rng: np.random.Generator, tmp_path: Path
) -> None:
    page = rng.integers(0, 256, (33, 35, 3), dtype=np.uint8)
    path = write_dicom_page(source, tmp_path / "report.dcm", page, transfer_syntax=syntax)
    dataset = dcmread(path)
    assert np.array_equal(dataset.pixel_array, page)
    assert dataset.file_meta.TransferSyntaxUID.is_compressed == (syntax != "explicit")
    assert list(dataset.ImageType) == ["DERIVED", "SECONDARY"]
    assert (dataset.BurnedInAnnotation, dataset.ConversionType) == ("NO", "WSD")


def test_an_array_has_a_page_too(phantom: Volume, tmp_path: Path) -> None:
    dataset = dcmread(write_dicom_page(phantom, tmp_path / "report.dcm", PDF))
    assert dataset.PatientName == "Anonymous^"
    assert "SourceInstanceSequence" not in dataset
    with pytest.raises(OutputError, match="exists"):
        write_dicom_page(phantom, tmp_path / "report.dcm", PDF)


def test_the_patient_is_named_in_the_patient_module_only(
    source: Volume, enhanced: Any, tmp_path: Path
) -> None:
    (tmp_path / "e").mkdir()
    film = read_volume(enhanced(tmp_path / "e", source.data[..., None]))
    write_dicom(source, tmp_path / "classic", facts=FACTS)
    write_dicom(film, tmp_path / "enhanced", facts=FACTS, options=DicomOptions())
    write_parametric_map(film, tmp_path / "enhanced" / "std.dcm", quantity="std", facts=FACTS)
    write_dicom_page(film, tmp_path / "enhanced" / "page.dcm", PDF, facts=FACTS)
    paths = [p for name in ("classic", "enhanced") for p in (tmp_path / name).iterdir()]
    assert len(paths) == 9
    for path in paths:
        dataset = dcmread(path)
        assert dataset.PatientName == "Private^Person"
        for element in dataset.iterall():
            if element.tag.group != 0x0010:
                assert "Private" not in str(element.value)
                assert "P-0001" not in str(element.value)
