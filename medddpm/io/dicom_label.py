"""Series number and description as the name of a folder."""

from __future__ import annotations

import re
import unicodedata

from pydicom.dataset import Dataset

from medddpm.io.dicom_quiet import quiet_pydicom
from medddpm.io.dicom_values import text, words
from medddpm.volume import Volume

_LONGEST = 40
_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "OtherPatientNames", "AccessionNumber")


def series_label(volume: Volume) -> str:
    """Such as "003-T1w_MPRAGE" for a DICOM scan: at most 40 letters, digits, - and _; else "".

    A description that holds a part of the patient's name, a number or the birth date is left out.
    It is for names of folders alone: no message or log has it.
    """
    if volume.format != "dicom" or not volume.native:
        return ""
    with quiet_pydicom():
        parts = _parts(volume.native[0])
    return "-".join(_cleaned(part) for part in parts if _cleaned(part))[:_LONGEST].rstrip("-_")


def _parts(dataset: Dataset) -> list[str]:
    number, description = text(dataset, "SeriesNumber"), text(dataset, "SeriesDescription")
    parts = [number.zfill(3)] if re.fullmatch(r"[0-9]{1,9}", number) else []
    if description and not _names_patient(dataset, description):
        parts.append(description)
    return parts


def _cleaned(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-_")


def _names_patient(dataset: Dataset, description: str) -> bool:
    known = " ".join(word for name in _PATIENT for word in words(dataset, name)).casefold()
    parts = {part for part in re.split(r"[^\w]+|_", known) if len(part) > 2}
    return any(part in description.casefold() for part in parts)
