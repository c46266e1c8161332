"""What the header of a scan says of being synthetic."""

from __future__ import annotations

from typing import Any

from medddpm.io.dicom_quiet import quiet_pydicom
from medddpm.io.dicom_values import words
from medddpm.volume import Volume

LABEL = "SYNTHETIC"
"""In Image Type of DICOM, and in `descrip` or `intent_name` of NIfTI."""


def synthetic_label(volume: Volume) -> str:
    """The name of the field that says SYNTHETIC; "" if none does.

    DICOM has an attribute of its own, Synthetic Data (0008,001C) of the SOP Common Module (PS3.3
    C.12.1); an Image Type with that word counts too.
    """
    if volume.format == "dicom":
        return _dicom_label(volume.native[0]) if volume.native else ""
    header: Any = volume.native
    known = header.keys() if hasattr(header, "keys") else ()
    for name in ("descrip", "intent_name"):
        if name in known and LABEL.encode() in bytes(header[name]).upper():
            return name
    return ""


def _dicom_label(dataset: Any) -> str:
    with quiet_pydicom():
        if "YES" in words(dataset, "SyntheticData"):
            return "SyntheticData"
        return "ImageType" if LABEL in words(dataset, "ImageType") else ""
