"""Each kind of source: what it gives, and each thing that can be wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from medddpm.data.bids import find_bids
from medddpm.data.dicom_tree import find_dicom
from medddpm.data.private import Pseudonyms
from medddpm.data.scan_table import find_listed
from medddpm.data.sources import finish_source
from medddpm.errors import ConfigError

Make = Callable[..., Path]
KEY = Pseudonyms(b"k" * 32)
PEOPLE = "participant_id\tage\tgender\tsite\nsub-01\t34\tF\tA\nsub-02\tn/a\tmale\tB\n"


def test_bids_gives_names_people_and_sidecars(make_bids: Make, tmp_path: Path) -> None:
    root = make_bids(tmp_path / "b", ["sub-01", "sub-02"], participants=PEOPLE)
    (root / "T1w.json").write_text(
        json.dumps({"Manufacturer": "Philips", "MagneticFieldStrength": 3})
    )
    (root / "sub-02" / "anat" / "sub-02_T1w.json").write_text(
        json.dumps({"Manufacturer": "GE", "ScanningSequence": "SE", "EchoTime": 0.09,
                    "RepetitionTime": 5})
    )  # fmt: skip
    first, second = find_bids(root).scans
    assert (first.row.subject, first.row.sex, first.row.age, first.row.site) == (
        "sub-01", "F", "34", "A",
    )  # fmt: skip
    assert (second.row.sex, second.row.age) == ("M", "")
    assert first.row.scanner == "Philips 3T"
    assert second.row.scanner == "GE 3T"
    assert first.row.contrast == "T1w"
    assert first.row.licence == "CC0"
    assert second.told_contrast == "T2w"


def test_bids_names_and_people_may_contradict(make_bids: Make, tmp_path: Path) -> None:
    root = make_bids(tmp_path / "b", ["sub-01", "sub-09"], participants=PEOPLE)
    anat = root / "sub-01" / "anat"
    (anat / "sub-01_T1w.nii.gz").rename(anat / "sub-02_T1w.nii.gz")
    (anat / "sub-01.nii.gz").write_bytes(b"")
    source = find_bids(root)
    assert [f.row.subject for f in source.scans] == ["sub-09"]
    assert {(r.scan, r.code) for r in source.left_out} == {
        ("sub-02_T1w", "contradictory"),
        ("sub-01", "other-suffix"),
    }
    assert any("1 subjects of b are not in its participants.tsv" in n for n in source.notes)


def test_bids_leaves_out_what_is_no_anatomy(make_bids: Make, tmp_path: Path) -> None:
    root = make_bids(tmp_path / "b", ["sub-01"], suffixes=("T1w", "bold", "part-phase_T2w"))
    source = find_bids(root)
    assert [f.row.scan for f in source.scans] == ["sub-01_T1w"]
    assert {(r.scan, r.code) for r in source.left_out} == {
        ("sub-01_bold", "other-suffix"),
        ("sub-01_part-phase_T2w", "not-magnitude"),
    }
    assert any("participants.tsv" in note for note in source.notes)


@pytest.mark.parametrize(
    ("subjects", "people", "description", "said"),
    [
        ((), None, {}, "is it empty"),
        (("sub-01",), "age\n3\n", {}, "no column participant_id"),
        (
            ("sub-01",),
            "participant_id\tsex\nsub-01\tF\nsub-01\tM\n",
            {},
            "sub-01 twice with different sex",
        ),
        (("sub-01",), None, {"DatasetType": "derivative"}, "not a raw one"),
    ],
)
def test_bids_that_cannot_be_used(
    make_bids: Make, tmp_path: Path, subjects: Any, people: Any, description: Any, said: str
) -> None:
    root = make_bids(tmp_path / "b", subjects, participants=people, description=description)
    with pytest.raises(ConfigError, match=said):
        find_bids(root)


def test_subjects_of_two_sites_are_kept_apart(make_bids: Make, tmp_path: Path) -> None:
    make_bids(tmp_path / "all" / "north", ["sub-01", "sub-02"])
    make_bids(tmp_path / "all" / "south", ["sub-01"])
    source = finish_source(find_bids(tmp_path / "all"))
    assert {f.row.subject for f in source.scans} == {"north_sub-01", "south_sub-01", "sub-02"}
    assert len({f.row.scan for f in source.scans}) == 3
    kin = {f.kin for f in source.scans if f.row.subject != "sub-02"}
    assert len(kin) == 1
    assert "" not in kin
    assert any("more than one site" in note for note in source.notes)


def test_a_table_says_whose_scan_it_is(
    head: Any, save_nifti: Any, write_csv: Any, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        save_nifti(tmp_path / f"{name}.nii.gz", head((12, 12, 12)), np.eye(4))
    table = write_csv(
        tmp_path / "t.csv",
        ("file", "subject", "sex", "contrast"),
        ("a.nii.gz", "P1", "female", "T2w"),
        ("gone.nii.gz", "P2", "", ""),
        ("b.nii.gz", "P3", "?", ""),
    )
    source = find_listed(tmp_path, table)
    assert [(f.row.scan, f.row.subject, f.row.sex, f.row.contrast) for f in source.scans] == [
        ("a", "P1", "F", "T2w"),
        ("b", "P3", "", ""),
    ]
    assert {(r.scan, r.code) for r in source.left_out} == {
        ("gone", "missing"),
        ("c", "not-in-table"),
    }


def test_files_of_one_name_are_told_apart_by_their_folders(
    head: Any, save_nifti: Any, write_csv: Any, tmp_path: Path
) -> None:
    for name in ("P 1", "P2"):
        (tmp_path / name).mkdir()
        save_nifti(tmp_path / name / "t1.nii", head((12, 12, 12)), np.eye(4))
    table = write_csv(
        tmp_path / "t.csv", ("file", "subject"), ("P 1/t1.nii", "1"), ("P2/t1.nii", "2")
    )
    source = finish_source(find_listed(tmp_path, table))
    assert [f.row.scan for f in source.scans] == ["P-1_t1", "P2_t1"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("file",), ("a.nii",)], "no column subject"),
        ([("file", "subject"), ("a.nii", "")], "line 2: no subject"),
        ([("file", "subject"), ("a.nii", "1"), ("a.nii", "2")], "line 3: a.nii is listed twice"),
    ],
)
def test_a_table_that_cannot_be_used(
    rows: Any, said: str, head: Any, save_nifti: Any, write_csv: Any, tmp_path: Path
) -> None:
    save_nifti(tmp_path / "a.nii", head((12, 12, 12)), np.eye(4))
    with pytest.raises(ConfigError, match=said):
        find_listed(tmp_path, write_csv(tmp_path / "t.csv", *rows))


def edit(folder: Path, **values: Any) -> None:
    for path in folder.glob("*.dcm"):
        dataset = dcmread(path)
        for name, value in values.items():
            setattr(dataset, name, value)
        dataset.save_as(path)


def test_a_dicom_tree_of_many_patients_in_any_layout(
    head: Any, dicom_series: Any, tmp_path: Path
) -> None:
    data = head((12, 14, 6))
    for number, (folder, patient) in enumerate(
        (("x/y", "P-1"), ("x", "P-2"), ("z", "P-1")), start=1
    ):
        edit(
            dicom_series(tmp_path / folder, data, number=number),
            PatientID=patient, PatientName=patient, InstitutionName="General Hospital",
            ScanningSequence=["GR", "IR"], InversionTime=900,
        )  # fmt: skip
    edit(dicom_series(tmp_path / "ct", data, modality="CT"), PatientID="P-3")
    source = find_dicom(tmp_path, KEY)
    assert {f.row.subject for f in source.scans} == {KEY.subject("P-1"), KEY.subject("P-2")}
    assert [len(f.files) for f in source.scans] == [6, 6, 6]
    assert {r.code for r in source.left_out} == {"not-mr"}
    row = source.scans[0].row
    assert row.contrast == "T1w"
    assert row.sex == "O"
    assert row.age == "50"
    text = repr([f.row for f in source.scans]) + repr(source.left_out) + repr(source.notes)
    for secret in ("P-1", "P-2", "Private", "General", str(tmp_path)):
        assert secret not in text


def test_the_same_person_under_two_ids_is_known_by_name_and_birth(
    head: Any, dicom_series: Any, tmp_path: Path
) -> None:
    for name in ("A", "B"):
        edit(dicom_series(tmp_path / name, head((12, 14, 6))), PatientID=name)
    first, second = find_dicom(tmp_path, KEY).scans
    assert first.row.subject != second.row.subject
    assert first.kin == second.kin != ""


def test_patients_without_an_id_are_told_by_their_studies(
    head: Any, dicom_series: Any, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        edit(dicom_series(tmp_path / name, head((12, 14, 6))), PatientID="", PatientName="")
    source = find_dicom(tmp_path, KEY)
    assert len({f.row.subject for f in source.scans}) == 2
    assert all(f.row.flags == "subject-unknown" for f in source.scans)
    assert "2 series name no patient" in source.notes[0]


def test_a_damaged_file_takes_its_neighbours_out_and_is_not_named(
    head: Any, dicom_series: Any, tmp_path: Path
) -> None:
    dicom_series(tmp_path / "good", head((12, 14, 6)))
    bad = dicom_series(tmp_path / "DOE JANE", head((12, 14, 6)))
    (bad / "Doe-000.dcm").write_bytes(b"\0" * 200)
    source = find_dicom(tmp_path, KEY)
    assert len(source.scans) == 1
    assert [r.code for r in source.left_out] == ["unreadable", "unreadable"]
    assert "doe" not in repr(source.left_out).lower()


def test_burned_in_text_and_derived_images_are_flagged(
    head: Any, dicom_series: Any, tmp_path: Path
) -> None:
    edit(
        dicom_series(tmp_path, head((12, 14, 6))), BurnedInAnnotation="YES",
        ImageType=["DERIVED", "PRIMARY", "M"],
    )  # fmt: skip
    (found,) = find_dicom(tmp_path, KEY).scans
    assert found.row.flags == "burned-in;derived"


def test_a_folder_of_something_else_says_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("nothing here")
    with pytest.raises(ConfigError, match="--table"):
        find_dicom(tmp_path, KEY)
