"""Classic MR images, one a slice (PS3.3 A.4, C.7.6.1, C.8.3.1)."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import MRImageStorage

from medddpm.io.dicom_attributes import KEPT, REQUIRED, from_groups
from medddpm.io.dicom_pixels import Stored, describe_pixels, set_pixels
from medddpm.io.dicom_series import (
    REWRITTEN,
    DerivedSeries,
    add_missing,
    code,
    copy_kept,
    decimals,
    derivation_text,
    geometry_of,
    new_dataset,
    set_equipment,
    set_frame_of_reference,
    source_items,
    source_of,
)
from medddpm.io.dicom_values import words


def classic_image(
    series: DerivedSeries,
    stored: Stored,
    frame: NDArray[Any],
    index: int,
    padding: NDArray[Any] | None = None,
) -> Dataset:
    """The image of slice `index` (slices fastest, time slowest).

    Args:
        series: The series.
        stored: Of the whole volume, for its slope.
        frame: (rows, columns), the stored values of this slice.
        index: The slice.
        padding: Which of its pixels are padding.
    """
    volume = series.volume
    t, z = divmod(index, volume.geometry.shape[2])
    dataset = new_dataset(series, MRImageStorage, "image", index)
    source, number = source_of(volume, index)
    _keep(dataset, source, number)
    set_frame_of_reference(dataset, series)
    dataset.Modality, dataset.AcquisitionNumber = "MR", t + 1
    if volume.num_frames > 1:
        dataset.TemporalPositionIdentifier = t + 1
        dataset.NumberOfTemporalPositions = volume.num_frames
    for keyword, value in geometry_of(volume, z).items():
        setattr(dataset, keyword, value)
    if "SliceThickness" not in dataset:
        dataset.SliceThickness = dataset.SpacingBetweenSlices
    _set_derivation(dataset, series, stored.slope, index)
    set_pixels(dataset, frame)
    describe_pixels(dataset, source, frame, padding)
    if stored.slope != 1:
        dataset.RescaleSlope, dataset.RescaleIntercept = decimals([stored.slope])[0], 0
        dataset.RescaleType = "US"
    return dataset


def _keep(dataset: Dataset, source: Dataset, frame: int) -> None:
    """The attributes of the source that stay true, and empty or neutral required ones."""
    copy_kept(source, dataset, KEPT)
    for keyword, value in from_groups(source, frame).items():
        setattr(dataset, keyword, value)
    add_missing(dataset, REQUIRED, is_foreign="StudyInstanceUID" not in source)
    _repair(dataset)
    before = [v for v in words(source, "ImageType") if v not in ("MOSAIC", "VFRAME")]
    kind = before[2] if len(before) > 2 else "OTHER"
    dataset.ImageType = ["DERIVED", "PRIMARY", kind, *before[3:]]


def _repair(dataset: Dataset) -> None:
    """Conditional attributes that many sources lack, or have where they must not."""
    if "IR" not in words(dataset, "ScanningSequence"):
        dataset.pop("InversionTime", None)
    elif "InversionTime" not in dataset:
        dataset.add(DataElement(tag_for_keyword("InversionTime") or 0, "DS", None))
    if "BodyPartExamined" not in dataset and "Laterality" not in dataset:
        dataset.Laterality = ""


def _set_derivation(dataset: Dataset, series: DerivedSeries, slope: float, index: int) -> None:
    """How the image came about (C.7.6.1.1.3 and C.12.1)."""
    dataset.DerivationDescription = derivation_text(series, slope)
    if series.derivation != REWRITTEN:
        dataset.DerivationCodeSequence = Sequence([code(*series.derivation)])
    source = source_items(series, index)
    if source is not None:
        dataset.SourceImageSequence = source
    set_equipment(dataset, series, dataset.DerivationDescription)
