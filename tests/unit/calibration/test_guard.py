"""What the guard expects: false alarms are what they say, and what is worse than good is seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medddpm.calibration.faults import NONE
from medddpm.calibration.guard import GuardFit, Trial, detection, fit_guard, known_of
from medddpm.errors import ConfigError

SIGMAS = (0.03, 0.05, 0.1)
RANGES = {"noise_level": 0.05, "finest_edge": 1.0, "coarsest_edge": 3.0}


def trial(
    subject: str, sigma: float, peak: float, white: float, fault: str = NONE, kind: str = "a"
) -> Trial:
    findings = {"peak": peak, "whiteness": white, **RANGES}
    place = 5.0 if kind == "b" else 0.0
    features = (place, 0.1 * sigma)
    return Trial(f"{subject} scan", subject, kind, sigma, fault, sigma, findings, features)


def good_trials(count: int, seed: int = 0) -> list[Trial]:
    """Peaks grow with sigma and differ between two kinds; both numbers differ by subject."""
    rng = np.random.default_rng(seed)
    trials = []
    for number in range(count):
        own, kind = rng.normal(0, 0.02, 2), "ab"[number % 2]
        for sigma in SIGMAS:
            peak, white = 0.2 + sigma + (kind == "b") + own[0], -0.1 + own[1]
            trials.append(trial(f"s{number}", sigma, peak, white, kind=kind))
    return trials


def flags(t: Trial, fit: GuardFit) -> set[str]:
    assert t.features is not None
    ranges = fit.usual.of(np.asarray(t.features, np.float32), t.level)
    return {
        name
        for name, value in t.findings.items()
        if (ranges[name][1] is not None and value > ranges[name][1])
        or (ranges[name][0] is not None and value < ranges[name][0])
    }


def test_at_most_one_in_twenty_good_ones_is_flagged_together() -> None:
    fit = fit_guard(good_trials(40))
    assert 0 < fit.any_flag <= 0.05
    assert all(rate <= fit.any_flag for rate in fit.false_alarms.values())
    rate = np.mean([bool(flags(t, fit)) for t in good_trials(200, seed=1)])
    assert rate < 0.12


def test_what_is_usual_depends_on_the_kind_and_the_noise() -> None:
    fit = fit_guard(good_trials(24))
    assert flags(trial("x", 0.05, 1.25, -0.1, kind="b"), fit) == set()
    assert flags(trial("x", 0.05, 1.25, -0.1, kind="a"), fit) == {"peak"}
    assert flags(trial("x", 0.05, 0.1, -0.1), fit) == set()  # only a large peak is bad
    assert flags(trial("x", 0.05, 0.25, 0.3), fit) == {"whiteness"}
    assert flags(trial("x", 0.05, 0.25, -0.5), fit) == {"whiteness"}
    loud = replace(trial("x", 0.05, 0.25, -0.1), findings={**RANGES, "noise_level": 0.06})
    assert flags(loud, fit) == {"noise_level"}


def test_faults_are_counted_against_other_subjects() -> None:
    good = good_trials(20)
    bad = [trial(f"s{2 * n}", 0.05, 1.0 if n < 3 else 0.25, -0.1, "paste") for n in range(4)]
    fit = fit_guard(good + bad)
    rows = {(r["fault"], r["sigma"]): r for r in detection(good + bad, fit)}
    paste = rows["paste", 0.05]
    assert (paste["trials"], paste["flagged"]) == (4, 0.75)
    assert (paste["best"], paste["best_rate"]) == ("peak", 0.75)
    assert paste["flags"] == "peak"
    assert rows[NONE, 0.05]["flagged"] <= 0.1


def test_few_subjects_are_not_flagged_by_rounding() -> None:
    """With fewer than twenty none may be flagged, not even the one that sets the limit."""
    good = good_trials(8)
    fit = fit_guard(good)
    assert fit.any_flag == 0
    assert [row["flagged"] for row in detection(good, fit)] == [0, 0, 0]


def test_the_only_scan_of_its_kind_does_not_say_what_is_strange() -> None:
    good = good_trials(20)
    alone = replace(trial("alone", 0.05, 0.25, -0.1, kind="c"), features=(60.0, 0.0))
    strange = replace(trial("x", 0.05, 0.25, -0.1, "foreign"), features=(-60.0, 0.0))
    fit = fit_guard([*good, alone, strange])
    assert fit.false_alarms["strangeness"] <= 0.05
    row = next(r for r in detection([*good, alone, strange], fit) if r["fault"] == "foreign")
    assert row["flagged"] == 0  # strange is a notice
    assert "strangeness" in row["flags"]


def test_too_few_to_learn_from() -> None:
    with pytest.raises(ConfigError, match="two"):
        fit_guard([trial("a", 0.05, 0.2, 0.0)])
    with pytest.raises(ConfigError, match="no good"):
        known_of([])
