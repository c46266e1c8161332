"""Raw data that name a patient become a derived DICOM series of that patient and study."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from medddpm.io import read_volume

h5py = pytest.importorskip("h5py", reason="needs the extra raw")

PATIENT = "<patientName>Adler^Ödön</patientName><patientID>4711</patientID>"
SUBJECT = (
    f"<subjectInformation>{PATIENT}<patientBirthdate>1970-02-03</patientBirthdate>"
    "<patientGender>F</patientGender><patientWeight_kg>63.5</patientWeight_kg>"
    "</subjectInformation><studyInformation><studyDate>2020-04-05</studyDate>"
    "<studyTime>12:34:56.5</studyTime><studyInstanceUID>1.2.826.0.1.3680043.8.498.7"
    "</studyInstanceUID></studyInformation><measurementInformation>"
    "<patientPosition>HFS</patientPosition><seriesDescription>t1 head</seriesDescription>"
    "<frameOfReferenceUID>not a uid</frameOfReferenceUID></measurementInformation>"
    "<sequenceParameters><TR>2000</TR><TE>3</TE><TE>5</TE></sequenceParameters>"
)


@pytest.fixture
def raw(clean_nifti: Path, tmp_path: Path, cli: Callable[..., Any]) -> Path:
    """Raw data of the phantom, four coils, whose header names nobody."""
    path = tmp_path / "raw.h5"
    done = cli("simulate-raw", str(clean_nifti), str(path), "--sigma", "0.02", "--coils", "4")
    assert done.exit_code == 0, done.stderr
    return path


def with_subject(path: Path, subject: str = SUBJECT) -> Path:
    """The file with more elements in its header."""
    with h5py.File(path, "r+") as file:
        group = file["dataset"]
        text = group["xml"][0].decode()
        head, tail = text.split("<acquisitionSystemInformation>", 1)
        new = f"{head}{subject}<acquisitionSystemInformation>{tail}".encode()
        del group["xml"]
        group.create_dataset("xml", data=np.array([new], dtype=object), dtype=h5py.string_dtype())
    return path


def reconstructed(cli: Callable[..., Any], raw: Path, out: Path, *more: str) -> Any:
    return cli(
        *("reconstruct", str(raw), f"{out}", "--method", "cg-sense"),
        *("--format", "dicom", *more),
    )


def test_the_series_lies_in_its_study_and_place_and_is_done_again(
    raw: Path, clean_nifti: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    done = reconstructed(cli, with_subject(raw), out)
    assert done.exit_code == 0, done.stderr
    folder = out / "raw_desc-reconstructed"
    first = dcmread(folder / "00001.dcm")
    assert str(first.PatientName) == "Adler^Ödön"
    assert (first.PatientID, first.PatientBirthDate, first.PatientSex) == ("4711", "19700203", "F")
    assert first.StudyInstanceUID == "1.2.826.0.1.3680043.8.498.7"
    assert (first.StudyDate, first.StudyTime) == ("20200405", "123456.5")
    assert first.FrameOfReferenceUID.is_valid
    assert first.ImageType[:2] == ["DERIVED", "PRIMARY"]
    assert first.SeriesDescription == "t1 head reconstructed"
    assert first.DerivationCodeSequence[0].CodeValue == "RECONSTRUCTED"
    assert "reconstructed from k-space by cg-sense; no model" in first.DerivationDescription
    assert first.RepetitionTime == 2000
    assert first.EchoTime is None  # the header tells two
    plain = tmp_path / "plain.nii.gz"
    assert cli("reconstruct", str(raw), str(plain), "--method", "cg-sense").exit_code == 0
    image, expected = read_volume(folder), read_volume(plain)
    np.testing.assert_allclose(image.affine, expected.affine, atol=1e-4)
    np.testing.assert_allclose(image.data, expected.data, atol=expected.data.max() / 32767)
    text = (out / "raw_desc-reconstructed.json").read_text()
    assert "Adler" not in text
    assert "4711" not in json.dumps(json.loads(text)["input"])
    moved = raw.rename(tmp_path / "renamed.h5")
    again = cli("replay", str(out / "raw_desc-reconstructed.json"), "--source", str(moved))
    assert again.exit_code == 0, again.stderr


def test_two_images_of_one_file_share_study_and_frame_of_reference(
    raw: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    with_subject(raw, f"<subjectInformation>{PATIENT}</subjectInformation>")
    for name, weight in (("a", "0.01"), ("b", "0.1")):
        done = reconstructed(cli, raw, tmp_path / name, "--set", f"reconstruct.weight={weight}")
        assert done.exit_code == 0, done.stderr
    one, two = (
        dcmread(tmp_path / name / "raw_desc-reconstructed" / "00001.dcm") for name in ("a", "b")
    )
    assert one.StudyInstanceUID == two.StudyInstanceUID
    assert one.FrameOfReferenceUID == two.FrameOfReferenceUID
    assert one.SeriesInstanceUID != two.SeriesInstanceUID
    assert one.SOPInstanceUID != two.SOPInstanceUID


def test_raw_data_without_a_patient_is_refused_before_the_work(
    raw: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    done = reconstructed(cli, raw, tmp_path / "out")
    assert done.exit_code == 2
    assert "names no patient" in done.stderr
    assert "--like SERIES" in done.stderr
    assert not (tmp_path / "out").exists()


def test_maps_do_not_go_into_dicom(raw: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    done = reconstructed(cli, with_subject(raw), tmp_path / "out", "--phase")
    assert done.exit_code == 2
    assert "as NIfTI alone" in done.stderr
    page = reconstructed(cli, raw, tmp_path / "out", "--set", "dicom.report=pdf")
    assert page.exit_code == 2
    assert "--report" in page.stderr
