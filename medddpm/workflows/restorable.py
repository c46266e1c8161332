"""What of that which was read is restored: magnitudes of MR, and what DICOM can hold of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from medddpm.errors import ConfigError, LeftOutWarning, VolumeReadError
from medddpm.io import DicomOptions, OnError, check_dicom, is_parametric_map, why_no_magnitude
from medddpm.io.outputs import OutputFormat
from medddpm.volume import Volume


def only_magnitudes(volumes: list[Volume]) -> tuple[list[Volume], list[str]]:
    """Scans that may be restored, and why others are left out: phase, field maps and the like."""
    whys = [why_no_magnitude(volume) for volume in volumes]
    kept = [volume for volume, why in zip(volumes, whys, strict=True) if not why]
    notes = [
        f"{volume.case_id} is left out: {why}; `medddpm convert` takes it"
        for volume, why in zip(volumes, whys, strict=True)
        if why
    ]
    return kept, notes


def say_left_out(notes: Sequence[str], on_error: OnError | None, *, is_all: bool) -> None:
    """Warn of what is left out; where nothing else is there it is an error."""
    for text in notes:
        if not is_all:
            warnings.warn(text, LeftOutWarning, stacklevel=3)
        elif on_error is None:
            raise VolumeReadError(text)
        else:
            on_error(VolumeReadError(text))


def check_scan(volume: Volume) -> None:
    """Refuse a Parametric Map, such as one of ours that came back with its study."""
    if is_parametric_map(volume):
        raise VolumeReadError("this is a Parametric Map, not a scan; there is nothing to restore")


def check_format(volume: Volume, format: OutputFormat, dicom: DicomOptions | None = None) -> None:
    """Refuse to derive DICOM from a scan that was not DICOM, not MR, or does not fit into it."""
    if format == "dicom" and volume.format != "dicom":
        raise ConfigError(
            "--format dicom derives a series from DICOM input, and this is none; restore to NIfTI, "
            "and `medddpm convert` makes DICOM of it"
        )
    if format == "dicom" and volume.modality not in ("", "MR"):
        raise ConfigError(
            f"--format dicom derives MR series, and this one is {volume.modality}; write NIfTI"
        )
    if format == "dicom":
        check_dicom(volume, dicom or DicomOptions())
