"""One Enhanced MR object for a whole volume (PS3.3 A.36, C.8.13.1)."""

from __future__ import annotations

from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage

from medddpm.io.dicom_attributes import ENHANCED_REQUIRED, GROUPS, KEPT_ENHANCED
from medddpm.io.dicom_frames import add_frames
from medddpm.io.dicom_groups import group
from medddpm.io.dicom_pixels import Stored, describe_pixels, frames_of, set_pixels
from medddpm.io.dicom_series import (
    DerivedSeries,
    add_missing,
    copy_kept,
    decimals,
    derivation_text,
    item_of,
    new_dataset,
    set_equipment,
    set_frame_of_reference,
    source_of,
    source_series,
)
from medddpm.io.dicom_values import text, value_of, words


def enhanced_image(series: DerivedSeries, stored: Stored) -> Dataset:
    """The object of a volume whose source is an enhanced object.

    Args:
        series: The series.
        stored: (X, Y, Z) or (X, Y, Z, T).
    """
    source, _ = source_of(series.volume, 0)
    dataset = new_dataset(series, EnhancedMRImageStorage, "enhanced")
    copy_kept(source, dataset, KEPT_ENHANCED)
    add_missing(dataset, ENHANCED_REQUIRED, is_foreign=True)
    dataset.pop("Laterality", None)  # each frame's anatomy says it
    dataset.Modality = "MR"
    set_frame_of_reference(dataset, series)
    set_content(dataset, source)
    frame_type = _frame_type(source, series)
    for element in frame_type[0]:
        dataset.add(element)
    dataset.ImageType = dataset.pop("FrameType").value
    set_equipment(dataset, series, derivation_text(series, stored.slope))
    transformation = item_of(
        RescaleSlope=decimals([stored.slope])[0], RescaleIntercept=0, RescaleType="US"
    )
    evidence = source_series(series)
    if evidence is not None:
        dataset.SourceImageEvidenceSequence = item_of(
            StudyInstanceUID=dataset.StudyInstanceUID, ReferencedSeriesSequence=evidence
        )
    shared = {
        "MRImageFrameTypeSequence": frame_type,
        "PixelValueTransformationSequence": transformation,
    }
    add_frames(dataset, series, shared=shared, kept=GROUPS)
    frames = frames_of(stored.values)
    set_pixels(dataset, frames)
    padding = None if stored.padding is None else frames_of(stored.padding)
    describe_pixels(dataset, source, frames, padding)
    return dataset


def set_content(dataset: Dataset, source: Dataset) -> None:
    """What multi-frame objects say of their content: for research, dates, no loss.

    The date is that of the source, so that the same input gives the same bytes; it is today where
    the source has none.
    """
    now = datetime.now()
    known = [of for of in ("Content", "Acquisition", "Study") if value_of(source, f"{of}Date")]
    dataset.ContentDate = value_of(source, f"{known[0]}Date") if known else now.strftime("%Y%m%d")
    dataset.ContentTime = now.strftime("%H%M%S")
    if known:
        dataset.ContentTime = value_of(source, f"{known[0]}Time") or "000000"
    dataset.ContentQualification = "RESEARCH"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.BurnedInAnnotation = text(source, "BurnedInAnnotation") or "NO"
    dataset.RecognizableVisualFeatures = text(source, "RecognizableVisualFeatures") or "YES"
    dataset.LossyImageCompression = text(source, "LossyImageCompression") or "00"
    if dataset.LossyImageCompression == "01":
        copy_kept(source, dataset, ("LossyImageCompressionRatio", "LossyImageCompressionMethod"))


def _frame_type(source: Dataset, series: DerivedSeries) -> Sequence:
    """MR Image Frame Type (C.8.13.5.1): as the source's, but DERIVED and FILTERED.

    Value 4 says how pixels were derived (C.8.16.1.4); one that the source already has stays.
    """
    _, frame = source_of(series.volume, 0)
    before = group(source, frame, "MRImageFrameTypeSequence")
    values = words(before, "FrameType") or words(source, "ImageType")
    flavor = values[2] if len(values) > 2 and len(values[2]) > 1 else "VOLUME"
    contrast = values[3] if len(values) > 3 and values[3] != "NONE" else "FILTERED"
    if not series.algorithm.model:
        contrast = values[3] if len(values) > 3 else "NONE"
    return item_of(
        FrameType=["DERIVED", "PRIMARY", flavor, contrast],
        PixelPresentation="MONOCHROME",
        VolumetricProperties=text(before, "VolumetricProperties") or "VOLUME",
        VolumeBasedCalculationTechnique=text(before, "VolumeBasedCalculationTechnique") or "NONE",
        ComplexImageComponent=text(before, "ComplexImageComponent") or "MAGNITUDE",
        AcquisitionContrast=text(before, "AcquisitionContrast") or "UNKNOWN",
    )
