"""What an image shows: magnitude, phase, real or imaginary part, field map, water, fat.

The one place that decides; series are split by it, and what is no magnitude is not restored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pydicom.dataset import Dataset

from medddpm.errors import VolumeReadError
from medddpm.io.dicom_groups import group, items_of
from medddpm.io.dicom_values import number, text, value_of, words
from medddpm.volume import Volume

Component = Literal[
    "", "magnitude", "phase", "real part", "imaginary part", "complex values", "field map"
]

_COMPLEX: dict[str, Component] = {
    "MAGNITUDE": "magnitude",
    "PHASE": "phase",
    "REAL": "real part",
    "IMAGINARY": "imaginary part",
    "MIXED": "complex values",
}
"""Defined terms of Complex Image Component (0008,9208), PS3.3 C.8.13.3.1.2."""
_GE: tuple[Component, ...] = ("magnitude", "phase", "real part", "imaginary part")
"""GE's private (0043,xx2F), RawDataType: 0 to 3."""
_LETTERS: dict[str, Component] = {
    "M": "magnitude",
    "P": "phase",
    "R": "real part",
    "I": "imaginary part",
    "B0": "field map",
}
_WORDS: dict[str, Component] = {
    **_COMPLEX,
    "MAG": "magnitude",
    "PHASE_MAP": "phase",
    "PHASE_IMAGE": "phase",
    "PHASE_DIFF": "phase",
    "PHASE_DIFFERENCE": "phase",
    "VELOCITY": "phase",
    "VELOCITY_MAP": "phase",
    "IMAG": "imaginary part",
    "B0_MAP": "field map",
    "B0MAP": "field map",
    "B0_FIELD_MAP": "field map",
    "FIELD_MAP": "field map",
    "FIELDMAP": "field map",
    "FREQUENCY_MAP": "field map",
}
_DIXON = {
    "W": "water",
    "WATER": "water",
    "F": "fat",
    "FAT": "fat",
    "IP": "in-phase",
    "IN_PHASE": "in-phase",
    "INPHASE": "in-phase",
    "OP": "out-of-phase",
    "OUT_PHASE": "out-of-phase",
    "OUTPHASE": "out-of-phase",
    "OUT_OF_PHASE": "out-of-phase",
    "OPP_PHASE": "out-of-phase",
    "OPPOSED_PHASE": "out-of-phase",
    "OPPOSED": "out-of-phase",
    "FF": "fat fraction",
    "PDFF": "fat fraction",
    "FAT_FRACTION": "fat fraction",
    "FATFRACTION": "fat fraction",
}
_PHILIPS = re.compile(r"([MPRI])_[A-Z]+")
"""M_FFE, P_SE, R_IR, I_TSE: the component and the technique."""
_LAYOUT = frozenset({"MOSAIC", "VFRAME"})


@dataclass(frozen=True)
class Kind:
    """What must be equal within one volume, as far as the header tells.

    Attributes:
        component: Which part of the complex image; "" if it is not told.
        dixon: Which image of a separation of water and fat, "" if none.
        flavour: The values of ImageType from the third on, upper case.
        echo: Echo time, ms; None if it is not told.
    """

    component: Component = ""
    dixon: str = ""
    flavour: tuple[str, ...] = ()
    echo: float | None = None

    @property
    def shows(self) -> tuple[str, str]:
        """What no two images of one volume differ in; untold is taken for magnitude."""
        return self.component or "magnitude", self.dixon

    @property
    def why_no_magnitude(self) -> str:
        """Why the image is not restored, "" if it may be."""
        if self.component in ("", "magnitude"):
            return ""
        article = {"field map": "a ", "complex values": ""}.get(self.component, "the ")
        return f"it shows {article}{self.component}, not a magnitude"


def kind_of(dataset: Dataset, frame: int | None = None) -> Kind:
    """What an image shows, by all that tells it: the standard's word, GE's number, ImageType.

    What says that it is no magnitude wins: Philips writes "PHASE MAP" beside other words, and GE
    leaves ImageType at OTHER.

    Args:
        dataset: A classic image, a mosaic or an enhanced object.
        frame: Of an enhanced object.
    """
    item, types = dataset, words(dataset, "ImageType")
    echo = number(dataset, "EchoTime") if frame is None else None
    if frame is not None:
        item = group(dataset, frame, "MRImageFrameTypeSequence")
        types = words(item, "FrameType") or types
        echo = number(group(dataset, frame, "MREchoSequence"), "EffectiveEchoTime")
    values = [re.sub(r"[\s\-]+", "_", v.upper()) for v in types]
    told = [_standard(item, dataset), _ge(dataset), *_by_words(values)]
    odd = [c for c in told if c not in ("", "magnitude")]
    known: list[Component] = (
        ["field map"] if "field map" in odd else (odd or list(filter(None, told)))
    )
    flavour = tuple(v for v in values[2:] if v not in _LAYOUT)
    return Kind(known[0] if known else "", _dixon(values), flavour, echo)


def holds_magnitude(dataset: Dataset) -> bool:
    """True if an image, or any frame of an enhanced object, may be restored."""
    frames = len(items_of(dataset, "PerFrameFunctionalGroupsSequence"))
    kinds = (kind_of(dataset, frame) for frame in (range(frames) if frames else [None]))
    return any(not kind.why_no_magnitude for kind in kinds)


def component_of(volume: Volume) -> Component:
    """Which part of the complex image a scan that was read from DICOM shows."""
    kind = getattr(volume.native, "kind", None)
    return (kind.component or "magnitude") if isinstance(kind, Kind) else "magnitude"


def why_no_magnitude(volume: Volume) -> str:
    """Why a scan that was read from DICOM is not restored, "" if it may be."""
    kind = getattr(volume.native, "kind", None)
    return kind.why_no_magnitude if isinstance(kind, Kind) else ""


def check_magnitude(volume: Volume) -> None:
    """Raise VolumeReadError if a scan shows no magnitude, of which the noise has another law."""
    why = why_no_magnitude(volume)
    if why:
        raise VolumeReadError(f"{volume.case_id} has no noise of a magnitude: {why}")


def _standard(item: Dataset, dataset: Dataset) -> Component:
    """Complex Image Component of the frame; of the object only if that is one for all frames."""
    told = text(item, "ComplexImageComponent").upper()
    whole = text(dataset, "ComplexImageComponent").upper()
    return _COMPLEX.get(told or ("" if whole == "MIXED" else whole), "")


def _ge(dataset: Dataset) -> Component:
    """GE's component; also where an anonymiser took the creator of the private block away."""
    if not text(dataset, "Manufacturer").upper().startswith("GE"):
        return ""
    try:
        value = dataset.private_block(0x0043, "GEMS_PARM_01")[0x2F].value
    except Exception:
        value = getattr(value_of(dataset, 0x0043102F), "value", None)
    if isinstance(value, bytes):  # implicit VR, and pydicom does not know the block
        value = int.from_bytes(value[:2], "little") if value else None
    return _GE[value] if isinstance(value, int) and 0 <= value < len(_GE) else ""


def _by_words(values: list[str]) -> list[Component]:
    """Components that ImageType names, letters in values 3 and 4 only (Philips has it in 4)."""
    found = [_WORDS.get(v, "") for v in values]
    for value in values[2:4]:
        philips = _PHILIPS.fullmatch(value)
        found.append(_LETTERS.get(philips[1] if philips else value, ""))
    return found


def _dixon(values: list[str]) -> str:
    named = [_DIXON[v] for v in values[2:4] if v in _DIXON]
    named += [_DIXON[v] for v in values[4:] if v in _DIXON and len(v) > 2]
    return named[0] if named else ""
