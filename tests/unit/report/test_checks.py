"""The guard's section of a report."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from medddpm.guard.checks import CHECKS, judge
from medddpm.guard.residual import Finding
from medddpm.io.frame_facts import GuardFacts
from medddpm.io.outputs import plain
from medddpm.report.checks import ADVICE, LABELS, check_rows, check_values


def check(name: str = "peak", **more: Any) -> dict[str, Any]:
    told = {"name": name, "value": 1.2, "low": None, "high": 2.5, "passed": True, "words": "ok"}
    return {**told, "false_alarms": None, "where": None, **more}


def rows_of(*checks: dict[str, Any]) -> list[Any]:
    return check_rows(guard_of({"passed": True, "messages": [], "checks": checks}))


def guard_of(told: dict[str, Any]) -> GuardFacts:
    """What is read of it from JSON."""
    return GuardFacts.model_validate_json(json.dumps(plain(told)))


def test_what_the_guard_says_is_what_the_report_shows() -> None:
    findings = {
        "residual_ratio": Finding(2.0, (1, 2, 3)),
        "whiteness": Finding(0.01, None),
        "strangeness": Finding(4.0, None),
    }
    ranges = {"residual_ratio": (0.3, 1.35), "whiteness": (None, 0.3)}
    report = judge(findings, ranges, {"residual_ratio": 0.02}, np.diag([2, 2, 2, 1.0]))
    guard = guard_of(asdict(report))
    first, white, strange = check_rows(guard)
    assert (first.allowed, first.passed, first.place) == ("0.30 to 1.35", False, "2.0, 4.0, 6.0 mm")
    assert "anatomy may be lost" in first.words
    assert (white.passed, white.words, white.name) == (True, "", LABELS["whiteness"])
    assert (strange.passed, strange.allowed) == (None, "")
    assert check_values(guard) == {"residual_ratio": 2.0, "whiteness": 0.01, "strangeness": 4.0}


def test_a_list_of_checks_is_shown_and_those_that_failed_come_first() -> None:
    bad = check("lesion_loss", passed=False, value=3.1, false_alarms=0.0123, where=[10, -4.25, 33])
    peak, lost = rows_of(check(), bad)[::-1]
    assert (lost.name, lost.value, lost.allowed) == ("Lesion loss", "3.10", "at most 2.50")
    assert (lost.passed, lost.false_alarms) == (False, "1.2 %")
    assert lost.where == (10, -4.25, 33)
    assert lost.place == "10.0, -4.2, 33.0 mm"
    assert peak.name == LABELS["peak"]
    assert (peak.passed, peak.words, peak.false_alarms, peak.where) == (True, "ok", "", None)
    [named] = rows_of(check(words=CHECKS["peak"].label, value=0.0234, high=None))
    assert (named.words, named.value) == ("", "0.023")  # its name is not said twice
    assert named.passed is None  # nobody knows what is usual


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0.3, 1.35, "0.30 to 1.35"), (None, 2, "at most 2.00"), (1e-6, None, "at least 1e-06"),
     (None, None, ""), (float("nan"), float("inf"), "")],
)  # fmt: skip
def test_a_range_may_be_open(low: float | None, high: float | None, text: str) -> None:
    assert rows_of(check(low=low, high=high))[0].allowed == text


@pytest.mark.parametrize("where", [None, [1, 2, None], [0, 0, float("nan")]])
def test_a_place_that_is_none_is_left_out(where: Any) -> None:
    [row] = rows_of(check(where=where, value=None))
    assert row.where is None
    assert row.place == row.false_alarms == ""
    assert row.value == "n/a"


def test_a_check_without_a_number_is_shown_as_one_that_failed() -> None:
    report = judge({"peak": Finding(float("nan"))}, {"peak": (None, 2.5)})
    (row,) = check_rows(guard_of(asdict(report)))
    assert (row.value, row.allowed, row.passed) == ("n/a", "at most 2.50", False)
    (bare,) = rows_of(check(value=None, high=None, passed=False))
    assert (bare.value, bare.allowed, bare.passed) == ("n/a", "", False)


def test_a_value_reads_unlike_the_bound_that_it_breaks() -> None:
    (row,) = rows_of(check(value=-0.0604, high=-0.0598, passed=False))
    assert (row.value, row.allowed) == ("-0.0604", "at most -0.0598")


def test_every_check_has_words_of_the_field_and_a_line_on_what_to_do() -> None:
    assert LABELS.keys() == ADVICE.keys() == CHECKS.keys()
    bad, good = rows_of(check(passed=False, words="w"), check("anatomy"))
    assert bad.advice == ADVICE["peak"]
    assert good.advice == ""
