"""What DICOM tags and BIDS sidecars say of a scan: contrast, scanner, age. Nothing is guessed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from medddpm.io.dicom_values import number_or, text, words

ACQUISITION_CONTRASTS = {
    "T1": "T1w",
    "T2": "T2w",
    "T2_STAR": "T2starw",
    "PROTON_DENSITY": "PDw",
    "FLUID_ATTENUATED": "FLAIR",
}
"""Defined terms of Acquisition Contrast (0008,9209), PS3.3 C.8.13.3.3.1, as BIDS suffixes."""


@dataclass(frozen=True)
class PulseSequence:
    """The timing of a pulse sequence, in ms; 0 where it is not told.

    Attributes:
        kinds: Scanning Sequence (0018,0020): "SE", "IR", "GR", "EP", "RM".
        echo_time: TE.
        repetition_time: TR.
        inversion_time: TI.
    """

    kinds: frozenset[str]
    echo_time: float
    repetition_time: float
    inversion_time: float


@dataclass(frozen=True)
class _Weighting:
    """A contrast and the timing that leaves no doubt of it; bounds in ms, both included."""

    contrast: str
    kinds: frozenset[str]
    echo_time: tuple[float, float]
    repetition_time: tuple[float, float]
    inversion_time: tuple[float, float] = (0.0, 0.0)


_ANY = (0.0, 1e6)
_WEIGHTINGS = (
    _Weighting("T1w", frozenset({"SE"}), (1, 30), (200, 900)),
    _Weighting("PDw", frozenset({"SE"}), (1, 30), (2000, 1e6)),
    _Weighting("T2w", frozenset({"SE"}), (70, 1e6), (2000, 1e6)),
    _Weighting("FLAIR", frozenset({"SE", "IR"}), (70, 1e6), (4000, 1e6), (1500, 3000)),
    _Weighting("T1w", frozenset({"GR", "IR"}), (1, 8), _ANY, (600, 1300)),
)
"""Spin echo as in Bernstein, King and Zhou, Handbook of MRI Pulse Sequences (2004), section 14.3;
fluid attenuation by the inversion times that null fluid (section 14.2); inversion-prepared
gradient echo (MP-RAGE, Mugler and Brookeman 1990). Anything between the bounds has no name."""


def contrast_of_timing(sequence: PulseSequence) -> str:
    """The BIDS suffix of a contrast, or "" where the timing does not settle it.

    Example:
        >>> contrast_of_timing(PulseSequence(frozenset({"SE"}), 90, 4000, 0))
        'T2w'
    """
    for known in _WEIGHTINGS:
        bounds = (
            (sequence.echo_time, known.echo_time),
            (sequence.repetition_time, known.repetition_time),
            (sequence.inversion_time, known.inversion_time),
        )
        if sequence.kinds == known.kinds and all(a <= v <= b for v, (a, b) in bounds):
            return known.contrast
    return ""


def contrast_of_dicom(header: Any) -> str:
    """The contrast that a DICOM header tells, "" if it does not.

    Acquisition Contrast of enhanced objects is the standard's own word for it; classic images
    have the sequence and its timing alone. Free text such as Series Description is not read.

    Args:
        header: A pydicom data set.
    """
    told = text(header, "AcquisitionContrast")
    if told:
        return ACQUISITION_CONTRASTS.get(told, "")
    return contrast_of_timing(
        PulseSequence(
            frozenset(words(header, "ScanningSequence")),
            number_or(header, "EchoTime", 0.0),
            number_or(header, "RepetitionTime", 0.0),
            number_or(header, "InversionTime", 0.0),
        )
    )


def contrast_of_sidecar(sidecar: dict[str, Any]) -> str:
    """The same from a BIDS sidecar, whose times are in seconds."""
    kinds = re.findall(r"[A-Z]+", str(sidecar.get("ScanningSequence") or ""))
    times = (
        1000 * number(sidecar.get(name)) for name in ("EchoTime", "RepetitionTime", "InversionTime")
    )
    return contrast_of_timing(PulseSequence(frozenset(kinds), *times))


def scanner_label(manufacturer: Any, model: Any, field: Any) -> str:
    """Vendor, model and field strength as one label, such as "SIEMENS Skyra 3T"."""
    strength = f"{number(field):.3g}T" if number(field) > 0 else ""
    return " ".join(str(part).strip() for part in (manufacturer, model, strength) if part)


def age_in_years(header: Any) -> str:
    """Age from PatientAge, or from the dates of birth and study; 90 stands for 90 and more.

    Few people are older, so that the age alone could name them.
    """
    found = re.fullmatch(r"(\d{3})([DWMY])", text(header, "PatientAge"))
    years = 0.0
    if found:
        years = int(found[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[found[2]]
    else:
        birth, study = (text(header, n) for n in ("PatientBirthDate", "StudyDate"))
        if re.fullmatch(r"\d{8}", birth) and re.fullmatch(r"\d{8}", study):
            months = 12 * (int(study[:4]) - int(birth[:4])) + int(study[4:6]) - int(birth[4:6])
            years = (months - (study[6:] < birth[6:])) / 12
    if years <= 0:
        return ""
    return f"{min(years, 90.0):.3g}" if years < 3 else str(int(min(years, 90)))


def sex_code(text: Any) -> str:
    """The letter F, M or O of what a table or a header has, "" if that is none of them."""
    word = str(text or "").strip().lower()
    known = {"f": "F", "female": "F", "m": "M", "male": "M", "o": "O", "other": "O"}
    return known.get(word, "")


def number(value: Any) -> float:
    """A number, 0 where there is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0
