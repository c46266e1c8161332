"""The frames of a derived multi-frame object: functional groups and dimensions.

PS3.3 C.7.6.16 and C.7.6.17. Frames lie in one stack, slices fastest, time slowest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medddpm.io.dicom_attributes import FRAME_CONTENT
from medddpm.io.dicom_groups import group, groups_of
from medddpm.io.dicom_series import (
    DerivedSeries,
    code,
    copy_kept,
    derivation_text,
    geometry_of,
    item_of,
    source_items,
    source_of,
    standard,
)
from medddpm.io.dicom_values import number_or, text

_ANATOMY = {"BRAIN": ("12738006", "Brain"), "HEAD": ("69536005", "Head")}
_UNKNOWN = ("261665006", "Unknown")


def add_frames(
    dataset: Dataset,
    series: DerivedSeries,
    *,
    shared: Mapping[str, Sequence],
    kept: tuple[str, ...],
) -> None:
    """Describe every frame of a multi-frame object.

    Args:
        dataset: The object.
        series: The series.
        shared: Functional groups of this kind of object that hold for all frames.
        kept: Functional groups that are taken over from the frames of the source.
    """
    volume = series.volume
    count = volume.geometry.shape[2] * volume.num_frames
    dataset.NumberOfFrames = count
    dataset.AcquisitionContextSequence = Sequence([])
    _set_dimensions(dataset, series)
    common = Dataset()
    geometry = geometry_of(volume, 0)
    first, frame = source_of(volume, 0)
    measures = group(first, frame, "PixelMeasuresSequence")
    common.PixelMeasuresSequence = item_of(
        PixelSpacing=geometry["PixelSpacing"],
        SpacingBetweenSlices=geometry["SpacingBetweenSlices"],
        SliceThickness=number_or(measures, "SliceThickness", 0)
        or number_or(first, "SliceThickness", 0)
        or geometry["SpacingBetweenSlices"],
    )
    common.PlaneOrientationSequence = item_of(
        ImageOrientationPatient=geometry["ImageOrientationPatient"]
    )
    for keyword, value in shared.items():
        setattr(common, keyword, value)
    frames = [_frame(series, index) for index in range(count)]
    _take_over(series, common, frames, kept)
    if "FrameAnatomySequence" not in common and "FrameAnatomySequence" not in frames[0]:
        common.FrameAnatomySequence = _anatomy(first)
    dataset.SharedFunctionalGroupsSequence = Sequence([common])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)


def _set_dimensions(dataset: Dataset, series: DerivedSeries) -> None:
    """Stack, slice and, in a time series, time: what `DimensionIndexValues` count."""
    uid = series.uid("dimensions")
    pointers = ["StackID", "InStackPositionNumber", "TemporalPositionIndex"]
    items = []
    for keyword in pointers[: 3 if series.volume.num_frames > 1 else 2]:
        item = Dataset()
        item.DimensionIndexPointer = tag_for_keyword(keyword)
        item.FunctionalGroupPointer = tag_for_keyword("FrameContentSequence")
        item.DimensionOrganizationUID = uid
        item.DimensionDescriptionLabel = keyword
        items.append(item)
    dataset.DimensionOrganizationSequence = item_of(DimensionOrganizationUID=uid)
    dataset.DimensionIndexSequence = Sequence(items)


def _frame(series: DerivedSeries, index: int) -> Dataset:
    """What differs from frame to frame: place, counts, source."""
    volume = series.volume
    t, z = divmod(index, volume.geometry.shape[2])
    source, number = source_of(volume, index)
    frame = Dataset()
    content = item_of(StackID="1", InStackPositionNumber=z + 1)
    copy_kept(group(source, number, "FrameContentSequence"), content[0], FRAME_CONTENT)
    content[0].DimensionIndexValues = [1, z + 1]
    if volume.num_frames > 1:
        content[0].TemporalPositionIndex = t + 1
        content[0].DimensionIndexValues = [1, z + 1, t + 1]
    frame.FrameContentSequence = content
    frame.PlanePositionSequence = item_of(
        ImagePositionPatient=geometry_of(volume, z)["ImagePositionPatient"]
    )
    made_of = source_items(series, index)
    if made_of is not None:
        frame.DerivationImageSequence = item_of(
            DerivationDescription=derivation_text(series),
            DerivationCodeSequence=Sequence([code(*series.derivation)]),
            SourceImageSequence=made_of,
        )
    return frame


def _take_over(
    series: DerivedSeries, common: Dataset, frames: list[Dataset], kept: tuple[str, ...]
) -> None:
    """Groups that all source frames have: shared where they are equal, else frame by frame."""
    places = [source_of(series.volume, index) for index in range(len(frames))]
    for keyword in kept:
        found = [groups_of(source, number, keyword) for source, number in places]
        if not all(found):
            continue
        if _are_alike(found):
            setattr(common, keyword, standard(found[0]))
            continue
        for frame, items in zip(frames, found, strict=True):
            setattr(frame, keyword, standard(items))


def _are_alike(found: list[list[Dataset]]) -> bool:
    try:
        return all(item == found[0] for item in found)
    except Exception:  # a damaged value; what can be read of it is copied frame by frame
        return False


def _anatomy(source: Dataset) -> Sequence:
    """The region (CID 4031) that the source names; "Unknown" where it names none."""
    region: Any = _ANATOMY.get(text(source, "BodyPartExamined").upper(), _UNKNOWN)
    return item_of(
        FrameLaterality="U",
        AnatomicRegionSequence=Sequence([code(region[0], "SCT", region[1])]),
    )
