"""Whom and what a raw header names, as attributes of DICOM: for a derived series, and nothing else.

The elements are those of the ISMRMRD header (schema 1.14: subject, study, measurement and system
information, sequence parameters); values that DICOM cannot hold are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import RE_VALID_UID, generate_uid

from medddpm.errors import ConfigError
from medddpm.io.dicom_series import decimals
from medddpm.io.raw_scan import RawScan
from medddpm.volume import Volume

Read = Callable[[str], str]
_MOST_UID = 64


def _words(length: int) -> Read:
    """Text of one value, cut to what its attribute holds."""
    return lambda told: "" if "\\" in told or not told.isprintable() else told[:length].strip()


def _one_of(*known: str) -> Read:
    return lambda told: told.upper() if told.upper() in known else ""


def _number(factor: float) -> Read:
    def read(told: str) -> str:
        try:
            value = float(told) * factor
        except ValueError:
            return ""
        return str(decimals([value])[0]) if 0 < value < math.inf else ""

    return read


def _day(told: str) -> str:
    found = re.match(r"(\d{4})-(\d\d)-(\d\d)(?!\d)", told)
    return "".join(found.groups()) if found else ""


def _time(told: str) -> str:
    found = re.match(r"(\d\d):(\d\d):(\d\d)(\.\d{1,6})?", told)
    return "".join(part or "" for part in found.groups()) if found else ""


def _uid(told: str) -> str:
    return told if re.fullmatch(RE_VALID_UID, told) and len(told) <= _MOST_UID else ""


_SUBJECT, _STUDY = "subjectInformation", "studyInformation"
_MEASUREMENT, _SYSTEM = "measurementInformation", "acquisitionSystemInformation"
_SEQUENCE = "sequenceParameters"
_PLACES = ("HFP", "HFS", "HFDR", "HFDL", "FFDR", "FFDL", "FFP", "FFS")
"""Defined terms of PatientPosition (PS3.3 C.7.3.1.1.2), which ISMRMRD shares."""
_ATTRIBUTES: dict[str, tuple[str, Read]] = {
    "PatientName": (f"{_SUBJECT}/patientName", _words(64)),
    "PatientID": (f"{_SUBJECT}/patientID", _words(64)),
    "PatientBirthDate": (f"{_SUBJECT}/patientBirthdate", _day),
    "PatientSex": (f"{_SUBJECT}/patientGender", _one_of("M", "F", "O")),
    "PatientWeight": (f"{_SUBJECT}/patientWeight_kg", _number(1)),
    "PatientSize": (f"{_SUBJECT}/patientHeight_m", _number(1)),
    "StudyInstanceUID": (f"{_STUDY}/studyInstanceUID", _uid),
    "StudyDate": (f"{_STUDY}/studyDate", _day),
    "StudyTime": (f"{_STUDY}/studyTime", _time),
    "StudyID": (f"{_STUDY}/studyID", _words(16)),
    "StudyDescription": (f"{_STUDY}/studyDescription", _words(64)),
    "AccessionNumber": (f"{_STUDY}/accessionNumber", _words(16)),
    "ReferringPhysicianName": (f"{_STUDY}/referringPhysicianName", _words(64)),
    "FrameOfReferenceUID": (f"{_MEASUREMENT}/frameOfReferenceUID", _uid),
    "PatientPosition": (f"{_MEASUREMENT}/patientPosition", _one_of(*_PLACES)),
    "ProtocolName": (f"{_MEASUREMENT}/protocolName", _words(64)),
    "SeriesDescription": (f"{_MEASUREMENT}/seriesDescription", _words(64)),
    "Manufacturer": (f"{_SYSTEM}/systemVendor", _words(64)),
    "ManufacturerModelName": (f"{_SYSTEM}/systemModel", _words(64)),
    "InstitutionName": (f"{_SYSTEM}/institutionName", _words(64)),
    "StationName": (f"{_SYSTEM}/stationName", _words(16)),
    "MagneticFieldStrength": (f"{_SYSTEM}/systemFieldStrength_T", _number(1)),
    "ImagingFrequency": ("experimentalConditions/H1resonanceFrequency_Hz", _number(1e-6)),
    "RepetitionTime": (f"{_SEQUENCE}/TR", _number(1)),
    "EchoTime": (f"{_SEQUENCE}/TE", _number(1)),
    "FlipAngle": (f"{_SEQUENCE}/flipAngle_deg", _number(1)),
}


def identity_of(root: Any) -> dict[str, str]:
    """Keywords of DICOM and their values.

    Args:
        root: The XML of a header without namespaces. Of an element that stands there several times,
            as a TE for each echo, no value is true of all images, and none is taken.
    """
    found = {}
    for keyword, (path, read) in _ATTRIBUTES.items():
        elements = root.findall(path)
        value = read((elements[0].text or "").strip()) if len(elements) == 1 else ""
        if value:
            found[keyword] = value
    return found


def identified(volume: Volume, scan: RawScan, digest: str) -> Volume:
    """An image with the header that `write_dicom` needs: the patient and study of its raw data.

    Args:
        volume: Reconstructed.
        scan: The raw data.
        digest: Checksum of their file; all UIDs that they do not tell follow from it, and images of
            one file share a study and a frame of reference.

    Raises:
        ConfigError: The raw data do not tell where the image lies, or name no patient.
    """
    check_identity(scan)
    header = Dataset()
    if not all(value.isascii() for value in scan.identity.values()):
        header.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in (_uids(digest) | dict(scan.identity)).items():
        setattr(header, keyword, value)
    header.MRAcquisitionType = "3D" if scan.encoded_matrix[2] > 1 else "2D"
    header.SliceThickness = decimals([scan.recon_fov_mm[2] / scan.recon_matrix[2]])[0]
    return replace(volume, format="raw", native=header, modality="MR", case_id=digest)


def check_identity(scan: RawScan) -> None:
    """Raise ConfigError where no DICOM can be made of raw data: no place, or no patient."""
    name = scan.source.name if scan.source is not None else scan.case_id
    lacks = []
    if not scan.placed:
        lacks.append("does not tell where its image lies in space")
    if not _names_patient(scan.identity):
        lacks.append("names no patient (ISMRMRD: subjectInformation, patientID or patientName)")
    if lacks:
        raise ConfigError(
            f"{name} {' and '.join(lacks)}, so no DICOM can be made of it; write NIfTI, and with "
            "a DICOM series of the same grid: medddpm convert IMAGE.nii.gz OUT/ --format dicom "
            "--like SERIES"
        )


def _names_patient(identity: Mapping[str, str]) -> bool:
    return "PatientID" in identity or "PatientName" in identity


def _uids(digest: str) -> dict[str, str]:
    return {
        keyword: str(generate_uid(entropy_srcs=[digest, keyword]))
        for keyword in ("StudyInstanceUID", "FrameOfReferenceUID")
    }
