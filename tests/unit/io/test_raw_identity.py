from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from pydicom.dataset import Dataset

from medddpm.errors import ConfigError
from medddpm.io.raw_identity import identified, identity_of
from medddpm.io.raw_scan import RawScan
from medddpm.volume import Geometry, Volume


def header(**sections: str) -> ElementTree.Element:
    inside = "".join(f"<{name}>{content}</{name}>" for name, content in sections.items())
    return ElementTree.fromstring(f"<ismrmrdHeader>{inside}</ismrmrdHeader>")


def raw(identity: dict[str, str], *, placed: bool = True) -> RawScan:
    kspace = np.ones((1, 1, 1, 4, 4, 4), np.complex64)
    size = (8.0, 8.0, 12.0)
    mask = np.ones((1, 1, 4, 4, 4), bool)
    return RawScan(
        kspace, mask, size, (4, 4, 4), size, np.eye(4), placed, case_id="s", identity=identity
    )


def test_values_come_as_dicom_holds_them() -> None:
    found = identity_of(
        header(
            subjectInformation="<patientID>a</patientID><patientBirthdate>1970-02-03Z"
            "</patientBirthdate><patientWeight_kg>70</patientWeight_kg>",
            studyInformation="<studyTime>01:02:03.25+01:00</studyTime>",
            experimentalConditions="<H1resonanceFrequency_Hz>123200000</H1resonanceFrequency_Hz>",
        )
    )
    assert found.pop("PatientBirthDate") == "19700203"
    assert found.pop("StudyTime") == "010203.25"
    assert float(found.pop("ImagingFrequency")) == pytest.approx(123.2)
    assert found == {"PatientID": "a", "PatientWeight": "70.0"}


@pytest.mark.parametrize(
    ("section", "content"),
    [
        ("subjectInformation", "<patientID>a\\b</patientID>"),
        ("subjectInformation", "<patientName>a\nb</patientName>"),
        ("subjectInformation", "<patientGender>unknown</patientGender>"),
        ("subjectInformation", "<patientBirthdate>3.2.1970</patientBirthdate>"),
        ("subjectInformation", "<patientWeight_kg>-1</patientWeight_kg>"),
        ("studyInformation", "<studyInstanceUID>1.02.3</studyInstanceUID>"),
        ("studyInformation", f"<studyInstanceUID>1.{'2' * 64}</studyInstanceUID>"),
        ("measurementInformation", "<patientPosition>standing</patientPosition>"),
        ("sequenceParameters", "<TE>3</TE><TE>5</TE>"),
        ("sequenceParameters", "<TR>nan</TR>"),
    ],
)
def test_what_dicom_cannot_hold_is_left_out(section: str, content: str) -> None:
    assert identity_of(header(**{section: content})) == {}


def test_long_text_is_cut_to_what_its_attribute_holds() -> None:
    found = identity_of(header(studyInformation=f"<studyID>{'x' * 40}</studyID>"))
    assert found == {"StudyID": "x" * 16}


def test_one_file_gives_one_study_whatever_it_is_called() -> None:
    volume = Volume(np.ones((4, 4, 4), np.float32), Geometry((4, 4, 4), np.eye(4)))
    one, two, other = (
        identified(volume, raw({"PatientID": "a"}), digest) for digest in ("x", "x", "y")
    )
    assert isinstance(one.native, Dataset)
    assert one.native.StudyInstanceUID == two.native.StudyInstanceUID
    assert one.native.StudyInstanceUID != other.native.StudyInstanceUID
    assert one.native.MRAcquisitionType == "3D"
    assert float(one.native.SliceThickness) == 3


def test_no_dicom_without_a_patient_and_a_place() -> None:
    volume = Volume(np.ones((4, 4, 4), np.float32), Geometry((4, 4, 4), np.eye(4)))
    with pytest.raises(ConfigError, match=r"names no patient.*--like"):
        identified(volume, raw({"PatientSex": "F"}), "x")
    with pytest.raises(ConfigError, match="does not tell where its image lies"):
        identified(volume, raw({"PatientID": "a"}, placed=False), "x")
