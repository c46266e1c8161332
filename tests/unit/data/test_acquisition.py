from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataset import Dataset

from medddpm.data.acquisition import (
    age_in_years,
    contrast_of_dicom,
    contrast_of_sidecar,
    scanner_label,
    sex_code,
)


def header(**values: Any) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize(
    ("values", "contrast"),
    [
        ({"AcquisitionContrast": "FLUID_ATTENUATED"}, "FLAIR"),
        ({"AcquisitionContrast": "PERFUSION", "SeriesDescription": "T1w"}, ""),
        ({"ScanningSequence": "SE", "EchoTime": 12, "RepetitionTime": 500}, "T1w"),
        ({"ScanningSequence": "SE", "EchoTime": 12, "RepetitionTime": 3000}, "PDw"),
        ({"ScanningSequence": "SE", "EchoTime": 95, "RepetitionTime": 4000}, "T2w"),
        ({"ScanningSequence": "SE", "EchoTime": 50, "RepetitionTime": 1500}, ""),
        ({"ScanningSequence": ["GR", "IR"], "EchoTime": 2.5, "RepetitionTime": 2000,
          "InversionTime": 900}, "T1w"),
        ({"ScanningSequence": ["SE", "IR"], "EchoTime": 394, "RepetitionTime": 6000,
          "InversionTime": 2200}, "FLAIR"),
        ({"ScanningSequence": "GR", "EchoTime": 3, "RepetitionTime": 9}, ""),
        ({"ScanningSequence": ["EP", "GR"], "EchoTime": 30, "RepetitionTime": 2000}, ""),
        ({"SeriesDescription": "T1w MPRAGE"}, ""),
    ],
)  # fmt: skip
def test_contrast_comes_from_tags_or_not_at_all(values: dict[str, Any], contrast: str) -> None:
    assert contrast_of_dicom(header(**values)) == contrast


def test_sidecars_are_in_seconds() -> None:
    flair = {
        "ScanningSequence": "SE_IR",
        "EchoTime": 0.1,
        "RepetitionTime": 9,
        "InversionTime": 2.5,
    }
    assert contrast_of_sidecar(flair) == "FLAIR"
    assert contrast_of_sidecar({}) == ""


@pytest.mark.parametrize(
    ("values", "age"),
    [
        ({"PatientAge": "043Y"}, "43"),
        ({"PatientAge": "006M"}, "0.5"),
        ({"PatientAge": "097Y"}, "90"),
        ({"PatientBirthDate": "19800615", "StudyDate": "20200614"}, "39"),
        ({"PatientBirthDate": "19800615", "StudyDate": "20200615"}, "40"),
        ({"PatientAge": "", "PatientBirthDate": ""}, ""),
    ],
)
def test_age_in_years(values: dict[str, Any], age: str) -> None:
    assert age_in_years(header(**values)) == age


def test_labels() -> None:
    assert scanner_label("SIEMENS", "Skyra", "2.89") == "SIEMENS Skyra 2.89T"
    assert scanner_label(None, "", None) == ""
    assert [sex_code(v) for v in ("m", "Female", "n/a", None)] == ["M", "F", "", ""]
