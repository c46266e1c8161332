"""A page for people in the study of a scan: Encapsulated PDF or Secondary Capture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EncapsulatedPDFStorage, SecondaryCaptureImageStorage

from medddpm.io.dicom_pixels import TransferSyntax, compress
from medddpm.io.dicom_quiet import quiet_pydicom
from medddpm.io.dicom_series import (
    DerivedSeries,
    algorithm_of,
    copy_kept,
    derivation_text,
    new_dataset,
    plan_series,
    set_equipment,
    source_files,
    source_of,
)
from medddpm.io.dicom_values import text
from medddpm.io.files import atomic_path, check_output
from medddpm.version import __version__
from medddpm.volume import Volume

if TYPE_CHECKING:
    from medddpm.io.sidecar import Facts

_TITLE = "Restoration report"


def write_dicom_page(
    volume: Volume,
    path: str | Path,
    page: bytes | NDArray[np.uint8],
    *,
    facts: Facts | None = None,
    transfer_syntax: TransferSyntax = "explicit",
) -> Path:
    """Write a page as an object of its own series in the study of the scan.

    The page must not name the patient or the date: BurnedInAnnotation says that it does not.

    Args:
        volume: The restored scan, with the headers of its source.
        path: The file.
        page: A PDF file, or (rows, columns, 3) RGB, which becomes a Secondary Capture.
        facts: The restoration's report.
        transfer_syntax: Encoding of an RGB page; a PDF is stored as it is.

    Raises:
        OutputError: The file exists, or cannot be written.
    """
    path = check_output(path)

    kind = " pdf" if isinstance(page, bytes) else " image"
    algorithm, done = algorithm_of(facts), "report on a scan denoised"
    with quiet_pydicom():
        series = plan_series(volume, "AI report", algorithm, shift=5000, kind=kind, done=done)
        if isinstance(page, bytes):
            dataset = _document(series, page)
        else:
            dataset = _capture(series, page)
            compress(dataset, transfer_syntax)
        with atomic_path(path) as partial:
            dataset.save_as(partial, enforce_file_format=True)
    return path


def _document(series: DerivedSeries, pdf: bytes) -> Dataset:
    """Encapsulated PDF (PS3.3 A.45.1, C.24.2)."""
    dataset = _new(series, EncapsulatedPDFStorage, "DOC")
    dataset.ContentDate = dataset.ContentTime = dataset.AcquisitionDateTime = ""
    dataset.DocumentTitle, dataset.ConceptNameCodeSequence = _TITLE, Sequence([])
    files = source_files(series)
    if files:
        dataset.SourceInstanceSequence = Sequence(files)
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = len(pdf)
    dataset.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    return dataset


def _capture(series: DerivedSeries, page: NDArray[np.uint8]) -> Dataset:
    """Secondary Capture Image (PS3.3 A.8.1, C.8.6)."""
    dataset = _new(series, SecondaryCaptureImageStorage, "OT")
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.PatientOrientation = ""
    source, _ = source_of(series.volume, 0)
    copy_kept(source, dataset, ("BodyPartExamined",))
    if "BodyPartExamined" not in dataset:
        dataset.Laterality = ""
    dataset.RecognizableVisualFeatures = text(source, "RecognizableVisualFeatures") or "YES"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = page.shape
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    pixels = page.tobytes()
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    return dataset


def _new(series: DerivedSeries, sop_class: str, modality: str) -> Dataset:
    dataset = new_dataset(series, sop_class, "page")
    dataset.Modality, dataset.ConversionType = modality, "WSD"
    dataset.Manufacturer, dataset.ManufacturerModelName = "medddpm", "medddpm"
    dataset.SoftwareVersions, dataset.BurnedInAnnotation = __version__, "NO"
    set_equipment(dataset, series, derivation_text(series))
    return dataset
