"""Consent, pseudonyms and de-identification."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from medddpm.data import deidentify
from medddpm.data.consent import (
    consent_of,
    for_generators,
    read_consent,
    synthetic_counts,
    why_not,
)
from medddpm.data.manifest import ScanRow
from medddpm.data.private import Pseudonyms, only_one, pseudonyms_of
from medddpm.data.sources import Found
from medddpm.errors import ConfigError, MissingExtraError, OutputError

HEADER = ("subject", "state", "scope", "date")
KEY = Pseudonyms(b"k" * 32)


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        ("sub-01", ""),
        ("sub-02", "scope"),
        ("sub-03", "does not say yes"),
        ("04", ""),
        ("issuer\\05", ""),
        ("P-6", ""),
        ("sub-07", "not in the consent table"),
    ],
)
def test_consent_needs_a_yes_and_a_scope_that_covers_training(
    write_csv: Any, tmp_path: Path, subject: str, reason: str
) -> None:
    table = write_csv(
        tmp_path / "c.csv",
        HEADER,
        ("sub-01", "Yes", "research; training", "2020-01-01"),
        ("02", "yes", "care", "2020-01-01"),
        ("03", "withdrawn", "all", "2021-01-01"),
        ("04", "yes", "all", ""),
        ("05", "yes", "all", ""),
        (KEY.subject("P-6"), "yes", "all", ""),
    )
    found = Found(ScanRow("scan", "subject"), (), subject)
    said = why_not(consent_of(found, read_consent(table), KEY))
    assert (reason in said) if reason else said == ""


@pytest.mark.parametrize(
    ("scope", "trains", "draws"),
    [
        ("training", True, False),
        ("training;synthetic", True, True),
        ("all", True, True),
        ("synthetic", False, True),
        ("care", False, False),
    ],
)
def test_synthetic_scans_need_a_scope_of_their_own(
    write_csv: Any, tmp_path: Path, scope: str, trains: bool, draws: bool
) -> None:
    table = write_csv(tmp_path / "c.csv", HEADER, ("01", "yes", scope, ""))
    consent = read_consent(table)["01"]
    assert (consent.covers_training, consent.covers_synthetic) == (trains, draws)
    assert (why_not(consent) == "") == trains


def test_a_generator_trains_on_who_allowed_it_or_was_never_asked() -> None:
    rows = [
        ScanRow("a", "1", consent="yes", synthetic="yes"),
        ScanRow("b", "2", consent="yes", synthetic="no"),
        ScanRow("c", "3"),
        ScanRow("d", "4", consent="withdrawn", synthetic="yes"),
    ]
    assert [row.scan for row in for_generators(rows)] == ["a", "c"]
    assert synthetic_counts(rows) == {"no": 1, "not asked": 1, "yes": 2}


def test_consent_that_contradicts_itself_is_refused_without_the_id(
    write_csv: Any, tmp_path: Path
) -> None:
    table = write_csv(
        tmp_path / "c.csv", HEADER, ("P-77", "yes", "all", ""), ("P-77", "no", "all", "")
    )
    with pytest.raises(ConfigError, match="lines 2 and 3") as caught:
        read_consent(table)
    assert "P-77" not in str(caught.value)


def test_a_consent_table_without_its_columns(write_csv: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no column scope, date"):
        read_consent(write_csv(tmp_path / "c.csv", ("subject", "state")))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_consent(tmp_path / "missing.csv")


def test_one_key_gives_one_pseudonym_and_lies_where_only_its_owner_reads(tmp_path: Path) -> None:
    first = pseudonyms_of(tmp_path / "a")
    again = pseudonyms_of(tmp_path / "a")
    shared = pseudonyms_of(tmp_path / "b", tmp_path / "a" / "private" / "key")
    other = pseudonyms_of(tmp_path / "c")
    assert first.subject("P-1") == again.subject(" P-1 ") == shared.subject("P-1")
    assert other.subject("P-1") != first.subject("P-1")
    for path, mode in (("a/private", 0o700), ("a/private/key", 0o600)):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == mode
    with pytest.raises(ConfigError, match="another key"):
        pseudonyms_of(tmp_path / "c", tmp_path / "a" / "private" / "key")


@pytest.mark.parametrize("text", ["", "no key", "abcd"])
def test_a_bad_key_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(ConfigError, match="64 hexadecimal"):
        pseudonyms_of(tmp_path / "out", tmp_path / "key")


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(OutputError, match="another"), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass


def test_nothing_is_deidentified_without_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deidentify, "EDITION", "1999z")
    deidentify._table.cache_clear()
    try:
        with pytest.raises(MissingExtraError, match="deidentify"):
            deidentify.action_for(0x00100010)
    finally:
        deidentify._table.cache_clear()


@pytest.fixture
def table() -> None:
    pytest.importorskip("dicomanonymizer", reason="needs the extra deidentify")


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("tag", "action"),
    [
        (0x00100010, "Z"),  # Patient's Name
        (0x00100020, "D"),  # Patient ID
        (0x0008103E, "X"),  # Series Description
        (0x00080018, "U"),  # SOP Instance UID
        (0x00280010, ""),  # Rows
        (0x00180081, ""),  # Echo Time
        (0x60003000, "X"),  # Overlay Data, a repeating group
        (0x00291010, "X"),  # private
    ],
)
def test_actions_are_those_of_ps3_15(tag: int, action: str) -> None:
    assert deidentify.action_for(tag) == action


@pytest.mark.usefixtures("table")
def test_copies_hold_nobody_and_keep_the_image(
    head: Any, dicom_series: Any, tmp_path: Path
) -> None:
    files = sorted(dicom_series(tmp_path / "in", head((12, 14, 6))).glob("*.dcm"))
    for path in files:
        dataset = dcmread(path)
        dataset.InstitutionName, dataset.PatientAge = "General Hospital", "050Y"
        dataset.private_block(0x0029, "VENDOR", create=True).add_new(0x10, "LO", "Jane Doe")
        item = Dataset()
        item.PatientName, item.ReferencedSOPInstanceUID = "Nested^Name", dataset.SOPInstanceUID
        dataset.ReferencedImageSequence = [item]
        dataset.save_as(path)
    found = deidentify.check_headers(files)
    assert found[("PatientName", "Z")] == 6
    assert found[("private", "X")] == 6
    deidentify.write_deidentified(files, tmp_path / "out" / "s", KEY)
    copies = sorted((tmp_path / "out" / "s").iterdir())
    assert len(copies) == 6
    for before, after in zip(files, copies, strict=True):
        raw = after.read_bytes()
        for secret in (b"Private", b"P-0001", b"Nested", b"Jane", b"General", b"20200101"):
            assert secret not in raw
        old, new = dcmread(before), dcmread(after)
        assert new.pixel_array.tolist() == old.pixel_array.tolist()
        assert new.PatientIdentityRemoved == "YES"
        assert new.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert new.PatientID == KEY.subject("P-0001")
        assert new.SOPInstanceUID == new.file_meta.MediaStorageSOPInstanceUID
        assert new.SOPInstanceUID == new.ReferencedImageSequence[0].ReferencedSOPInstanceUID
        assert new.SeriesInstanceUID == KEY.uid(old.SeriesInstanceUID)
        assert new.EchoTime == old.EchoTime
        assert new.InstitutionName == "ANONYMOUS"
    left = {name for name, _ in deidentify.check_headers(copies)}
    assert left <= {"PatientName", "PatientID", "SOPInstanceUID", "SeriesInstanceUID",
                    "StudyInstanceUID", "FrameOfReferenceUID", "ReferencedSOPInstanceUID",
                    "DeidentificationMethod", "InstitutionName"}  # fmt: skip
    from medddpm.io import read_volume

    assert read_volume(tmp_path / "out" / "s").data.shape == (12, 14, 6)
