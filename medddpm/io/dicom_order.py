"""Which of several images of one place came first."""

from __future__ import annotations

from pydicom.dataset import Dataset

from medddpm.io.dicom_groups import group, items_of
from medddpm.io.dicom_values import clock, number, value_of

_IN_STACK_POSITION, _STACK_ID, _POSITION = 0x00209057, 0x00209056, 0x00200032
_COUNTS = ("TemporalPositionIdentifier", "AcquisitionNumber", "InstanceNumber")


def order_of(dataset: Dataset) -> tuple[float, ...]:
    """What sorts classic images and mosaics: counts, and times where these do not tell.

    The times are TriggerTime (a phase of the heart), of acquisition, and of content.
    """
    counts = [number(dataset, keyword) or 0.0 for keyword in _COUNTS]
    return (
        *counts,
        number(dataset, "TriggerTime") or 0.0,
        clock(dataset, "AcquisitionDate", "AcquisitionDateTime"),
        clock(dataset, "AcquisitionDate", "AcquisitionTime"),
        clock(dataset, "ContentDate", "ContentTime"),
    )


def frame_order(dataset: Dataset, index: int) -> tuple[float, ...]:
    """The same for a frame: temporal index, dimensions that are not about place (C.7.6.17), times.

    Args:
        dataset: An enhanced object.
        index: The frame; its number decides where nothing else does.
    """
    content = group(dataset, index, "FrameContentSequence")
    heart = group(dataset, index, "CardiacSynchronizationSequence")
    return (
        number(content, "TemporalPositionIndex") or 0.0,
        *_dimensions(dataset, content),
        number(heart, "NominalCardiacTriggerDelayTime") or 0.0,
        clock(content, "", "FrameReferenceDateTime"),
        clock(content, "", "FrameAcquisitionDateTime"),
        float(index),
    )


def _dimensions(dataset: Dataset, content: Dataset) -> list[float]:
    pointers = [
        value_of(item, "DimensionIndexPointer")
        for item in items_of(dataset, "DimensionIndexSequence")
    ]
    values = value_of(content, "DimensionIndexValues")
    values = [values] if isinstance(values, int) else list(values or [])
    about_place = (_IN_STACK_POSITION, _STACK_ID, _POSITION)
    others = [float(v) for p, v in zip(pointers, values, strict=False) if p not in about_place]
    return others or [0.0]
