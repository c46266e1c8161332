"""Maps of uncertainty as Parametric Maps (PS3.3 A.75, C.8.32).

Written here and not with highdicom, which refuses repeated positions (time series) and sources
that lack type 2 attributes, and loses the sources of mosaics. Peer tests read them with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ParametricMapStorage

from medddpm.io.dicom_enhanced import set_content
from medddpm.io.dicom_frames import add_frames
from medddpm.io.dicom_pixels import frames_of, set_pixels
from medddpm.io.dicom_quiet import quiet_pydicom
from medddpm.io.dicom_series import (
    ENSEMBLE,
    SCHEME,
    DerivedSeries,
    algorithm_of,
    check_rectangular,
    code,
    copy_kept,
    decimals,
    derivation_text,
    item_of,
    new_dataset,
    plan_series,
    set_equipment,
    set_frame_of_reference,
    source_of,
    source_series,
)
from medddpm.io.dicom_values import text
from medddpm.io.files import atomic_path, check_output
from medddpm.version import __version__
from medddpm.volume import Volume

if TYPE_CHECKING:
    from medddpm.io.sidecar import Facts

Quantity = Literal["std", "lower", "upper"]

_QUANTITIES: dict[str, tuple[tuple[str, str, str], str, int]] = {
    "std": (("386136009", "SCT", "Standard Deviation"), "standard deviation", 2000),
    "lower": (("LOWER90", SCHEME, "Lower end of the 90 % interval"), "lower 90 %", 3000),
    "upper": (("UPPER90", SCHEME, "Upper end of the 90 % interval"), "upper 90 %", 4000),
}


def write_parametric_map(
    volume: Volume,
    path: str | Path,
    *,
    quantity: Quantity,
    overwrite: bool = False,
    facts: Facts | None = None,
) -> Path:
    """Write a map of an ensemble as one Parametric Map, a series of its own in the source's study.

    It lies in the source's frame of reference and refers to its images, frame by frame. Values are
    32-bit floats in the units of the scan, which for MR are none (UCUM "1").

    Args:
        volume: (X, Y, Z) or (X, Y, Z, T), with the headers of the source.
        path: The file.
        quantity: What the map shows.
        overwrite: Replace an existing file.
        facts: The restoration's report.

    Raises:
        ConfigError: More than 4 GB.
        GeometryError: The grid is sheared.
        OutputError: The file exists, or cannot be written.
    """
    path = check_output(path, overwrite)
    check_rectangular(volume)
    _, words, shift = _QUANTITIES[quantity]
    with quiet_pydicom():
        series = plan_series(
            volume,
            f"AI {words}",
            algorithm_of(facts),
            shift=shift,
            kind=f" {quantity}",
            done=f"{words} of an ensemble denoised",
            derivation=ENSEMBLE,
        )
        dataset = _map(series, quantity)
        with atomic_path(path) as partial:
            dataset.save_as(partial, enforce_file_format=True)
    return path


def is_parametric_map(volume: Volume) -> bool:
    """True if the volume was read from a Parametric Map, which is no scan."""
    with quiet_pydicom():
        return text(source_of(volume, 0)[0], "SOPClassUID") == ParametricMapStorage


def _map(series: DerivedSeries, quantity: Quantity) -> Dataset:
    source, _ = source_of(series.volume, 0)
    dataset = new_dataset(series, ParametricMapStorage, "map")
    copy_kept(source, dataset, ("BodyPartExamined", "PatientPosition"))
    dataset.Modality = "MR"
    set_frame_of_reference(dataset, series)
    dataset.Manufacturer, dataset.ManufacturerModelName = "medddpm", "medddpm"
    dataset.DeviceSerialNumber, dataset.SoftwareVersions = "none", __version__
    set_content(dataset, source)
    dataset.ContentLabel, dataset.ContentCreatorName = quantity.upper(), ""
    dataset.ContentDescription = f"{_QUANTITIES[quantity][1]} of an ensemble of restorations"
    contrast = "STD_DEVIATION" if quantity == "std" else "QUANTITY"
    dataset.ImageType = ["DERIVED", "PRIMARY", "VOLUME", contrast]
    set_equipment(dataset, series, derivation_text(series))
    evidence = source_series(series)
    if evidence is not None:
        dataset.ReferencedSeriesSequence = evidence
        evidence[0].ReferencedInstanceSequence = evidence[0].pop("ReferencedSOPSequence").value
    frames = frames_of(series.volume.data)
    add_frames(
        dataset, series, shared=_groups(dataset, frames, quantity), kept=("FrameAnatomySequence",)
    )
    set_pixels(dataset, frames)
    return dataset


def _groups(dataset: Dataset, frames: NDArray[Any], quantity: Quantity) -> dict[str, Sequence]:
    """Functional groups of a Parametric Map: stored values are real values."""
    low, high = float(frames.min()), float(frames.max())
    width = max(high - low, 1e-6)
    concept = code(*_QUANTITIES[quantity][0])
    mapping = item_of(
        LUTLabel=quantity.upper(),
        LUTExplanation=_QUANTITIES[quantity][1],
        DoubleFloatRealWorldValueFirstValueMapped=low,
        DoubleFloatRealWorldValueLastValueMapped=high,
        RealWorldValueIntercept=0.0,
        RealWorldValueSlope=1.0,
        MeasurementUnitsCodeSequence=Sequence([code("1", "UCUM", "no units")]),
        QuantityDefinitionSequence=item_of(
            ValueType="CODE",
            ConceptNameCodeSequence=Sequence([code("246205007", "SCT", "Quantity")]),
            ConceptCodeSequence=Sequence([concept]),
        ),
    )
    centre = decimals([(low + high) / 2, width])
    return {
        "PixelValueTransformationSequence": item_of(
            RescaleSlope=1, RescaleIntercept=0, RescaleType="US"
        ),
        "FrameVOILUTSequence": item_of(
            WindowCenter=centre[0], WindowWidth=centre[1], VOILUTFunction="LINEAR_EXACT"
        ),
        "ParametricMapFrameTypeSequence": item_of(FrameType=list(dataset.ImageType)),
        "RealWorldValueMappingSequence": mapping,
    }
