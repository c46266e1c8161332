"""What headers say of how k-space was measured: that of DICOM, or the BIDS sidecar of NIfTI.

Scanners say it in part, and vendors each in their own way, so it is a hint and never a measurement.
DICOM: PS3.3 C.8.3.1 (MR Image) and C.8.13.5 (functional groups of Enhanced MR); the private
attributes are those that pydicom's dictionary names. BIDS: the fields of MR hardware and in-plane
spatial encoding of the specification, and those that dcm2niix adds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydicom.dataset import Dataset

from medddpm.errors import DicomSeriesError
from medddpm.io.dicom_groups import group
from medddpm.io.dicom_values import number, numbers, text, words
from medddpm.io.nifti import suffix_of
from medddpm.volume import Volume

Shares = tuple[float | None, float | None, float | None]

_LEAST = 0.2
"""Share of k-space: less is a header that means something else."""
_OVERLAP = 0.97
"""Of the thickness of a slice: 3D slices that lie closer were interpolated."""
_FILTERS = ("FIL", "FILTERED_GEMS", "FILTERED")
"""Siemens' value of ImageType, and GE's of ScanOptions."""
_PARTIAL = ("PFP", "PFF", "PFS")
"""Of ScanOptions (0018,0022): partial Fourier in phase, frequency (and slice, by Siemens)."""


@dataclass(frozen=True)
class Acquired:
    """How a scan was measured, as far as its header tells.

    Attributes:
        edge: Measured share of k-space along each array axis, in units of Nyquist: 1 is no
            zero-filling, None is not told.
        coverage: "full", "ellipsoidal" or "cylindrical"; "" is not told.
        partial_fourier: True if a part of the lines was left out (with the share of those that
            were measured where that is told); None is not told.
        parallel_factor: In-plane acceleration; None is not told.
        filtered: The header says that the image was filtered.
        normalised: Likewise, that its brightness was evened out, and the noise with it.
        resampled: Likewise, that it was resampled to undo distortion.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    edge: Shares = (None, None, None)
    coverage: str = ""
    partial_fourier: bool | float | None = None
    parallel_factor: float | None = None
    filtered: bool = False
    normalised: bool = False
    resampled: bool = False

    @property
    def words(self) -> str:
        """What is told, on one line; "" if nothing is."""
        ends = [f"{e:.2f} along {a}" for e, a in zip(self.edge, "XYZ", strict=True) if e]
        parts = [f"k-space measured to {', '.join(ends)}"] if ends else []
        if self.coverage:
            parts.append(f"{self.coverage} coverage")
        if self.partial_fourier:
            share = "" if self.partial_fourier is True else f" {self.partial_fourier:.3g}"
            parts.append(f"partial Fourier{share}")
        if (self.parallel_factor or 1) > 1:
            parts.append(f"parallel imaging by {self.parallel_factor:g}")
        parts += [name for name in ("filtered", "normalised", "resampled") if getattr(self, name)]
        return "; ".join(parts)


def read_acquired(volume: Volume) -> Acquired:
    """What the header of a scan says: of DICOM its own, of NIfTI the JSON of its name beside it.

    A header that is damaged, or a JSON file that cannot be read, says nothing.
    """
    if volume.format == "dicom" and volume.native:
        place, frame = volume.native.places[0]
        try:
            return of_dicom(volume.native[place], volume.geometry.shape, volume.spacing, frame or 0)
        except DicomSeriesError:
            return Acquired()
    if volume.source is None or not suffix_of(volume.source):
        return Acquired()
    path = Path(volume.source)
    beside = path.with_name(path.name[: -len(suffix_of(path))] + ".json")
    try:
        content = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Acquired()
    if not isinstance(content, dict):
        return Acquired()
    return of_bids(content, volume.geometry.shape, volume.spacing)


def of_dicom(
    dataset: Dataset, shape: Sequence[int], spacing: Sequence[float], frame: int = 0
) -> Acquired:
    """What a DICOM header says.

    Args:
        dataset: A classic image, a mosaic or an enhanced object.
        shape: Voxels of the scan: (columns, rows, slices).
        spacing: Their edges, mm.
        frame: Of an enhanced object.
    """
    place, modifier = (
        group(dataset, frame, name) for name in ("MRFOVGeometrySequence", "MRModifierSequence")
    )
    direction = "InPlanePhaseEncodingDirection"
    phase = _phase_axis((text(place, direction) or text(dataset, direction)).upper())
    matrix = _dicom_matrix(dataset, place, phase)
    percent = "PercentPhaseFieldOfView"
    field = number(place, percent) or number(dataset, percent)
    thickness = number(group(dataset, frame, "PixelMeasuresSequence"), "SliceThickness")
    deep = number(place, "MRAcquisitionPhaseEncodingStepsOutOfPlane")
    edge = (
        *_in_plane(matrix, phase, shape, field),
        _share(deep, shape[2]) if deep else _slices(dataset, thickness, spacing),
    )
    types = [value.upper() for value in words(dataset, "ImageType")]
    options = [value.upper() for value in words(dataset, "ScanOptions")]
    filtering = text(dataset, "KSpaceFiltering").upper()
    return Acquired(
        edge,
        {"ELLIPSOIDAL": "ellipsoidal", "CYLINDRICAL": "cylindrical", "FULL": "full"}.get(
            text(dataset, "CoverageOfKSpace").upper(), ""
        ),
        _dicom_partial(dataset, modifier, options),
        number(modifier, "ParallelReductionFactorInPlane") or _siemens_pat(dataset),
        filtering not in ("", "NONE") or _named([*types, *options], _FILTERS),
        _named(types, ("NORM",)),
        _named(types, ("DIS2D", "DIS3D")),
    )


def of_bids(content: Mapping[str, Any], shape: Sequence[int], spacing: Sequence[float]) -> Acquired:
    """What a BIDS sidecar says.

    Args:
        content: Of the JSON file.
        shape: Voxels of the scan.
        spacing: Their edges, mm.
    """
    phase = {"i": 0, "j": 1}.get(str(content.get("PhaseEncodingDirection", ""))[:1])
    if phase is None:
        phase = _phase_axis(str(content.get("InPlanePhaseEncodingDirectionDICOM", "")).upper())
    matrix: list[float | None] = [None, None]
    if phase is not None:
        matrix[phase] = _positive(content.get("AcquisitionMatrixPE"))
        matrix[1 - phase] = _positive(
            content.get("BaseResolution") or content.get("FrequencyEncodingSteps")
        )
    whole = list(shape[:2])
    recon = _positive(content.get("ReconMatrixPE"))
    if phase is not None and recon and recon != shape[phase]:
        whole[phase] = int(recon)  # cropped or padded since
    edge = (
        *_in_plane(matrix, phase, whole, _positive(content.get("PercentPhaseFOV"))),
        _bids_slices(content, spacing),
    )
    types = [str(v).upper() for v in _list(content.get("ImageType"))]
    options = [v.upper() for v in re.split(r"[\\_ ]", str(content.get("ScanOptions", "")))]
    partial = content.get("PartialFourier")
    told = _positive(partial)
    return Acquired(
        edge,
        "",
        (told if told and told < 1 else told is None and bool(partial))
        if partial is not None
        else (_named(options, _PARTIAL) or None),
        _positive(content.get("ParallelReductionFactorInPlane")),
        _named([*types, *options], _FILTERS),
        _named(types, ("NORM",)),
        _named(types, ("DIS2D", "DIS3D")),
    )


def _dicom_matrix(dataset: Dataset, place: Dataset, phase: int | None) -> list[float | None]:
    """Samples along columns and rows of the array; None where it is not told.

    Acquisition Matrix (0018,1310) is frequency rows, frequency columns, phase rows, phase columns.
    """
    told = numbers(dataset, "AcquisitionMatrix", 4)
    if told is not None:
        return [max(told[0], told[2]) or None, max(told[1], told[3]) or None]
    steps = (
        number(place, "MRAcquisitionFrequencyEncodingSteps"),
        number(place, "MRAcquisitionPhaseEncodingStepsInPlane"),
    )
    if steps == (None, None):
        found = re.match(r"(\d+)p?\*(\d+)", _private(dataset, "SIEMENS MR HEADER", 0x51, 0x0B))
        steps = (float(found[2]), float(found[1])) if found else steps
    if phase is None:
        return [None, None]
    return [steps[1], steps[0]] if phase == 0 else [steps[0], steps[1]]


def _in_plane(
    matrix: Sequence[float | None], phase: int | None, shape: Sequence[int], field: float | None
) -> tuple[float | None, float | None]:
    """Shares along the two axes; a field of view smaller than the image holds fewer samples."""
    found = [_share(n, whole) for n, whole in zip(matrix, shape[:2], strict=True)]
    share = found[phase] if phase is not None else None
    if share is not None and phase is not None and field and field < 100:
        other = shape[1 - phase]
        padded = shape[phase] > 1.02 * other * field / 100
        wider = share * shape[phase] / (other * field / 100)
        found[phase] = wider if padded and wider <= 1 else share
    return found[0], found[1]


def _share(samples: float | None, whole: float) -> float | None:
    if samples is None or not _LEAST * whole <= samples <= 4 * whole:
        return None
    return min(1.0, samples / whole)


def _slices(dataset: Dataset, thickness: float | None, spacing: Sequence[float]) -> float | None:
    """Of 3D slices that lie closer than they are thick, their distance over their thickness."""
    thick = thickness or number(dataset, "SliceThickness")
    if text(dataset, "MRAcquisitionType").upper() != "3D":
        return None
    return _interpolated(thick, spacing[2])


def _bids_slices(content: Mapping[str, Any], spacing: Sequence[float]) -> float | None:
    if content.get("MRAcquisitionType") != "3D":
        return None
    return _interpolated(_positive(content.get("SliceThickness")), spacing[2])


def _interpolated(thick: float | None, step: float) -> float | None:
    share = step / thick if thick else 1.0
    return share if _LEAST <= share < _OVERLAP else None


def _dicom_partial(dataset: Dataset, modifier: Dataset, options: Sequence[str]) -> bool | None:
    told = text(modifier, "PartialFourier").upper() or text(dataset, "PartialFourier").upper()
    told = told or _private(dataset, "Philips Imaging DD 001", 0x2001, 0x19).upper()
    if told:
        return told in ("YES", "Y")
    return bool(set(options) & set(_PARTIAL)) if options else None


def _siemens_pat(dataset: Dataset) -> float | None:
    """Factor in phase direction of PATModeText, such as "p2" or "p2s3"."""
    found = re.match(r"p(\d+)", _private(dataset, "SIEMENS MR HEADER", 0x51, 0x11))
    return float(found[1]) if found else None


def _private(dataset: Dataset, creator: str, number: int, element: int) -> str:
    try:
        return str(dataset.private_block(number, creator)[element].value).strip()
    except Exception:
        return ""


def _phase_axis(direction: str) -> int | None:
    """Array axis along which lines were phase-encoded: ROW is along a row, over columns."""
    return {"ROW": 0, "COL": 1, "COLUMN": 1}.get(direction)


def _named(values: Sequence[str], known: Sequence[str]) -> bool:
    return bool(set(values) & set(known))


def _positive(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < 1e6 else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
