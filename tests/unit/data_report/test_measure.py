from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medddpm.data.manifest import ScanRow
from medddpm.data_report.groups import age_group, edge_group
from medddpm.data_report.measure import DataReport, describe_data


def scan(name: str, subject: str, split: Any = "train", **facts: str) -> ScanRow:
    known = {"contrast": "T1w", "spacing": "1x1x1", "age": "50", "sex": "F", "site": "A"}
    return ScanRow(name, subject, split=split, **{**known, "scanner": "S", **facts})


def cohort(num: int = 60) -> list[ScanRow]:
    splits = ("train", "train", "val", "test")
    return [scan(f"s{n}", f"p{n}", splits[n % 4], sex="FM"[n // 4 % 2]) for n in range(num)]


def group(report: DataReport, variable: str, name: str) -> Any:
    breakdown = next(b for b in report.breakdowns if b.variable.name == variable)
    return next(g for g in breakdown.groups if g.name == name)


@pytest.mark.parametrize(
    ("age", "wanted"),
    [
        ("0.4", "0 to 1"),
        ("17.9", "12 to 17"),
        ("18", "18 to 39"),
        ("90+", "75 and over"),
        ("", "unknown"),
        ("045Y", "not readable"),
        ("-3", "not readable"),
        ("nan", "not readable"),
        ("999", "not readable"),
    ],
)
def test_ages(age: str, wanted: str) -> None:
    assert age_group(scan("a", "a", age=age)) == wanted


@pytest.mark.parametrize(
    ("spacing", "wanted"),
    [
        ("0.868x0.868x1.0001", "up to 1 mm"),
        ("1x1x1.2", "1 to 2 mm"),
        ("0.5x0.5x4", "2 to 4 mm"),
        ("0.5x0.5x7.5", "over 4 mm"),
        ("", "unknown"),
        ("1x1xthick", "not readable"),
        ("0x0x0", "not readable"),
        ("x", "not readable"),
    ],
)
def test_voxel_edges(spacing: str, wanted: str) -> None:
    assert edge_group(scan("a", "a", spacing=spacing)) == wanted


def test_subjects_and_scans_are_counted_apart() -> None:
    rows = [*cohort(), scan("again", "p0", contrast="FLAIR"), scan("out", "p99", "")]
    report = describe_data(rows)
    assert report.places == ["train", "val", "test", ""]
    assert report.subjects == {"train": 30, "val": 15, "test": 15, "": 1, "all": 61}
    assert report.scans == {"train": 31, "val": 15, "test": 15, "": 1, "all": 62}
    t1w = group(report, "contrast", "T1w")
    assert (t1w.subjects["train"], t1w.scans["train"]) == (30, 30)
    assert group(report, "contrast", "FLAIR").subjects == {"train": 1}


def test_small_groups_are_named_with_the_reason() -> None:
    rows = [replace(row, sex="O") if row.scan == "s0" else row for row in cohort(200)]
    report = describe_data(rows)
    assert group(report, "sex", "O").small == (
        "absent from val, test",
        "1 subject in train",
        "1.0 % of train",
    )
    assert group(report, "sex", "F").small == ()
    unknown = describe_data([*cohort(), scan("x", "x", sex="")])
    assert group(unknown, "sex", "unknown").small == ()
    only_out = describe_data([*cohort(), scan("x", "x", "", site="B")])
    assert group(only_out, "site", "B").small == ("absent from train, val, test",)


def test_the_distance_is_total_variation_and_a_planted_imbalance_is_notable() -> None:
    """Train is all of site A, test half of site B: half of one would have to change."""
    rows = [scan(f"a{n}", f"a{n}") for n in range(40)]
    rows += [scan(f"b{n}", f"b{n}", "test", site="AB"[n % 2]) for n in range(20)]
    report = describe_data(rows)
    distances = {b.variable.name: b.distances for b in report.breakdowns}
    [site], [sex] = distances["site"], distances["sex"]
    assert (site.first, site.second, site.value) == ("train", "test", pytest.approx(0.5))
    assert site.notable
    assert 0 < site.chance < 0.5
    assert (sex.value, sex.notable) == (pytest.approx(0), False)
    assert any(line.startswith("site: train and test are made up") for line in report.remarks)


def test_a_subject_weighs_the_same_whatever_its_number_of_scans() -> None:
    rows = [scan("a", "a"), scan("b", "b", sex="M")]
    rows += [scan(f"c{n}", "c", "val") for n in range(9)] + [scan("d", "d", "val", sex="M")]
    sex = describe_data(rows).breakdowns[0]
    assert sex.distances[0].value == pytest.approx(0)


def test_random_splits_are_rarely_notable() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(8):
        where = rng.choice(["train", "val", "test"], size=80, p=[0.6, 0.2, 0.2])
        rows = [
            scan(f"s{n}", f"p{n}", split, sex=str(rng.choice(["F", "M"])), site=str(rng.choice(4)))
            for n, split in enumerate(where)
        ]
        report = describe_data(rows, seed=seed)
        hits += any(d.notable for b in report.breakdowns for d in b.distances)
    assert hits <= 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"subject": "p0"}, "1 subject in more than one split: p0"),
        ({"checksum": "same"}, "1 image in more than one split: s0"),
        ({"consent": "withdrawn"}, "Scans in a split with consent 'withdrawn': 1."),
    ],
)
def test_problems(change: dict[str, str], words: str) -> None:
    rows = [replace(row, checksum="same" if row.scan == "s0" else row.scan) for row in cohort()]
    assert describe_data(rows).problems == []
    new = replace(scan("new", "new", "val"), **change)  # type: ignore[arg-type]
    assert words in describe_data([*rows, new]).problems[0]


def test_gaps_and_contradictions_are_said() -> None:
    rows = [replace(row, scanner="", consent="yes") for row in cohort()]
    rows += [scan("twin", "p0", sex="M")]
    remarks = describe_data(rows).remarks
    assert "Scans without scanner: 97 % in train, 100 % in val, 100 % in test." in remarks
    assert "Scans in a split without a consent state: 1." in remarks
    assert "Scans of one subject disagree on its sex: p0." in remarks


def test_what_was_left_out_is_counted_by_code_with_its_usual_reason() -> None:
    ledger = [
        {"code": "corrupt", "reason": reason} for reason in ("ends early", "ends early", "bad gzip")
    ]
    rows = [*cohort(), scan("no", "no", "", consent="no", flags="no-consent;motion")]
    report = describe_data(rows, [*ledger, {"code": "no-pixels", "reason": "none"}])
    assert report.left_out == {"corrupt": (3, "ends early"), "no-pixels": (1, "none")}
    assert report.flags == {"motion": {"": 1}, "no-consent": {"": 1}}
    assert report.consent["no"] == {"": 1}
    assert report.missing["session"] == {"train": 30, "val": 15, "test": 15, "": 1}


@pytest.mark.parametrize(("split", "words"), [("train", "Only train holds"), ("", "No scan is in")])
def test_one_split_or_none(split: str, words: str) -> None:
    report = describe_data([replace(row, split=split) for row in cohort(8)])  # type: ignore[arg-type]
    assert not any(b.distances for b in report.breakdowns)
    assert report.remarks[0].startswith(words)
