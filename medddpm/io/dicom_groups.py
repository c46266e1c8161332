"""Functional groups of enhanced objects (PS3.3 C.7.6.16)."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from medddpm.io.dicom_values import value_of


def group(dataset: Dataset, index: int, name: str) -> Dataset:
    """One functional group of a frame: its own, the shared one, or the root's.

    Returns:
        The first item of the sequence `name`; an empty data set if there is none.
    """
    return next(iter(groups_of(dataset, index, name)), Dataset())


def groups_of(dataset: Dataset, index: int, name: str) -> list[Dataset]:
    """All items of the sequence `name` that hold for a frame; most sequences have one."""
    frames = items_of(dataset, "PerFrameFunctionalGroupsSequence")
    shared = items_of(dataset, "SharedFunctionalGroupsSequence")
    for holder in [*frames[index : index + 1], *shared[:1], dataset]:
        items = items_of(holder, name)
        if items:
            return [Dataset(item) for item in items]
    return []


def items_of(dataset: Dataset, name: str) -> Sequence[Dataset]:
    """The items of a sequence; none if it is absent, empty or no sequence."""
    value = value_of(dataset, name)
    return value if isinstance(value, DicomSequence) else ()
