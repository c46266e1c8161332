"""Series number and description as the name of a folder."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

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
    dataset = volume.native[0]
    number, description = _text(dataset, "SeriesNumber"), _text(dataset, "SeriesDescription")
    parts = [number.zfill(3)] if re.fullmatch(r"[0-9]{1,9}", number) else []
    if description and not _names_patient(dataset, description):
        parts.append(description)
    return "-".join(_cleaned(part) for part in parts if _cleaned(part))[:_LONGEST].rstrip("-_")


def _text(dataset: Any, name: str) -> str:
    try:
        return str(dataset.get(name) or "").strip()
    except (ValueError, TypeError, OverflowError):  # a number that is none
        return ""


def _cleaned(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-_")


def _names_patient(dataset: Any, description: str) -> bool:
    known = " ".join(_text(dataset, name) for name in _PATIENT)
    words = {w for w in re.split(r"[^\w]+|_", known.casefold()) if len(w) > 2}
    return any(word in description.casefold() for word in words)
