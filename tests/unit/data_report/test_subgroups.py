from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from medddpm.data.manifest import ScanRow
from medddpm.data_report.groups import VARIABLES
from medddpm.data_report.subgroups import GroupQuality, Score, compare_groups, group_qualities

Value = Callable[[ScanRow], float]


def cohort(rng: np.random.Generator, num: int) -> list[ScanRow]:
    return [
        ScanRow(
            f"s{n}",
            f"p{n}",
            sex=str(rng.choice(["F", "M"])),
            age=str(int(rng.integers(18, 80))),
            site=str(rng.choice(["A", "B", "C"], p=[0.5, 0.3, 0.2])),
            contrast="T1w",
            spacing="1x1x1",
        )
        for n in range(num)
    ]


def qualities(scans: list[ScanRow], value: Value, seed: int = 0) -> dict[str, GroupQuality]:
    groups, _ = group_qualities([Score(scan, value(scan)) for scan in scans], seed=seed)
    return {f"{group.variable} {group.group}": group for group in groups}


def test_a_planted_worse_group_is_flagged_and_it_alone() -> None:
    rng = np.random.default_rng(1)
    scans = cohort(rng, 200)
    found = qualities(scans, lambda s: rng.normal(33, 0.5) - (s.site == "B"))
    assert [name for name, group in found.items() if group.verdict == "worse"] == ["site B"]
    planted = found["site B"]
    assert planted.difference == pytest.approx(-1, abs=0.25)
    assert planted.difference_interval is not None
    low, high = planted.difference_interval
    assert low < -1 < high < 0
    assert planted.subjects + planted.others == 200
    assert found["contrast T1w"].verdict == "no others to compare with"


@pytest.mark.parametrize("law", ["normal", "exponential"])
def test_without_a_difference_a_flag_is_rare(law: str) -> None:
    """2.5 % of the tables at most, so 4 or more of 40 has a chance of 2 %."""
    rng = np.random.default_rng(2)
    flagged = 0
    for seed in range(40):
        scans = cohort(rng, 60)
        found = qualities(scans, lambda _: float(getattr(rng, law)()), seed)
        flagged += any(group.verdict == "worse" for group in found.values())
    assert flagged <= 3


def test_a_group_that_missed_the_tail_is_not_worse() -> None:
    """Half of the rest lies at 0 as the group does; its own spread alone would be nearly 0."""
    scans = [ScanRow(f"s{n}", f"p{n}", sex="F" if n < 6 else "M") for n in range(40)]
    found = qualities(scans, lambda s: 1e-3 * (int(s.scan[1:]) % 3) + 4 * (s.scan > "s30"))
    assert found["sex F"].verdict == "no clear difference"


def test_scans_of_a_subject_count_once() -> None:
    """Ten equal scans each say no more than one; the intervals have the width of one."""
    rng = np.random.default_rng(3)
    scans = cohort(rng, 30)
    values = {scan.subject: rng.normal() for scan in scans}
    many = [ScanRow(f"{s.scan}-{k}", s.subject, sex=s.sex) for s in scans for k in range(10)]
    once = qualities(
        [ScanRow(s.scan, s.subject, sex=s.sex) for s in scans], lambda s: values[s.subject]
    )
    often = qualities(many, lambda s: values[s.subject])
    assert often["sex F"].scans == 10 * once["sex F"].scans
    assert often["sex F"].difference_interval == pytest.approx(once["sex F"].difference_interval)


def test_the_interval_is_that_of_welch_where_that_holds() -> None:
    """One comparison of two large equal groups: close to the textbook's interval."""
    from scipy import stats

    rng = np.random.default_rng(4)
    scans = [ScanRow(f"s{n}", f"p{n}", sex="FM"[n % 2]) for n in range(120)]
    values = {scan.scan: rng.normal() for scan in scans}
    scores = [Score(scan, values[scan.scan]) for scan in scans]
    groups, comparisons = group_qualities(scores, variables=VARIABLES[:1])
    assert comparisons == 2
    f, m = (np.array([values[s.scan] for s in scans if s.sex == sex]) for sex in "FM")
    wanted = stats.ttest_ind(f, m, equal_var=False).confidence_interval(0.975)
    assert groups[0].difference_interval == pytest.approx((wanted.low, wanted.high), abs=0.04)


def test_few_subjects_get_no_verdict() -> None:
    scans = [ScanRow(f"s{n}", f"p{n}", sex="F" if n < 4 else "M") for n in range(40)]
    found = qualities(scans, lambda s: -9.0 if s.sex == "F" else 0.0)
    assert (found["sex F"].verdict, found["sex M"].verdict) == ("too few to tell",) * 2
    assert found["sex F"].interval is None
    assert found["sex F"].difference == pytest.approx(-9)


def test_within_the_same_contrast_a_site_of_harder_scans_is_no_worse() -> None:
    rng = np.random.default_rng(5)
    scans = [
        ScanRow(
            f"s{n}", f"p{n}", site="A" if n < 30 else "B", contrast="FLAIR" if n > 20 else "T1w"
        )
        for n in range(60)
    ]
    found = qualities(scans, lambda s: rng.normal(33, 0.1) - 2 * (s.contrast == "FLAIR"))
    assert found["site B"].verdict == "worse"
    assert found["site B"].same_contrast == pytest.approx(0, abs=0.1)
    assert found["contrast FLAIR"].same_contrast is None


def test_methods_are_apart_the_noisy_scan_is_none_and_gaps_are_set_aside() -> None:
    scans = [ScanRow(f"s{n}", f"p{n}", sex="FM"[n % 2]) for n in range(12)]
    rows = [
        (scan, {"method": method, "sigma_source": "none", "sigma": sigma, "psnr": 30.0 + sigma})
        for scan in scans
        for method in ("identity", "mean", "vae")
        for sigma in (0.03, 0.09)
        if (scan.scan, method, sigma) != ("s0", "mean", 0.09)
    ]
    rows[-1][1]["psnr"] = float("nan")
    found = compare_groups(rows, "psnr")
    assert [method.method for method in found] == ["mean", "vae"]
    assert [(method.scans, method.incomplete) for method in found] == [(11, 1), (11, 1)]
    assert found[0].groups[0].mean == pytest.approx(30.06)


def test_equal_scores_are_no_difference() -> None:
    scans = cohort(np.random.default_rng(6), 50)
    found = qualities(scans, lambda _: 0.1)
    verdicts = {group.verdict for group in found.values()}
    assert verdicts <= {"no clear difference", "too few to tell", "no others to compare with"}


def test_no_score_at_all_gives_no_group() -> None:
    assert group_qualities([]) == ([], 0)
