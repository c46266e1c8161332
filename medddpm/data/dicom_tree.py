"""A tree of DICOM files, in any layout, as a source of scans: one a series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset

from medddpm.data.acquisition import (
    age_in_years,
    contrast_of_dicom,
    scanner_label,
    sex_code,
)
from medddpm.data.ledger import LedgerRow
from medddpm.data.manifest import ScanRow
from medddpm.data.private import Pseudonyms
from medddpm.data.sources import Found, Source
from medddpm.errors import ConfigError, ContentAbsentError, MedddpmError
from medddpm.io import dicom_headers
from medddpm.io.dicom_quiet import quiet_pydicom
from medddpm.io.dicom_values import modality_of, number_or, text, words

_KEYWORDS = [
    "SOPClassUID",
    "StudyInstanceUID",
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "StudyDate",
    "InstitutionName",
    "Manufacturer",
    "ManufacturerModelName",
    "MagneticFieldStrength",
    "ScanningSequence",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "AcquisitionContrast",
    "ImageType",
    "BurnedInAnnotation",
]
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass
class _Series:
    """Files of one series and the first of their headers."""

    header: Dataset
    files: list[Path] = field(default_factory=list)


def find_dicom(
    folder: Path,
    pseudonyms: Pseudonyms,
    on_file: Callable[[int], None] | None = None,
) -> Source:
    """Every series under a folder, by a few attributes of each file.

    Patients become pseudonyms; scans are named by them and by a hash of the series. A series that
    shares a folder with a damaged file may lack that slice, and is left out.

    Args:
        folder: Searched through.
        pseudonyms: Of the prepared folder.
        on_file: Called with the number of images read so far.

    Raises:
        ConfigError: There is no DICOM image.
    """
    damaged: dict[Path, Path] = {}
    reasons: dict[Path, str] = {}

    def on_error(path: Path, error: MedddpmError) -> None:
        absent = isinstance(error, ContentAbsentError)
        reasons[damaged.setdefault(path.parent, path)] = (
            "the content of a file was not fetched" if absent else "a DICOM file is damaged"
        )

    series: dict[str, _Series] = {}
    images = dicom_headers(folder, _KEYWORDS, on_error)
    for count, (path, header) in enumerate(images, start=1):
        uid = text(header, "SeriesInstanceUID") or f"none in {path.parent}"
        series.setdefault(uid, _Series(header)).files.append(path)
        if on_file:
            on_file(count)
    if not series and not damaged:
        raise ConfigError(
            f"{folder} is no BIDS data set and holds no DICOM image; for a folder of NIfTI files "
            "give --table"
        )
    scans: list[Found] = []
    left_out = [
        LedgerRow(_file_name(p, pseudonyms), "", "unreadable", reasons[p]) for p in damaged.values()
    ]
    for uid, item in series.items():
        with quiet_pydicom():
            found = _found(uid, item, pseudonyms)
        reason = _unfit(item, damaged)
        if reason:
            left_out.append(LedgerRow(found.row.scan, found.row.subject, *reason))  # type: ignore[arg-type]
        else:
            scans.append(found)
    notes = _notes(scans)
    return Source("DICOM", tuple(scans), tuple(left_out), notes)


def _file_name(path: Path, pseudonyms: Pseudonyms) -> str:
    return f"file-{pseudonyms.digest('file', str(path), 8)}"


def _unfit(item: _Series, damaged: dict[Path, Path]) -> tuple[str, str] | None:
    modality = modality_of(item.header)
    if modality != "MR":
        return "not-mr", f"modality {modality or 'unknown'}"
    if any(path.parent in damaged for path in item.files):
        return "unreadable", "a damaged file lies in its folder and may be a slice of it"
    return None


def _found(uid: str, item: _Series, pseudonyms: Pseudonyms) -> Found:
    header = item.header
    original, is_known = _patient(header)
    subject = pseudonyms.subject(original)
    number = pseudonyms.digest("series", uid, 12)
    study = pseudonyms.digest("study", text(header, "StudyInstanceUID"), 6)
    site = text(header, "InstitutionName")
    contrast = contrast_of_dicom(header)
    flags = _flags(header) + ([] if is_known else ["subject-unknown"])
    row = ScanRow(
        scan=f"{subject}_{number}",
        subject=subject,
        session=study,
        series=number,
        contrast=contrast,
        file=f"dicom:{number}",
        sex=sex_code(text(header, "PatientSex")),
        age=age_in_years(header),
        site=f"site-{pseudonyms.digest('site', site, 6)}" if site else "",
        scanner=scanner_label(
            text(header, "Manufacturer"),
            text(header, "ManufacturerModelName"),
            number_or(header, "MagneticFieldStrength", 0.0),
        ),
        flags=";".join(flags),
    )
    files = tuple(sorted(item.files))
    return Found(row, files, original, kin=_kin(header, pseudonyms), told_contrast=contrast)


def _patient(header: Dataset) -> tuple[str, bool]:
    """What tells the patient from others, and whether it is more than the study alone."""
    number = text(header, "PatientID")
    if number:
        issuer = text(header, "IssuerOfPatientID")
        return (f"{issuer}\\{number}" if issuer else number), True
    name = text(header, "PatientName")
    if name:
        return f"{name}\\{text(header, 'PatientBirthDate')}", True
    return f"study {text(header, 'StudyInstanceUID')}", False


def _kin(header: Dataset, pseudonyms: Pseudonyms) -> str:
    """A hash of name and date of birth: one patient may have two IDs."""
    name, birth = (text(header, n) for n in ("PatientName", "PatientBirthDate"))
    return pseudonyms.digest("person", f"{name.lower()}\\{birth}") if name and birth else ""


def _flags(header: Dataset) -> list[str]:
    flags = []
    burned = text(header, "BurnedInAnnotation")
    is_capture = text(header, "SOPClassUID").startswith(_SECONDARY_CAPTURE)
    if burned == "YES" or (is_capture and burned != "NO"):
        flags.append("burned-in")
    if "DERIVED" in words(header, "ImageType")[:1]:
        flags.append("derived")
    return flags


def _notes(scans: list[Found]) -> tuple[str, ...]:
    unknown = sum("subject-unknown" in found.row.flags for found in scans)
    if not unknown:
        return ()
    return (f"{unknown} series name no patient: each study of them counts as a subject",)
