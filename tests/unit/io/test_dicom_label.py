"""The name of a folder of DICOM: it is safe, short and never the patient's."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from medddpm.io import series_label
from medddpm.volume import Geometry, Volume


def volume(**attributes: Any) -> Volume:
    dataset = Dataset()
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "P-00417"
    dataset.PatientBirthDate = "19311231"
    for name, value in attributes.items():
        setattr(dataset, name, value)
    grid = Geometry((2, 2, 2), np.eye(4))
    return Volume(np.zeros((2, 2, 2), np.float32), grid, format="dicom", native=[dataset])


@pytest.mark.parametrize(
    ("number", "description", "label"),
    [
        (3, "T1w_MPRAGE", "003-T1w_MPRAGE"),
        (1201, "t2 tse / fs *ND*", "1201-t2-tse-fs-ND"),
        (7, "", "007"),
        (None, "FLAIR", "FLAIR"),
        (None, "", ""),
        (2, "../../etc/passwd", "002-etc-passwd"),
        (2, "Kopf: Schädel längs", "002-Kopf-Schadel-langs"),
        (2, "磁共振", "002"),
        (2, "x" * 60, "002-" + "x" * 36),
        (2, "T1 Jane", "002"),
        (2, "doe t1", "002"),
        (2, "born 19311231", "002"),
        (2, "head of 00417", "002"),
        (-4, "T1", "T1"),
    ],
)
def test_labels(number: Any, description: str, label: str) -> None:
    assert series_label(volume(SeriesNumber=number, SeriesDescription=description)) == label


@given(description=st.text(max_size=60), number=st.one_of(st.none(), st.integers(-5, 10**9)))
def test_whatever_it_says_the_name_is_safe(description: str, number: int | None) -> None:
    label = series_label(volume(SeriesNumber=number, SeriesDescription=description))
    assert re.fullmatch(r"[A-Za-z0-9_-]{0,40}", label)


def test_values_that_break_the_standard_are_not_quoted() -> None:
    """Pydicom warns of them with the value; a warning is an error in these tests."""
    dataset = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tag, kind, value in (
            ((0x0010, 0x0030), "DA", b"1931-12-31"),
            ((0x0020, 0x0011), "IS", b"ab"),
            ((0x0008, 0x103E), "LO", b"T1"),
        ):
            dataset[tag] = RawDataElement(Tag(tag), kind, len(value), value, 0, False, True)
    assert series_label(replace(volume(), native=[dataset])) == "T1"


def test_only_dicom_has_one(phantom: Volume) -> None:
    assert series_label(phantom) == ""
